//! Mixture of experts: route, pack, own experts, shared experts, tree sum.
//!
//! ```text
//! Front(i):     h ─► router ─► choices ─► pack: own rows, and one port per peer
//! Local(i):     own rows ─► experts ─► own partial sums        h ─► shared experts
//! Front(i + 1): own + peers' partial sums ─► tree ─► shared + routed ─► residual
//! Serve(i):     a peer's rows ─► experts ─► its partial sums
//! ```

use std::ops::Range;

use crate::model::config::{ModelConfig, RouterBias};
use crate::model::loaded::{PeerPorts, ServePorts, frame_rows};
use crate::model::parts::{Mlp, MlpScratch, experts};
use crate::model::recipe::{ListDims, Recorder};
use crate::ops::{ExpertBank, Op, PartialList, RouterRule, RowList};
use crate::program::{BufferId, BufferKind, Dtype, Segment, View};
use crate::weights::WeightsError;

/// Which experts live where, as one rank sees it.
#[derive(Debug, Clone)]
pub(in crate::model) struct Ownership {
    /// Of this shard.
    pub(in crate::model) own: Vec<Range<u32>>,
    /// By rank; `None` for this shard and for peers without experts.
    pub(in crate::model) peers: Vec<Option<Vec<Range<u32>>>>,
}

/// Buffers that all mixture layers share.
pub(in crate::model) struct MixtureBuffers {
    experts: u32,
    rule: RouterRule,
    hidden: usize,
    ownership: Ownership,
    logits: BufferId,
    expert: BufferId,
    weight: BufferId,
    own: (RowList, PartialList),
    work: ExpertWork,
    routed: BufferId,
    /// Result and scratch of the shared experts, where the family has them.
    shared: Option<(BufferId, MlpScratch)>,
    /// Ports by rank.
    pub(in crate::model) peers: Vec<Option<PeerPorts>>,
    /// Ports and scratch of the expert lane.
    serve: Option<(ServePorts, ExpertWork)>,
}

/// Scratch of one run over experts.
#[derive(Clone, Copy)]
struct ExpertWork {
    middle: BufferId,
    terms: BufferId,
}

impl ExpertWork {
    fn declare(recorder: &mut Recorder<'_>, name: &str, pairs: usize, config: &ModelConfig) -> Self {
        let mut scratch = |part: &str, cols| {
            recorder.buffer(BufferKind::Scratch, Dtype::F32, &format!("{name}.{part}"), [pairs, cols])
        };
        Self { middle: scratch("middle", config.decoder.mixture.width), terms: scratch("terms", config.hidden) }
    }
}

impl MixtureBuffers {
    pub(in crate::model) fn declare(recorder: &mut Recorder<'_>, config: &ModelConfig, ownership: Ownership) -> Self {
        let rows = recorder.bucket().rows;
        let mixture = &config.decoder.mixture;
        let dims = ListDims { hidden: config.hidden, top_k: mixture.router.top_k };
        let ports = ownership.peers.iter().enumerate().map(|(rank, owned)| {
            owned.as_ref().map(|_| PeerPorts {
                rows: recorder.row_list(BufferKind::PortOut, &format!("to.{rank}"), rows, dims),
                partials: recorder.partial_list(BufferKind::PortIn, &format!("from.{rank}"), rows, dims),
            })
        });
        let peers: Vec<_> = ports.collect();
        let sharded = ownership.peers.len() > 1;
        let serve = sharded.then(|| {
            let capacity = frame_rows(config.hidden, dims.top_k);
            let ports = ServePorts {
                rows: recorder.row_list(BufferKind::PortIn, "serve.rows", capacity, dims),
                partials: recorder.partial_list(BufferKind::PortOut, "serve.partials", capacity, dims),
                capacity,
            };
            (ports, ExpertWork::declare(recorder, "serve", capacity * dims.top_k, config))
        });
        Self {
            experts: mixture.experts,
            rule: mixture.router.clone(),
            hidden: config.hidden,
            logits: recorder.rows(BufferKind::Scratch, "router.logits", mixture.experts as usize),
            expert: recorder.buffer(BufferKind::Scratch, Dtype::U32, "router.expert", [rows, dims.top_k]),
            weight: recorder.rows(BufferKind::Scratch, "router.weight", dims.top_k),
            own: (
                recorder.row_list(BufferKind::State, "own.rows", rows, dims),
                recorder.partial_list(BufferKind::State, "own.partials", rows, dims),
            ),
            work: ExpertWork::declare(recorder, "own", rows * dims.top_k, config),
            routed: recorder.rows(BufferKind::Scratch, "routed", config.hidden),
            shared: MlpScratch::declare(recorder, "shared", mixture.shared_width)
                .map(|scratch| (recorder.rows(BufferKind::State, "shared", config.hidden), scratch)),
            ownership,
            peers,
            serve,
        }
    }

    /// Ports of the expert lane; `None` when unsharded.
    pub(in crate::model) fn serve_ports(&self) -> Option<ServePorts> {
        self.serve.as_ref().map(|(ports, _)| *ports)
    }

