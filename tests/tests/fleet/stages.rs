//! A stage that is lost, lies or is asked for tokens, and a stream that breaks: one typed end, or the same bits.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use rustix::process::Signal;
use shoal_proto::placement::Placement;
use shoal_proto::shard::shard_client::ShardClient;
use shoal_proto::shard::{ExchangeRequest, Identity, Stage, exchange_request, exchange_response};
use shoal_tests::fleet::ask::{End, greedy};
use shoal_tests::fleet::bits::{of_answer, of_tokens};
use shoal_tests::fleet::fixture::{layers, path};
use shoal_tests::fleet::proxy::Proxy;
use shoal_tests::fleet::{Fleet, Spec};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::refusals::identity_of;

const FIXTURE: &str = "v3-yarn";
const PROMPTS: [[u32; 3]; 4] = [[5, 9, 200], [17, 3, 99], [42, 42, 7], [8, 1, 1]];
/// Long enough that no stream ends by itself.
const TOKENS: u32 = 480;
/// From the loss to the last terminal event.
const BOUND: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(30);

fn pipeline(stages: usize) -> Result<Spec> {
    Ok(Spec::new(path(FIXTURE), Placement::even_pipeline(layers(FIXTURE)?, stages)?))
}

/// How a stage is lost.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Signal(Signal),
    Hang,
}

