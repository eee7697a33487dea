//! Wiring: channels, threads, the small runtime of the shard protocol. Never waits for a peer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use shoal_proto::placement::Placement;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::drain::drain;
use super::fault::Fault;
use super::handle::{DrainPhase, EngineHandle, EngineInfo, Readiness};
use super::lane::StepLane;
use super::probe::probe;
use super::request::Submission;
use super::stats::EngineStats;
use super::step::Stepper;
use super::{EngineConfig, EngineError, GroupConfig};
use crate::model::loaded::{KV_BLOCK, LoadedModel, ModelInfo, Programs, frame_rows};
use crate::scheduler::Limits;
use crate::shards::OUTSTANDING;
use crate::shards::exchange::{Exchange, Owner};
use crate::shards::expert_lane::{ExpertLane, Job};
use crate::shards::frames::Shape;
use crate::shards::group::{Answer, CountStreams, Group, GroupParts};
use crate::shards::heartbeat::monitor;
use crate::shards::identity::{hex, identity};
use crate::shards::link::Link;
use crate::shards::server::{ShardService, serve};
use crate::shards::tls::Tls;

/// Threads of the shard protocol's runtime: streams encode on one while heartbeats go on the other.
const PROTOCOL_THREADS: usize = 2;

/// Starts the lanes and, in a group, the shard protocol; returns at once. Readiness follows through the handle.
///
/// # Errors
/// [`EngineError`]: nothing runs then.
pub fn start(config: EngineConfig) -> Result<EngineHandle, EngineError> {
    let (submissions, inbox) = mpsc::channel(config.capacity.queue.max(1));
    let (handle, parts, answers) = seam(&config, &submissions);
    let EngineConfig { model, capacity, group: place, tls, probe_token, fault, .. } = config;
    let stats = Arc::clone(&handle.stats);
    let group = Arc::new(Group::new(parts, Instant::now()));
    let listener = place.as_ref().map(listen).transpose()?;
    let mut protocol = Protocol { group: Arc::clone(&group), links: vec![], server: None, tls, fault, probe_token };
    let exchange = match (place, listener) {
        (Some(place), Some(listener)) => Some(protocol.join(&model, &place, listener, answers)?),
        _ => None,
    };
    let limits = Limits {
        running: capacity.sequences,
        waiting: capacity.queue,
        step_tokens: model.bucket.rows,
        step_samples: model.bucket.samples,
        blocks: model.info.kv_blocks,
        block_tokens: u32::try_from(KV_BLOCK).expect("should fit: a small constant"),
    };
    let LoadedModel { backend, programs, .. } = model;
    let stepper = Stepper { backend, programs, exchange, stats, steps: 0 };
    let lane = StepLane::new(limits, stepper, group);
    spawn("shoal-step", move || lane.run(inbox))?;
    protocol.run(submissions.downgrade())?;
    Ok(handle)
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
        identity: identity(&model.info, placement, rank, epoch),
        timing: config.timing,
        streams: count_streams(submissions, &stats),
        answers: to_lane,
        readiness: ready,
        drain: phase,
        leave: leave.clone(),
        stats: Arc::clone(&stats),
    };
    let info = Arc::new(describe(&model.info, config.capacity.context_tokens));
    (EngineHandle { submissions: submissions.clone(), readiness, drain, leave, info, stats }, parts, answers)
}