    fn experts_over(&self, list: RowList, work: ExpertWork, bank: &ExpertBank, out: PartialList) -> Vec<Op> {
        let ExpertWork { middle, terms } = work;
        vec![
            Op::GroupedGateUp { list, bank: bank.clone(), out: middle },
            Op::GroupedDown { list, bank: bank.clone(), input: middle, out: terms },
            Op::TreePartials { list, terms, owned: bank.owned.clone(), experts: self.experts, out },
        ]
    }
}

/// Weights of one mixture layer.
pub(in crate::model) struct Mixture {
    router: BufferId,
    /// Part of the logits.
    router_bias: Option<BufferId>,
    /// For the choice only.
    correction: Option<BufferId>,
    bank: ExpertBank,
    shared: Option<Mlp>,
}

impl Mixture {
    pub(in crate::model) fn bind(
        recorder: &mut Recorder<'_>,
        config: &ModelConfig,
        buffers: &MixtureBuffers,
        layer: usize,
    ) -> Result<Self, WeightsError> {
        let mixture = &config.decoder.mixture;
        let prefix = format!("model.layers.{layer}.{}", mixture.prefix);
        let router = format!("{prefix}.{}", mixture.router_name);
        let count = mixture.experts as usize;
        let bank = experts::bind(recorder, config, &buffers.ownership, &prefix)?;
        let mut bias = |kind, name: &str| {
            (mixture.router_bias == kind).then(|| recorder.vector(&format!("{router}.{name}"), count)).transpose()
        };
        let correction = bias(RouterBias::Correction, "e_score_correction_bias")?;
        let router_bias = bias(RouterBias::Linear, "bias")?;
        let shared = (mixture.shared_width > 0)
            .then(|| Mlp::bind(recorder, &format!("{prefix}.shared_experts"), config.hidden, mixture.shared_width))
            .transpose()?;
        let router = recorder.matrix(&format!("{router}.weight"), [count, config.hidden])?;
        Ok(Self { router, router_bias, correction, bank, shared })
    }

    /// End of `Front(i)`: choices and packed rows for `input`.
    pub(in crate::model) fn record_routing(
        &self,
        recorder: &mut Recorder<'_>,
        buffers: &MixtureBuffers,
        input: BufferId,
    ) {
        let MixtureBuffers { logits, expert, weight, ref ownership, .. } = *buffers;
        let out = View::columns(logits, 0, buffers.experts as usize);
        let columns = View::columns(input, 0, buffers.hidden);
        recorder.push(Op::Linear { input: columns, weight: self.router, bias: self.router_bias, out });
        recorder.push(Op::Route { logits, bias: self.correction, rule: buffers.rule.clone(), expert, weight });
        let mut pack = |owned: &[Range<u32>], out| {
            recorder.push(Op::PackRows { input, expert, weight, owned: owned.to_vec(), out });
        };
        pack(&ownership.own, buffers.own.0);
        for (owned, ports) in ownership.peers.iter().zip(&buffers.peers) {
            if let (Some(owned), Some(ports)) = (owned, ports) {
                pack(owned, ports.rows);
            }
        }
    }

    /// `Local(i)`: own experts over own rows, shared experts over `input`.
    pub(in crate::model) fn record_local(
        &self,
        recorder: &mut Recorder<'_>,
        buffers: &MixtureBuffers,
        input: BufferId,
    ) {
        let (list, partials) = buffers.own;
        for op in buffers.experts_over(list, buffers.work, &self.bank, partials) {
            recorder.push(op);
        }
        if let (Some(mlp), Some((out, scratch))) = (&self.shared, buffers.shared) {
            mlp.record(recorder, scratch, input, out);
        }
    }

    /// `Serve(i)`: own experts over a peer's rows.
    pub(in crate::model) fn record_serve(&self, recorder: &mut Recorder<'_>, buffers: &MixtureBuffers, index: usize) {
        if let Some((ports, work)) = &buffers.serve {
            let ops = buffers.experts_over(ports.rows, *work, &self.bank, ports.partials);
            recorder.aside(Segment::Serve(index), ports.capacity, ops);
        }
    }
}

impl MixtureBuffers {
    /// Start of `Front(i + 1)`: `out` = `residual` + (shared + routed); both may be one buffer.
    pub(in crate::model) fn record_sum(&self, recorder: &mut Recorder<'_>, residual: BufferId, out: BufferId) {
        let peers = self.peers.iter().flatten().map(|ports| (ports.rows, ports.partials));
        let parts = std::iter::once(self.own).chain(peers).collect();
        let routed = self.routed;
        recorder.push(Op::TreeCombine { parts, experts: self.experts, out: routed });
        if let Some((shared, _)) = self.shared {
            recorder.push(Op::Add { a: shared, b: routed, out: routed });
        }
        recorder.push(Op::Add { a: residual, b: routed, out });
    }
}
