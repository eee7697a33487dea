//! A group drains as one: with streams on every rank, SIGTERM to one rank or to all fails none of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use rustix::process::Signal;
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::ask::{Answer, End, Open, greedy};

use crate::even;

const RANKS: usize = 4;
const STREAMS: usize = 16;
const FIXTURE: &str = "v2-lite";
/// Long enough to outlast the signal, short enough to end before the grace.
const TOKENS: u32 = 480;
/// Accept window, streams, farewell.
const GRACE: Duration = Duration::from_secs(110);

async fn streams(fleet: &Fleet, ranks: &[usize]) -> Result<Vec<Open>> {
    let open = |index: usize| {
        let prompt = [u32::try_from(index).unwrap_or(0) + 3, 8];
        fleet.workers[ranks[index % ranks.len()]].open(greedy(&prompt, TOKENS))
    };
    let mut streams = try_join_all((0..STREAMS).map(open)).await?;
    for stream in &mut streams {
        stream.read(1).await?;
    }
    Ok(streams)
}

async fn finish(streams: Vec<Open>) -> Result<Vec<Answer>> {
    try_join_all(streams.into_iter().map(|stream| stream.finish())).await
}

fn failures(answers: &[Answer]) -> usize {
    let whole = |answer: &&Answer| matches!(answer.end, End::Finished(_)) && answer.tokens.len() == TOKENS as usize;
    answers.len() - answers.iter().filter(whole).count()
}

async fn drain(signalled: &[usize]) -> Result<()> {
    let mut fleet = Fleet::start(&even(FIXTURE, RANKS)?).await?;
    let streams = streams(&fleet, &[0, 1, 2, 3]).await?;
    for &rank in signalled {
        fleet.signal(rank, Signal::TERM)?;
    }
    for worker in &fleet.workers {
        worker.wait_until_unready(Duration::from_secs(2)).await?;
    }
    // What was under way to a leaving group is still accepted.
    let late = fleet.workers[0].ask(greedy(&[9], 2)).await?;
    ensure!(matches!(late.end, End::Finished(_)), "{late:?}");
    let answers = finish(streams).await?;
    ensure!(failures(&answers) == 0, "{} of {STREAMS} streams failed", failures(&answers));
    fleet.wait_until_gone(GRACE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_to_one_rank_drains_the_group_and_fails_no_stream() -> Result<()> {
    drain(&[2]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_to_all_ranks_at_once_fails_no_stream() -> Result<()> {
    drain(&[0, 1, 2, 3]).await
}

/// The red check: this is what the two tests above would see without a drain of the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_rank_that_exits_at_once_fails_streams_of_the_others() -> Result<()> {
    let fleet = Fleet::start(&even(FIXTURE, 2)?.with_fault(1, "leave-at-once")).await?;
    let streams = streams(&fleet, &[0]).await?;
    fleet.signal(1, Signal::TERM)?;
    let answers = finish(streams).await?;
    ensure!(failures(&answers) > 0, "a rank left and nobody noticed");
    Ok(())
}
