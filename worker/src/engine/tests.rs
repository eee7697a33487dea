//! Groups of engines in one process over real sockets: the same bits for every split, one typed end for every loss.

mod cache;
mod pipeline;
mod slow;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use pretty_assertions::assert_eq;
use shoal_proto::placement::Placement;
use tokio::sync::mpsc;

use super::fault::Fault;
use super::handle::{DrainPhase, EngineHandle, Readiness};
use super::request::{Event, FailureCode, Request, SampledToken, SamplingParams, Submission};
use super::{Capacity, EngineConfig, GroupConfig, start};
use crate::backend::Backend;
use crate::backend::cpu::{CpuBackend, CpuOptions};
use crate::engine::stats::EngineStats;
use crate::model::load::{LoadOptions, load};
use crate::program::Dtype;
use crate::shards::timing::Timing;

/// Engines of one group, by rank.
struct Engines {
    handles: Vec<EngineHandle>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn engine(name: &str, group: Option<GroupConfig>, fault: Option<Fault>) -> EngineHandle {
    engine_with(name, group, fault, None)
}

fn engine_with(name: &str, group: Option<GroupConfig>, fault: Option<Fault>, kv_tokens: Option<u32>) -> EngineHandle {
    let cpu = CpuBackend::new(CpuOptions { threads: NonZeroUsize::MIN, level: None }).unwrap();
    engine_on(Arc::new(cpu), name, group, fault, kv_tokens)
}

fn engine_on(
    backend: Arc<dyn Backend>,
    name: &str,
    group: Option<GroupConfig>,
    fault: Option<Fault>,
    kv_tokens: Option<u32>,
) -> EngineHandle {
    let load_options = LoadOptions {
        directory: fixture(name),
        rank: group.as_ref().map_or(0, |group| group.rank as usize),
        placement: group.as_ref().map(|group| group.placement.clone()),
        context_tokens: Some(512),
        sequences: 16,
        kv_tokens,
        step_rows: 64,
        kv_dtype: Dtype::F32,
    };
    let model = load(&load_options, backend).unwrap();
    let capacity = Capacity { context_tokens: 512, sequences: 16, queue: 64 };
    let timing = Timing {
        heartbeat: Duration::from_millis(250),
        accept: Duration::from_millis(400),
        progress: Duration::from_millis(1500),
        suspect: Duration::from_secs(1),
        dead: Duration::from_secs(2),
        ..Timing::default()
    };
    start(EngineConfig { model, capacity, group, tls: None, probe_token: 0, timing, fault }).unwrap()
}

impl Engines {
    /// Every group has a loopback address of its own, so that no two tests meet.
    fn start(name: &str, placement: &Placement, faults: &[Option<Fault>]) -> Self {
        Self::start_with(placement, |rank, place| engine(name, Some(place), faults.get(rank).copied().flatten()))
    }

    fn start_with(placement: &Placement, start: impl Fn(usize, GroupConfig) -> EngineHandle) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let pid = std::process::id().to_be_bytes();
        let host = Ipv4Addr::new(127, pid[2] | 1, pid[3], NEXT.fetch_add(1, Ordering::Relaxed));
        let address = |rank: u32| SocketAddr::from((host, 20_000 + u16::try_from(rank).unwrap()));
        let size = u32::try_from(placement.size()).unwrap();
        let peers: Vec<String> = (0..size).map(|rank| address(rank).to_string()).collect();
        let place = |rank| GroupConfig {
            rank,
            epoch: 3,
            listen: address(rank),
            peers: peers.clone(),
            placement: placement.clone(),
        };
        Self { handles: (0..size).map(|rank| start(rank as usize, place(rank))).collect() }
    }

    async fn ready(self) -> Self {
        for handle in &self.handles {
            let ready = |readiness: &Readiness| {
                assert!(!matches!(readiness, Readiness::Lost { .. }), "{readiness:?}");
                *readiness == Readiness::Ready
            };
            tokio::time::timeout(Duration::from_secs(60), handle.readiness.clone().wait_for(ready))
                .await
                .expect("should be ready within a minute")
                .unwrap();
        }
        self
    }

    /// Waits until the group has drained; nobody was lost for it.
    async fn drained(&self) {
        for handle in &self.handles {
            let mut phase = handle.drain.clone();
            tokio::time::timeout(Duration::from_secs(20), phase.wait_for(|phase| *phase == DrainPhase::Done))
                .await
                .expect("should drain at once when nobody has a stream")
                .unwrap();
            assert_eq!(*handle.readiness.borrow(), Readiness::Ready);
        }
    }
}

fn stat(handle: &EngineHandle, field: fn(&EngineStats) -> &AtomicU64) -> u64 {
    EngineStats::get(field(&handle.stats))
}

/// The lane shows its gauges once it has told the clients.
async fn until_zero(handle: &EngineHandle, gauge: fn(&EngineStats) -> &AtomicU64) {
    let zero = async {
        while stat(handle, gauge) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), zero).await.expect("should come back to zero");
}

fn request(prompt: Vec<u32>, max_tokens: u32, sampling: SamplingParams) -> Request {
    Request {
        id: "r".into(),
        prompt,
        max_tokens,
        sampling,
        top_logprobs: 20,
        eos: vec![],
        deadline: None,
        priority: 0,
        tenant: String::new(),
        script: None,
    }
}

fn submit(handle: &EngineHandle, request: Request) -> mpsc::Receiver<Event> {
    let (events, answer) = mpsc::channel(request.max_tokens as usize + 2);
    handle.submissions.try_send(Submission { request, events }).unwrap();
    answer
}

