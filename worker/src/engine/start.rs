//! Wiring: channels and lanes. Never waits for a peer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use shoal_proto::placement::Placement;
use shoal_proto::shard::Strategy;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::books::Books;
use super::handle::{DrainPhase, EngineHandle, EngineInfo, Readiness};
use super::lane::StepLane;
use super::protocol::Protocol;
use super::request::Submission;
use super::stats::EngineStats;
use super::step::Stepper;
use super::{EngineConfig, EngineError, GroupConfig, experts, pipeline};
use crate::model::loaded::{KV_BLOCK, LoadedModel, ModelInfo};
use crate::scheduler::Limits;
use crate::shards::group::{Answer, CountProgress, CountStreams, Group, GroupParts};
use crate::shards::identity::{hex, identity};
use crate::shards::pipeline::StageShape;

/// Starts the lanes and, in a group, the shard protocol; returns at once. Readiness follows through the handle.
///
/// # Errors
/// [`EngineError`]: nothing runs then.
pub fn start(config: EngineConfig) -> Result<EngineHandle, EngineError> {
    let (submissions, inbox) = mpsc::channel(config.capacity.queue.max(1));
    let (handle, parts, answers) = seam(&config, &submissions);
    let EngineConfig { model, capacity, group: place, tls, probe_token, fault, .. } = config;
    let group = Arc::new(Group::new(parts, Instant::now()));
    let limits = Limits {
        running: capacity.sequences,
        waiting: capacity.queue,
        step_tokens: model.bucket.rows,
        step_samples: model.bucket.samples,
        blocks: model.info.kv_blocks,
        block_tokens: u32::try_from(KV_BLOCK).expect("should fit: a small constant"),
        depth: place.as_ref().filter(|place| is_pipeline(place)).map_or(1, |place| place.placement.size()),
    };
    let probe_token = handle.info.takes_requests.then_some(probe_token);
    let mut protocol = Protocol::new(Arc::clone(&group), tls, fault, probe_token);
    let books = Books::new(limits, group);
    match place {
        Some(place) if is_pipeline(&place) => pipeline::join::start(&mut protocol, model, &place, books, inbox)?,
        place => {
            let exchange = place.map(|place| experts::join(&mut protocol, &model, &place, answers)).transpose()?;
            let LoadedModel { backend, programs, .. } = model;
            let stats = Arc::clone(&handle.stats);
            let lane = StepLane { books, stepper: Stepper { backend, programs, exchange, stats, steps: 0 } };
            spawn("shoal-step", move || lane.run(inbox))?;
        }
    }
    protocol.run(submissions.downgrade())?;
    Ok(handle)
}

/// A pipeline of one stage is no pipeline.
fn is_pipeline(place: &GroupConfig) -> bool {
    place.placement.strategy() == Strategy::Pipeline && place.placement.size() > 1
}

/// The front's end and the group's end of everything that the two share.
fn seam(config: &EngineConfig, submissions: &mpsc::Sender<Submission>) -> (EngineHandle, GroupParts, Receiver<Answer>) {
    let EngineConfig { model, group: place, .. } = config;
    let stats = Arc::new(EngineStats::default());
    let (ready, readiness) = watch::channel(Readiness::Starting);
    let (phase, drain) = watch::channel(DrainPhase::Accepting);
    let leave = CancellationToken::new();
    // Every frame of one exchange with every peer, and the news of a loss.
    let (to_lane, answers) = sync_channel(model.peers.len() * (model.bucket.rows + 1) + 1);
    let alone = Placement::even(model.info.experts, 1).expect("should split: one shard is always allowed");
    let (placement, rank, epoch) =
        place.as_ref().map_or((&alone, 0, 0), |place| (&place.placement, place.rank, place.epoch));
    let parts = GroupParts {
        identity: identity(&model.info, placement, (rank, epoch), StageShape::of(model).capacity()),
        timing: config.timing,
        streams: count_streams(submissions, &stats),
        progress: count_progress(model),
        answers: to_lane,
        readiness: ready,
        drain: phase,
        leave: leave.clone(),
        stats: Arc::clone(&stats),
    };
    let takes_requests = rank == 0 || placement.strategy() != Strategy::Pipeline;
    let info = Arc::new(describe(&model.info, config.capacity.context_tokens, takes_requests));
    (EngineHandle { submissions: submissions.clone(), readiness, drain, leave, info, stats }, parts, answers)
}

fn describe(info: &ModelInfo, context_tokens: u32, takes_requests: bool) -> EngineInfo {
    EngineInfo {
        architecture: info.architecture.clone(),
        context_tokens,
        vocabulary_size: info.vocabulary,
        model_digest: hex(&info.model_digest),
        numerics_id: info.numerics_id.clone(),
        weight_bytes: info.weight_bytes,
        reads: info.reads,
        takes_requests,
    }
}

/// What waits in the channel, waits in the scheduler, or runs.
fn count_streams(submissions: &mpsc::Sender<Submission>, stats: &Arc<EngineStats>) -> CountStreams {
    let (submissions, stats) = (submissions.downgrade(), Arc::clone(stats));
    Arc::new(move || {
        let queued = submissions.upgrade().map_or(0, |sender| sender.max_capacity() - sender.capacity());
        let inside = EngineStats::get(&stats.waiting) + EngineStats::get(&stats.running);
        u32::try_from(queued as u64 + inside).unwrap_or(u32::MAX)
    })
}

fn count_progress(model: &LoadedModel) -> CountProgress {
    let backend = Arc::clone(&model.backend);
    Arc::new(move || backend.progress())
}

pub(super) fn spawn(what: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(what.to_owned());
    thread.spawn(body).map(drop).map_err(|source| EngineError::Thread { what, source })
}
