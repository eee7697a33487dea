//! Stages in one process over real sockets: the bits of one worker, several steps in flight, one typed end for every loss.

use std::collections::BTreeMap;

use pretty_assertions::assert_eq;

use super::*;
use crate::backend::strict::{StrictBackend, StrictOptions};
use crate::engine::request::FinishReason;

/// A fixture of every family, one with a tied head, with its layers.
const FIXTURES: [(&str, u32); 7] = [
    ("v2-lite", 3),
    ("v3-yarn", 4),
    ("qwen3-sparse", 6),
    ("qwen3-tied", 3),
    ("mixtral-window", 3),
    ("olmoe-clip", 3),
    ("gpt-oss-small", 3),
];

/// Even and uneven stages.
fn placements(layers: u32) -> Vec<Placement> {
    let uneven = [vec![0..1, 1..layers], vec![0..layers - 1, layers - 1..layers], vec![0..1, 1..2, 2..layers]];
    let uneven = uneven.into_iter().map(|stages| Placement::pipeline(layers, stages).unwrap());
    [2, 3].into_iter().map(|size| Placement::even_pipeline(layers, size).unwrap()).chain(uneven).collect()
}

fn strict() -> Arc<dyn Backend> {
    let cpu = CpuOptions { threads: NonZeroUsize::MIN, level: None };
    Arc::new(StrictBackend::new(StrictOptions { cpu, seed: 7 }).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pipeline_gives_the_bits_of_one_worker() {
    for (name, layers) in FIXTURES {
        let whole = Engines { handles: vec![engine(name, None, None)] }.ready().await;
        let expected = answers(&[&whole.handles[0]]).await;
        for placement in placements(layers) {
            let engines = Engines::start(name, &placement, &[]).ready().await;
            assert_eq!(answers(&[&engines.handles[0]]).await, expected, "{name} {placement:?}");
            let bytes: u64 = engines.handles.iter().map(|handle| handle.info.weight_bytes).sum();
            let held = whole.handles[0].info.weight_bytes;
            assert!(bytes == held || name == "qwen3-tied" && bytes > held, "{name}: {bytes} bytes of {held}");
            let (last, others) = engines.handles.split_last().unwrap();
            let rows = stat(&others[0], |stats| &stats.stage_rows);
            assert!(rows > 200 && others.iter().all(|handle| stat(handle, |stats| &stats.stage_rows) == rows));
            assert_eq!(stat(last, |stats| &stats.stage_rows), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_of_strict_backends_gives_the_same_bits() {
    for (name, layers) in FIXTURES {
        let whole = Engines { handles: vec![engine(name, None, None)] }.ready().await;
        let placement = Placement::even_pipeline(layers, 3).unwrap();
        let stage = |_, place| engine_on(strict(), name, Some(place), None, None);
        let engines = Engines::start_with(&placement, stage).ready().await;
        let found = answers(&[&engines.handles[0]]).await;
        assert_eq!(found, answers(&[&whole.handles[0]]).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stage_is_a_worker_alone() {
    let whole = Engines { handles: vec![engine("v3-yarn", None, None)] }.ready().await;
    let engines = Engines::start("v3-yarn", &Placement::even_pipeline(4, 1).unwrap(), &[]).ready().await;
    assert_eq!(answers(&[&engines.handles[0]]).await, answers(&[&whole.handles[0]]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_steps_are_in_flight_as_there_are_stages() {
    for size in [2, 4] {
        let engines = Engines::start("v3-yarn", &Placement::even_pipeline(4, size).unwrap(), &[]).ready().await;
        let first = &engines.handles[0];
        let open: Vec<_> =
            (1..=16).map(|token| submit(first, request(vec![token], 40, SamplingParams::default()))).collect();
        for answer in open {
            assert_eq!(collect(answer).await.1, Event::Finished(FinishReason::Length));
        }
        assert_eq!(stat(first, |stats| &stats.micro_batches_most), size as u64);
        until_zero(first, |stats| &stats.micro_batches).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn penalties_look_at_what_was_said_in_a_pipeline_too() {
    let sampling = SamplingParams {
        temperature: 1.0,
        seed: 3,
        repetition_penalty: 1.3,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        ..SamplingParams::default()
    };
    let asked = request((0..90).map(|i| i % 60).collect(), 60, sampling);
    let whole = Engines { handles: vec![engine("v2-lite", None, None)] }.ready().await;
    let engines = Engines::start("v2-lite", &Placement::even_pipeline(3, 3).unwrap(), &[]).ready().await;
    let expected = collect(submit(&whole.handles[0], asked.clone())).await;
    assert_eq!(collect(submit(&engines.handles[0], asked)).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_beginning_and_a_sequence_put_back_change_no_bit_of_a_pipeline() {
    let conversations = cache::conversations();
    let roomy = Engines { handles: vec![engine("v2-lite", None, None)] }.ready().await;
    let mut cold = Vec::new();
    for (index, asked) in conversations.iter().cloned().enumerate() {
        let alone = Request { tenant: index.to_string(), ..asked };
        cold.push(cache::bits(collect(submit(&roomy.handles[0], alone)).await.0));
    }
    let stage = |_, place| engine_with("v2-lite", Some(place), None, Some(512));
    let engines = Engines::start_with(&Placement::even_pipeline(3, 3).unwrap(), stage).ready().await;
    let first = &engines.handles[0];
    for _ in 0..2 {
        let open: Vec<_> = conversations.iter().cloned().map(|asked| submit(first, asked)).collect();
        for (index, answer) in open.into_iter().enumerate() {
            let (tokens, end) = collect(answer).await;
            assert_eq!(end, Event::Finished(FinishReason::Length));
            assert_eq!(cache::bits(tokens), cold[index], "request {index}");
        }
    }
    assert!(stat(first, |stats| &stats.prompt_tokens_cached) > 0 && stat(first, |stats| &stats.preemptions) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_hangs_ends_every_stream_with_one_retryable_error() {
    let placement = Placement::even_pipeline(3, 3).unwrap();
    for hung in [1, 2] {
        let mut faults = [None; 3];
        faults[hung] = Some(Fault::HangStageAfter(30));
        let engines = Engines::start("v2-lite", &placement, &faults).ready().await;
        let first = &engines.handles[0];
        let open: Vec<_> =
            (1..5).map(|token| submit(first, request(vec![token], 400, SamplingParams::default()))).collect();
        let mut reasons = BTreeMap::new();
        for answer in open {
            let (tokens, end) = collect(answer).await;
            let Event::Failed(failure) = end else { panic!("{end:?}") };
            assert_eq!((failure.code, failure.retryable), (FailureCode::Unavailable, true));
            assert!(tokens.len() < 40);
            *reasons.entry(failure.message.split("of step").next().unwrap().to_owned()).or_insert(0) += 1;
        }
        assert_eq!(reasons, BTreeMap::from([("the pipeline stands still: no outcome ".to_owned(), 4)]));
        assert!(matches!(&*first.readiness.borrow(), Readiness::Lost { .. }));
        let late = submit(first, request(vec![1], 1, SamplingParams::default()));
        assert!(matches!(collect(late).await.1, Event::Failed(failure) if failure.code == FailureCode::Unavailable));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_drains_as_one_and_no_stream_fails() {
    let engines = Engines::start("v2-lite", &Placement::even_pipeline(3, 3).unwrap(), &[]).ready().await;
    let first = &engines.handles[0];
    let open: Vec<_> =
        (1..4).map(|token| submit(first, request(vec![token], 400, SamplingParams::default()))).collect();
    engines.handles[1].leave.cancel();
    for answer in open {
        assert!(matches!(collect(answer).await.1, Event::Finished(_)));
    }
    engines.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_rank_0_takes_requests_and_clients_that_leave_free_their_blocks() {
    let engines = Engines::start("v2-lite", &Placement::even_pipeline(3, 2).unwrap(), &[]).ready().await;
    let takes: Vec<_> = engines.handles.iter().map(|handle| handle.info.takes_requests).collect();
    assert_eq!(takes, [true, false]);
    let (events, _answer) = mpsc::channel(4);
    let refused = request(vec![1], 1, SamplingParams::default());
    assert!(engines.handles[1].submissions.try_send(Submission { request: refused, events }).is_err());
    let first = &engines.handles[0];
    drop(submit(first, request(vec![1], 500, SamplingParams::default())));
    let soon = std::time::Instant::now() + Duration::from_millis(1);
    let late = Request { deadline: Some(soon), ..request(vec![1], 500, SamplingParams::default()) };
    let (_, end) = collect(submit(first, late)).await;
    assert!(matches!(end, Event::Failed(failure) if failure.code == FailureCode::DeadlineExceeded));
    until_zero(first, |stats| &stats.kv_blocks_used).await;
}