async fn lose(loss: Loss, rank: usize, after: usize) -> Result<Duration> {
    let alone = Fleet::start(&pipeline(1)?).await?;
    let whole = try_join_all(PROMPTS.iter().map(|prompt| alone.workers[0].ask(greedy(prompt, TOKENS)))).await?;
    let spec = match loss {
        Loss::Signal(_) => pipeline(4)?,
        Loss::Hang => pipeline(4)?.with_fault(rank, &format!("hang-stage-after={}", 40 + after)),
    };
    let fleet = Fleet::start(&spec).await?;
    let first = &fleet.workers[0];
    let mut streams = try_join_all(PROMPTS.iter().map(|prompt| first.open(greedy(prompt, TOKENS)))).await?;
    for stream in &mut streams {
        stream.read(after).await?;
    }
    match loss {
        Loss::Signal(signal) => fleet.signal(rank, signal)?,
        Loss::Hang => fleet.workers[rank].wait_for_log("the stage hangs", LIMIT).await?,
    }
    let begin = Instant::now();
    let ends = try_join_all(streams.into_iter().map(|stream| stream.finish()));
    let answers = tokio::time::timeout(BOUND * 4, ends).await.context("a stream hangs")??;
    let took = begin.elapsed();
    for (answer, whole) in answers.iter().zip(&whole) {
        let End::Failed(failed) = &answer.end else { anyhow::bail!("a stream finished: {:?}", answer.end) };
        ensure!(failed.code == "UNAVAILABLE" && failed.retryable, "{failed:?}");
        let names_it = failed.message.starts_with(&format!("peer rank {rank} is lost: "));
        ensure!(names_it || failed.message.starts_with("the pipeline stands still: "), "{failed:?}");
        let wanted = of_tokens(&whole.tokens);
        ensure!(wanted.starts_with(&of_tokens(&answer.tokens)), "a wrong token before the loss");
    }
    ensure!(took <= BOUND, "{loss:?} of rank {rank}: the last stream ended after {took:?}");
    first.wait_until_unready(Duration::from_secs(2)).await?;
    ensure!(first.ask(greedy(&[1], 1)).await.is_err(), "a lost group takes requests");
    Ok(took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_is_killed_stopped_or_hangs_ends_every_stream_with_one_typed_error() -> Result<()> {
    for loss in [Loss::Signal(Signal::KILL), Loss::Signal(Signal::STOP), Loss::Hang] {
        for (rank, after) in [(1, 0), (2, 3), (3, 40)] {
            let took = lose(loss, rank, after).await.with_context(|| format!("{loss:?} of rank {rank}"))?;
            println!("{loss:?} of rank {rank}: typed errors within {:.2} s", took.as_secs_f32());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_behind_cut_streams_keeps_its_bits() -> Result<()> {
    let alone = Fleet::start(&pipeline(1)?).await?;
    let expected = of_answer(&alone.workers[0].ask(greedy(&PROMPTS[0], 400)).await?).context("a reference failed")?;
    let (forth, back) = (Proxy::start().await?, Proxy::start().await?);
    let routed = pipeline(3)?.with_route(0, 1, forth.address).with_route(2, 0, back.address);
    let mut fleet = Fleet::launch(&routed)?;
    forth.lead_to(fleet.workers[1].shard);
    back.lead_to(fleet.workers[0].shard);
    fleet.workers[0].wait_until_ready(LIMIT * 2).await?;
    let mut stream = fleet.workers[0].open(greedy(&PROMPTS[0], 400)).await?;
    for cut in 0..12 {
        stream.read(4 + 30 * cut).await?;
        if cut % 2 == 0 { forth.cut() } else { back.cut() }
    }
    let found = of_answer(&stream.finish().await?).context("a cut stream failed its request")?;
    ensure!(found == expected, "a cut stream changed bits");
    ensure!(forth.carried() > 3 && back.carried() > 3, "nothing was cut");
    ensure!(fleet.workers[0].is_ready().await, "a restored stream lost the group");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rank_0_of_a_pipeline_takes_requests_and_the_others_say_so() -> Result<()> {
    let fleet = Fleet::start(&pipeline(2)?).await?;
    let refused = fleet.workers[1].client().await?.generate(greedy(&[1], 1)).await.err().context("it was served")?;
    ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");
    let text = "this is stage 1 of a pipeline of 2; only rank 0 of the group takes requests";
    ensure!(refused.message() == text, "{refused:?}");
    ensure!(fleet.workers[1].is_ready().await, "a stage that computes is not ready");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_that_differ_in_what_a_step_may_be_never_meet() -> Result<()> {
    let fleet = Fleet::launch(&pipeline(2)?.with_of(0, &["--step-tokens=64"]).with_of(1, &["--step-tokens=63"]))?;
    fleet.workers[0].wait_for_log("capacity differs: rank 0 has", LIMIT).await?;
    ensure!(!fleet.workers[0].is_ready().await, "rank 0 is ready");
    Ok(())
}

/// What a stage may not be sent, and what it says then.
fn lies() -> [(&'static str, Stage); 4] {
    let piece = || Stage { step: u64::MAX, activation_dtype: "f32".into(), last: true, ..Stage::default() };
    [
        ("it sent frame 18446744073709551615 where frame ", Stage { sequence: u64::MAX, ..piece() }),
        ("it sent activation_dtype ", Stage { activation_dtype: "f16".into(), ..piece() }),
        ("it sent a plan without chunks", piece()),
        ("it sent a plan that is none", Stage { plan: vec![0x0a, 0x7f].into(), ..piece() }),
    ]
}

/// Sends a lie under every number from 0 on until it is refused: rank 0 uses numbers up meanwhile, and one of these is the
/// next.
async fn tell(client: &mut ShardClient<Channel>, identity: Identity, lie: &Stage) -> Result<()> {
    let (up, frames) = mpsc::channel(1);
    let frame = |frame| ExchangeRequest { epoch: 1, frame: Some(frame) };
    up.send(frame(exchange_request::Frame::Identity(identity))).await?;
    let mut replies = client.exchange(ReceiverStream::new(frames)).await?.into_inner();
    // The prompt, the answer and the probe are steps; a few more than those.
    for sequence in 0..u64::from(TOKENS) + 5 {
        let stage = Stage { sequence: lie.sequence.max(sequence), ..lie.clone() };
        up.send(frame(exchange_request::Frame::Stage(stage))).await?;
        loop {
            match replies.message().await {
                Ok(Some(reply)) if matches!(reply.frame, Some(exchange_response::Frame::Taken(_))) => break,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_lies_costs_the_group_and_no_stream_hangs() -> Result<()> {
    for (words, lie) in lies() {
        let fleet = Fleet::start(&pipeline(2)?).await?;
        let mut stream = fleet.workers[0].open(greedy(&PROMPTS[0], TOKENS)).await?;
        stream.read(1).await?;
        let mut client = ShardClient::connect(format!("http://{}", fleet.workers[1].shard)).await?;
        let identity = identity_of(&mut client, 0, 1).await?;
        tell(&mut client, identity, &lie).await?;
        // A lane that is busy with a step sees only afterwards what is in these frames; by then they may be too many.
        fleet.workers[1].wait_for_log("peer rank 0 is lost: it sent ", LIMIT).await?;
        let log = fleet.workers[1].log();
        ensure!(log.contains(words) || log.contains("it sent more frames than may be in flight"), "{words:?}: {log}");
        let answer = tokio::time::timeout(BOUND * 4, stream.finish()).await.context("a stream hangs")??;
        let End::Failed(failed) = &answer.end else { anyhow::bail!("a stream finished: {:?}", answer.end) };
        ensure!(failed.code == "UNAVAILABLE" && failed.retryable, "{failed:?}");
    }
    Ok(())
}
