//! A model whose weights are resident and whose programs are compiled: all that the engine needs to run steps.

use std::sync::Arc;

use crate::backend::{Backend, Executable};
use crate::ops::{PartialList, RowList};
use crate::program::{Bucket, BufferId};

pub use crate::backend::KV_BLOCK;

/// What the model is, for the front, for Hello and for the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `architectures[0]` of the config.
    pub architecture: String,
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Most tokens of a sequence that the config allows.
    pub max_context: u32,
    /// Decoder layers.
    pub layers: u32,
    /// Decoder layers with routed experts.
    pub mixture_layers: usize,
    /// Routed experts of such a layer.
    pub experts: u32,
    /// Experts chosen for a row.
    pub top_k: usize,
    /// config + tensor table + file sizes.
    pub model_digest: [u8; 32],
    /// Contents of the tensors that every shard holds.
    pub dense_digest: [u8; 32],
    /// Bytes of weights resident here.
    pub weight_bytes: u64,
    /// What of them a step reads.
    pub reads: Reads,
    /// {backend, level, activation rounding, KV dtype, kernel revision}.
    pub numerics_id: String,
    /// Blocks that the cache holds.
    pub kv_blocks: u32,
}

/// Which bytes of weights a step reads; with the experts that were read, all that a roofline needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reads {
    /// Whatever the rows are: all but experts and a table that only embeds.
    pub step_bytes: u64,
    /// For one expert of one layer, on average.
    pub expert_bytes: u64,
    /// Layers with routed experts that run here.
    pub mixture_layers: u64,
}

/// The compiled programs of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programs {
    /// No remote experts: one run a step.
    Whole(Executable),
    /// `front` has one more entry than there are mixture layers; `local` and `serve` have one each.
    Sharded {
        /// `Segment::Front(i)`.
        front: Vec<Executable>,
        /// `Segment::Local(i)`.
        local: Vec<Executable>,
        /// `Segment::Serve(i)`, on the expert lane.
        serve: Vec<Executable>,
    },
}

/// The ports between this shard and one peer that serves its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPorts {
    /// Port-out of `Front(i)`: the rows that chose the peer's experts; capacity = bucket rows.
    pub rows: RowList,
    /// Port-in of `Front(i + 1)`: what came back, rows in the order of `rows`.
    pub partials: PartialList,
}

/// The ports of the expert lane; one frame of one peer at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServePorts {
    /// Port-in of `Serve(i)`.
    pub rows: RowList,
    /// Port-out of `Serve(i)`.
    pub partials: PartialList,
    /// Most rows of one frame.
    pub capacity: usize,
}

/// Where the residual stream enters and leaves a stage of a pipeline: F32 \[bucket rows, hidden\] each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StagePorts {
    /// Port-in; `None` for the first stage, which embeds tokens.
    pub input: Option<BufferId>,
    /// Port-out; `None` for the last stage, which samples.
    pub output: Option<BufferId>,
}

/// Weights resident, programs compiled.
pub struct LoadedModel {
    /// Where everything lives.
    pub backend: Arc<dyn Backend>,
    /// What it is.
    pub info: ModelInfo,
    /// Worst case of one run.
    pub bucket: Bucket,
    /// What to submit.
    pub programs: Programs,
    /// By rank; `None` for this shard itself and for peers without experts.
    pub peers: Vec<Option<PeerPorts>>,
    /// `None` when unsharded.
    pub serve: Option<ServePorts>,
    /// Both `None` when all layers are here.
    pub stage: StagePorts,
}

/// Most rows of one frame between shards: what fits 1 MiB with its lists, and at least one.
#[must_use]
pub fn frame_rows(hidden: usize, top_k: usize) -> usize {
    const FRAME_BYTES: usize = 1 << 20;
    const ENVELOPE: usize = 4096;
    let row = hidden * 4 + top_k * 10 + 10;
    ((FRAME_BYTES - ENVELOPE) / row).max(1)
}
