//! A peer that is killed, stopped or hangs: every stream on the survivors ends with one typed, retryable error within
//! 6 s, no wrong token was sent before it, and readiness drops.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use rustix::process::Signal;
use shoal_tests::fleet::ask::{Answer, End, greedy};
use shoal_tests::fleet::bits::{TokenBits, of_answer, of_tokens};
use shoal_tests::fleet::{Fleet, Spec};
use tokio::time::Instant;

use crate::even;

const FIXTURE: &str = "v3-yarn";
/// Repeats of each loss, run in batches of [`AT_ONCE`] fleets.
const REPEATS: usize = 20;
const AT_ONCE: usize = 5;
/// From the loss to the last terminal event.
const BOUND: Duration = Duration::from_secs(6);
/// Long enough that no stream ends by itself.
const TOKENS: u32 = 480;
const PROMPTS: [[u32; 3]; 3] = [[5, 9, 200], [17, 3, 99], [42, 42, 7]];

/// How a peer is lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Signal(Signal),
    Hang,
}

/// The bits of one worker's answers: whatever a survivor sent must be a beginning of these.
async fn reference() -> Result<Vec<Vec<TokenBits>>> {
    let fleet = Fleet::start(&even(FIXTURE, 1)?).await?;
    let answers = try_join_all(PROMPTS.iter().map(|prompt| fleet.workers[0].ask(greedy(prompt, TOKENS)))).await?;
    answers.iter().map(of_answer).collect::<Option<_>>().context("a reference failed")
}

fn spec(loss: Loss, repeat: usize) -> Result<Spec> {
    let spec = even(FIXTURE, 2)?;
    Ok(match loss {
        Loss::Signal(_) => spec,
        Loss::Hang => spec.with_fault(1, &format!("hang-expert-lane-after={}", 20 + 7 * repeat)),
    })
}

async fn lose(loss: Loss, repeat: usize, reference: &[Vec<TokenBits>]) -> Result<Duration> {
    let fleet = Fleet::start(&spec(loss, repeat)?).await?;
    let survivor = &fleet.workers[0];
    let mut streams = try_join_all(PROMPTS.iter().map(|prompt| survivor.open(greedy(prompt, TOKENS)))).await?;
    // The phase of the loss differs with each repeat: from before the first token to deep in the answer.
    for stream in &mut streams {
        stream.read(repeat * 2).await?;
    }
    let mut begin = Instant::now();
    if let Loss::Signal(signal) = loss {
        fleet.signal(1, signal)?;
    } else {
        fleet.workers[1].wait_for_log("the expert lane hangs", Duration::from_secs(30)).await?;
        begin = Instant::now();
    }
    let ends = try_join_all(streams.into_iter().map(|stream| stream.finish()));
    let answers = tokio::time::timeout(BOUND * 4, ends).await.context("a stream hangs")??;
    let took = begin.elapsed();
    for (answer, reference) in answers.iter().zip(reference) {
        check(answer, reference)?;
    }
    ensure!(took <= BOUND, "{loss:?}: the last stream ended after {took:?}");
    survivor.wait_until_unready(Duration::from_secs(2)).await?;
    ensure!(survivor.ask(greedy(&[1], 1)).await.is_err(), "a lost group takes requests");
    Ok(took)
}

fn check(answer: &Answer, reference: &[TokenBits]) -> Result<()> {
    let End::Failed(failed) = &answer.end else { anyhow::bail!("a stream finished: {:?}", answer.end) };
    ensure!(failed.code == "UNAVAILABLE" && failed.retryable, "{failed:?}");
    ensure!(failed.message.starts_with("peer rank 1 is lost: "), "{failed:?}");
    ensure!(reference.starts_with(&of_tokens(&answer.tokens)), "a wrong token before the loss");
    Ok(())
}

async fn repeat(loss: Loss) -> Result<()> {
    let reference = reference().await?;
    let runs = (0..REPEATS).map(|repeat| {
        let reference = &reference;
        async move { lose(loss, repeat, reference).await.with_context(|| format!("{loss:?}, repeat {repeat}")) }
    });
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    let mut longest = Duration::ZERO;
    while let Some(run) = runs.next().await {
        longest = longest.max(run?);
    }
    println!("{loss:?}: {REPEATS} losses, typed errors within {:.2} s", longest.as_secs_f32());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_peer_ends_every_stream_with_one_typed_error() -> Result<()> {
    repeat(Loss::Signal(Signal::KILL)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_peer_ends_every_stream_with_one_typed_error() -> Result<()> {
    repeat(Loss::Signal(Signal::STOP)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_expert_lane_hangs_ends_every_stream_with_one_typed_error() -> Result<()> {
    repeat(Loss::Hang).await
}

/// Kubernetes, and `shoal up`, form a group anew when a process of it ends; a hang alone would tell them nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_survivors_of_a_hung_peer_end_by_themselves_and_say_why() -> Result<()> {
    let mut fleet = Fleet::start(&spec(Loss::Hang, 0)?).await?;
    let answer = fleet.workers[0].ask(greedy(&PROMPTS[0], TOKENS)).await?;
    ensure!(matches!(answer.end, End::Failed(_)), "{:?}", answer.end);
    let status = tokio::time::timeout(Duration::from_secs(30), fleet.workers[0].wait()).await??;
    ensure!(status.code() == Some(1), "{status}");
    let log = fleet.workers[0].log_tail();
    let last = log.lines().last().unwrap_or_default();
    ensure!(last.starts_with("shoal-worker: the group is lost: peer rank 1 is lost: "), "{log}");
    Ok(())
}