fn describe(info: &ModelInfo, context_tokens: u32) -> EngineInfo {
    EngineInfo {
        architecture: info.architecture.clone(),
        context_tokens,
        vocabulary_size: info.vocabulary,
        model_digest: hex(&info.model_digest),
        numerics_id: info.numerics_id.clone(),
        weight_bytes: info.weight_bytes,
        reads: info.reads,
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

fn listen(place: &GroupConfig) -> Result<std::net::TcpListener, EngineError> {
    let failed = |source| EngineError::Listen { address: place.listen, source };
    let listener = std::net::TcpListener::bind(place.listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

fn spawn(what: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
    let thread = std::thread::Builder::new().name(what.to_owned());
    thread.spawn(body).map(drop).map_err(|source| EngineError::Thread { what, source })
}

/// The asynchronous side: links, server, monitor, probe and drain.
struct Protocol {
    group: Arc<Group>,
    links: Vec<(Link, mpsc::Receiver<Vec<shoal_proto::shard::Rows>>)>,
    server: Option<(std::net::TcpListener, SyncSender<Job>)>,
    tls: Option<Tls>,
    fault: Option<Fault>,
    probe_token: u32,
}

impl Protocol {
    /// Prepares links and server, starts the expert lane, and gives the step lane its side.
    fn join(
        &mut self,
        model: &LoadedModel,
        place: &GroupConfig,
        listener: std::net::TcpListener,
        answers: Receiver<Answer>,
    ) -> Result<Exchange, EngineError> {
        let size = place.placement.size();
        if place.peers.len() != size || place.rank as usize >= size {
            let text = format!("rank {} of {} peers does not fit a placement of {size}", place.rank, place.peers.len());
            return Err(EngineError::Group(text));
        }
        let shape = shape(model);
        let mut owners = Vec::new();
        for (rank, address) in (0..).zip(&place.peers).filter(|(rank, _)| *rank != place.rank) {
            let (link, work) = mpsc::channel(OUTSTANDING);
            let group = Arc::clone(&self.group);
            self.links.push((
                Link { group, rank, address: address.clone(), tls: self.tls.clone(), keep: link.clone() },
                work,
            ));
            let owned = place.placement.ranges(rank as usize).to_vec();
            if let Some(ports) = model.peers.get(rank as usize).copied().flatten() {
                owners.push(Owner { rank, owned, ports, link });
            }
        }
        let jobs = self.start_experts(model, place, shape)?;
        self.server = Some((listener, jobs));
        let sequences = vec![0; owners.len()];
        let (group, backend) = (Arc::clone(&self.group), Arc::clone(&model.backend));
        Ok(Exchange { group, backend, shape, owners, answers, sequences })
    }

    fn start_experts(
        &self,
        model: &LoadedModel,
        place: &GroupConfig,
        shape: Shape,
    ) -> Result<SyncSender<Job>, EngineError> {
        let (jobs, queue) = sync_channel(2 * OUTSTANDING * (place.peers.len() - 1));
        let (Some(ports), Programs::Sharded { serve, .. }) = (model.serve, &model.programs) else { return Ok(jobs) };
        let lane = ExpertLane {
            backend: Arc::clone(&model.backend),
            serve: serve.clone(),
            ports,
            shape,
            owned: place.placement.ranges(place.rank as usize).to_vec(),
            stats: self.group.stats_handle(),
            fault: self.fault,
        };
        spawn("shoal-experts", move || lane.run(&queue))?;
        Ok(jobs)
    }

    /// Runs everything on a runtime of its own, so that a busy front never delays a heartbeat.
    fn run(self, submissions: mpsc::WeakSender<Submission>) -> Result<(), EngineError> {
        let what = "the shard protocol's runtime";
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(PROTOCOL_THREADS)
            .thread_name("shoal-shards")
            .enable_all()
            .build()
            .map_err(|source| EngineError::Thread { what, source })?;
        spawn("shoal-protocol", move || runtime.block_on(self.work(submissions)))
    }

    async fn work(self, submissions: mpsc::WeakSender<Submission>) {
        let group = self.group;
        if let Some((listener, jobs)) = self.server {
            let service = ShardService { group: Arc::clone(&group), jobs };
            tokio::spawn(async move {
                let group = Arc::clone(&service.group);
                let result = match TcpListener::from_std(listener) {
                    Ok(listener) => serve(service, listener, self.tls).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = result {
                    group.fail(&format!("the shard port failed: {error}"));
                }
            });
            tokio::spawn(monitor(Arc::clone(&group)));
        }
        for (link, work) in self.links {
            tokio::spawn(link.run(work));
        }
        tokio::spawn(probe(Arc::clone(&group), submissions, self.probe_token));
        drain(group, self.fault).await;
    }
}

fn shape(model: &LoadedModel) -> Shape {
    Shape {
        hidden: model.info.hidden,
        top_k: model.info.top_k,
        experts: model.info.experts,
        layers: model.info.mixture_layers,
        rows: frame_rows(model.info.hidden, model.info.top_k),
    }
}
