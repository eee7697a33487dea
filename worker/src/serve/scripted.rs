//! An engine that answers every request with the same tokens, for tests of the front.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::handle::{DrainPhase, EngineHandle, EngineInfo, Readiness};
use crate::engine::request::{Event, FinishReason, SampledToken, Submission};
use crate::engine::stats::EngineStats;
use crate::model::loaded::Reads;

/// What the engine does with a request.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Repeated until `max_tokens`.
    pub(super) tokens: Vec<u32>,
    /// Before each token.
    pub(super) pace: Duration,
    /// Never takes a request from the queue.
    pub(super) stalled: bool,
    /// Ends after this many tokens without a word.
    pub(super) dies_after: Option<u32>,
}

impl Default for Script {
    fn default() -> Self {
        Self { tokens: vec![97, 98, 99], pace: Duration::ZERO, stalled: false, dies_after: None }
    }
}

/// The test's side of the engine.
#[derive(Debug)]
pub(super) struct Controls {
    pub(super) readiness: watch::Sender<Readiness>,
    pub(super) drain: watch::Sender<DrainPhase>,
    pub(super) leave: CancellationToken,
    /// Requests whose client was gone before the end.
    pub(super) cancelled: Arc<AtomicUsize>,
}

pub(super) fn engine(script: Script) -> (EngineHandle, Controls) {
    let (submissions, queue) = mpsc::channel(2);
    let readiness = watch::Sender::new(Readiness::Ready);
    let drain = watch::Sender::new(DrainPhase::Accepting);
    let leave = CancellationToken::new();
    let info = EngineInfo {
        takes_requests: true,
        architecture: "Scripted".into(),
        context_tokens: 100,
        vocabulary_size: 261,
        model_digest: "00".into(),
        numerics_id: "scripted".into(),
        weight_bytes: 7,
        reads: Reads::default(),
    };
    let handle = EngineHandle {
        submissions,
        readiness: readiness.subscribe(),
        drain: drain.subscribe(),
        leave: leave.clone(),
        info: Arc::new(info),
        stats: Arc::new(EngineStats::default()),
    };
    let cancelled = Arc::new(AtomicUsize::new(0));
    tokio::spawn(run(script, queue, Arc::clone(&cancelled)));
    (handle, Controls { readiness, drain, leave, cancelled })
}

async fn run(script: Script, mut queue: mpsc::Receiver<Submission>, cancelled: Arc<AtomicUsize>) {
    if script.stalled {
        return std::future::pending().await;
    }
    while let Some(submission) = queue.recv().await {
        tokio::spawn(answer(script.clone(), submission, Arc::clone(&cancelled)));
    }
}

async fn answer(script: Script, Submission { request, events }: Submission, cancelled: Arc<AtomicUsize>) {
    let ids = script.tokens.iter().copied().cycle();
    for (count, id) in (1..=request.max_tokens).zip(ids) {
        if script.pace > Duration::ZERO {
            tokio::time::sleep(script.pace).await;
        }
        if script.dies_after.is_some_and(|after| count > after) {
            return;
        }
        let token = SampledToken { id, logprob: -1.0, top: vec![(id, -1.0)] };
        if events.try_send(Event::Token(token)).is_err() {
            cancelled.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if request.eos.contains(&id) {
            let _ = events.try_send(Event::Finished(FinishReason::Eos));
            return;
        }
    }
    let _ = events.try_send(Event::Finished(FinishReason::Length));
}