async fn collect(mut answer: mpsc::Receiver<Event>) -> (Vec<SampledToken>, Event) {
    let mut tokens = Vec::new();
    loop {
        match answer.recv().await.expect("should end with a terminal event") {
            Event::Began { .. } => {}
            Event::Token(token) => tokens.push(token),
            end => {
                assert_eq!(answer.recv().await, None);
                return (tokens, end);
            }
        }
    }
}

/// Four prompts on each rank at once, greedy and seeded; the bits of every log-probability.
async fn answers(handles: &[&EngineHandle]) -> Vec<Vec<(u32, u32, Vec<(u32, u32)>)>> {
    let mut open = Vec::new();
    for index in 0..4_u32 {
        let prompt: Vec<u32> = (0..5 + 37 * index).map(|i| (i * 7 + index) % 120).collect();
        let sampling =
            SamplingParams { temperature: (index % 2) as f32, seed: u64::from(index), ..SamplingParams::default() };
        open.push(submit(handles[index as usize % handles.len()], request(prompt, 6, sampling)));
    }
    let mut all = Vec::new();
    for answer in open {
        let (tokens, end) = collect(answer).await;
        assert_eq!(end, Event::Finished(super::request::FinishReason::Length));
        let bits = |t: SampledToken| {
            (t.id, t.logprob.to_bits(), t.top.into_iter().map(|(id, logprob)| (id, logprob.to_bits())).collect())
        };
        all.push(tokens.into_iter().map(bits).collect());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_split_gives_the_bits_of_one_worker() {
    for name in ["v2-lite", "uneven"] {
        let whole = Engines { handles: vec![engine(name, None, None)] }.ready().await;
        let expected = answers(&whole.handles.iter().collect::<Vec<_>>()).await;
        let experts = if name == "uneven" { 24 } else { 16 };
        let one = |range: std::ops::Range<u32>| vec![range];
        let placements = [
            Placement::even(experts, 2).unwrap(),
            Placement::even(experts, 3).unwrap(),
            Placement::new(experts, vec![one(3..11), vec![0..3, 11..experts], vec![]]).unwrap(),
        ];
        for placement in placements {
            let engines = Engines::start(name, &placement, &[]).ready().await;
            let found = answers(&engines.handles.iter().collect::<Vec<_>>()).await;
            assert_eq!(found, expected, "{name} {placement:?}");
            let sum = |field: fn(&EngineStats) -> &AtomicU64| -> u64 {
                engines.handles.iter().map(|handle| stat(handle, field)).sum()
            };
            let remote = sum(|stats| &stats.expert_pairs_remote);
            assert!(remote * 10 >= 3 * (remote + sum(|stats| &stats.expert_pairs_local)), "too little was remote");
            assert_eq!(remote, sum(|stats| &stats.expert_pairs_served));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_whose_expert_lane_hangs_ends_streams_with_one_retryable_error() {
    let placement = Placement::even(16, 2).unwrap();
    let engines = Engines::start("v2-lite", &placement, &[None, Some(Fault::HangExpertLaneAfter(40))]).ready().await;
    let handle = &engines.handles[0];
    let answer = submit(handle, request(vec![1, 2, 3], 400, SamplingParams::default()));
    let (tokens, end) = collect(answer).await;
    let Event::Failed(failure) = end else { panic!("{end:?}") };
    assert_eq!((failure.code, failure.retryable), (FailureCode::Unavailable, true));
    assert_eq!(failure.message, "peer rank 1 is lost: no answer to its rows for 1.5 s");
    assert!(!tokens.is_empty() && tokens.len() < 40);
    assert!(matches!(&*handle.readiness.borrow(), Readiness::Lost { .. }));
    let late = submit(handle, request(vec![1], 1, SamplingParams::default()));
    assert!(matches!(collect(late).await.1, Event::Failed(failure) if failure.code == FailureCode::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_drains_as_one_and_no_stream_fails() {
    let placement = Placement::even(16, 2).unwrap();
    let engines = Engines::start("v2-lite", &placement, &[]).ready().await;
    let streams: Vec<_> = engines
        .handles
        .iter()
        .map(|handle| submit(handle, request(vec![1, 2], 400, SamplingParams::default())))
        .collect();
    engines.handles[1].leave.cancel();
    let mut phase = engines.handles[0].drain.clone();
    phase.wait_for(|phase| *phase == DrainPhase::Leaving).await.unwrap();
    let late = submit(&engines.handles[0], request(vec![3], 2, SamplingParams::default()));
    for answer in streams.into_iter().chain([late]) {
        assert!(matches!(collect(answer).await.1, Event::Finished(_)));
    }
    engines.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_frees_its_blocks_and_a_passed_deadline_fails() {
    let engines = Engines { handles: vec![engine("v2-lite", None, None)] }.ready().await;
    let handle = &engines.handles[0];
    drop(submit(handle, request(vec![1], 500, SamplingParams::default())));
    let soon = std::time::Instant::now() + Duration::from_millis(1);
    let late = Request { deadline: Some(soon), ..request(vec![1], 500, SamplingParams::default()) };
    let (_, end) = collect(submit(handle, late)).await;
    assert!(matches!(end, Event::Failed(failure) if failure.code == FailureCode::DeadlineExceeded));
    let (tokens, _) = collect(submit(handle, request(vec![1], 3, SamplingParams::default()))).await;
    assert_eq!(tokens.len(), 3);
    until_zero(handle, |stats| &stats.kv_blocks_used).await;
}
