//! Every split of every fixture gives the bits of one worker: greedy and seeded, alone and in a batch of 16, with exact
//! numerics and with BF16 KV.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::fixture::{FIXTURES, experts};

use crate::equal::{Reference, row};
use crate::page;

/// Fleets that run at once.
const AT_ONCE: usize = 3;
/// Tokens of each answer.
const TOKENS: u32 = 6;

/// Even and uneven splits of `experts` over 2, 3 and 4 workers; some ranges are apart, one worker may own none.
pub(crate) fn placements(experts: u32) -> Result<Vec<Placement>> {
    let third = (experts / 3).max(3);
    let uneven = [
        vec![vec![0..experts - 3], vec![experts - 3..experts]],
        vec![vec![0..1, third..experts - 1], vec![1..third], vec![experts - 1..experts]],
        vec![vec![2..third], vec![], vec![0..2, third..experts - 1], vec![experts - 1..experts]],
    ];
    let even = (2..5).map(|size| Placement::even(experts, size));
    let uneven = uneven.into_iter().map(|shards| Placement::new(experts, shards));
    Ok(even.chain(uneven).collect::<Result<_, _>>()?)
}

/// The group, once it has given the bits of one worker with at least three pairs of ten computed by a peer.
pub(crate) async fn check(reference: &Reference, placement: Placement, flags: &[&str]) -> Result<Fleet> {
    let what = format!("{} {flags:?} {placement:?}", reference.name);
    let fleet = reference.compare(placement, flags).await.context(what.clone())?;
    let (remote, local) = (fleet.sum(r#"place="remote""#).await?, fleet.sum(r#"place="local""#).await?);
    ensure!(remote * 10 >= (remote + local) * 3, "{what}: only {remote} of {} pairs were remote", remote + local);
    ensure!(remote == fleet.sum(r#"place="served""#).await?, "{what}: pairs served are not those asked for");
    Ok(fleet)
}

async fn every_split_is_equal(numerics: &str) -> Result<()> {
    let flags = [numerics];
    let mut references = Vec::new();
    for name in FIXTURES {
        references.push(Reference::of(name, &flags, TOKENS).await?);
    }
    let (mut runs, mut rows) = (Vec::new(), String::new());
    for reference in &references {
        let placements = placements(experts(reference.name)?)?;
        rows += &row(reference.name, "Experts", &placements);
        runs.extend(placements.into_iter().map(|placement| check(reference, placement, &flags)));
    }
    let runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    runs.try_for_each(|_| async { Ok(()) }).await?;
    let head = "| fixture | strategy | workers | splits | largest |\n|---|---|---|---|---|\n";
    page::check(&numerics.replace("--numerics=", "strategies-"), &[head, &rows].concat());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_split_gives_the_bits_of_one_worker_with_exact_numerics() -> Result<()> {
    every_split_is_equal("--numerics=exact").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_split_gives_the_bits_of_one_worker_with_a_bf16_cache() -> Result<()> {
    every_split_is_equal("--numerics=default").await
}
