//! A stream that breaks between two living ranks is dialled again and its rows are sent again: slower, never wrong.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::bits::of_answer;
use shoal_tests::fleet::proxy::Proxy;

use crate::even;

const FIXTURE: &str = "v3-yarn";
const PROMPT: [u32; 4] = [5, 9, 200, 31];
const TOKENS: u32 = 400;
const CUTS: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_cut_under_way_are_restored_and_the_answer_keeps_its_bits() -> Result<()> {
    let alone = Fleet::start(&even(FIXTURE, 1)?).await?;
    let expected = of_answer(&alone.workers[0].ask(greedy(&PROMPT, TOKENS)).await?).context("a reference failed")?;
    let proxy = Proxy::start().await?;
    let mut fleet = Fleet::launch(&even(FIXTURE, 2)?.with_route(0, 1, proxy.address))?;
    proxy.lead_to(fleet.workers[1].shard);
    fleet.workers[0].wait_until_ready(Duration::from_secs(60)).await?;
    let mut stream = fleet.workers[0].open(greedy(&PROMPT, TOKENS)).await?;
    for cut in 0..CUTS {
        stream.read(4 + 30 * cut).await?;
        proxy.cut();
    }
    let found = of_answer(&stream.finish().await?).context("a cut stream failed its request")?;
    ensure!(found == expected, "a cut stream changed bits");
    ensure!(proxy.carried() > 3, "only {} connections: nothing was cut", proxy.carried());
    ensure!(fleet.workers[0].is_ready().await, "a restored stream lost the group");
    Ok(())
}
