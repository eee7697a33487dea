//! The bytes that one shard needs, term by term: what a worker declares for its recorded program, in the worst case.
//!
//! Never compares with nodes.

use super::stages;
use crate::controller::validate::Validated;
use crate::crd::{Backend, ModelShape, Strategy, WeightFormat};

/// Rows that one step computes at most; the worker's limit.
pub const TOKEN_BUDGET: u64 = 512;
/// Tokens of one KV block; a sequence holds whole blocks.
pub const BLOCK_TOKENS: u64 = 64;
/// What a process needs beside its tensors: code, tokenizer, streams, one tensor while loading.
pub const MARGIN: u64 = 512 << 20;
/// What one frame between shards holds at most, without its envelope.
const FRAME_BYTES: u64 = (1 << 20) - 4096;
/// Activations, row lists and sums are F32 and U32.
const WORD: u64 = 4;

/// The bytes of the largest shard of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardBytes {
    /// Everything but the routed experts.
    pub dense: u64,
    /// The routed experts that the shard owns, in all layers.
    pub experts: u64,
    /// Its share of the sequences × their context.
    pub kv: u64,
    /// Rows to and sums from every other shard, and one frame of a peer's rows under way through the experts; of a
    /// stage, the rows that come in, those that go out and those of the steps under way.
    pub receive: u64,
    /// Rows of its own steps, with logits.
    pub activations: u64,
    /// See [`MARGIN`].
    pub margin: u64,
    /// Whether tensors live in the memory of a device rather than of the host.
    pub on_device: bool,
}

/// The part of a model that the largest shard of a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLoad {
    /// Along what the model is cut.
    pub strategy: Strategy,
    /// Shards of the group.
    pub shards: u64,
    /// Experts of one layer on this shard.
    pub experts: u64,
    /// Layers on this shard.
    pub layers: u64,
    /// Whether a stage holds the embedding or the head; a shard that is no stage holds both.
    pub table: bool,
}

impl ShardLoad {
    /// The largest shard: when the experts are divided evenly, or the layers so that this is smallest.
    #[must_use]
    pub fn largest(shape: &ModelShape, spec: &Validated, shards: u32) -> Self {
        let (strategy, experts) = (spec.strategy, positive(shape.experts));
        if strategy == Strategy::Pipeline {
            return stages::largest(shape, spec, shards);
        }
        let shards = u64::from(shards.max(1));
        Self { strategy, shards, experts: experts.div_ceil(shards), layers: positive(shape.layers), table: true }
    }

    /// The layers with experts among them: of a stage, as many as it can have.
    pub(super) fn moe_layers(self, sizes: &Sizes) -> u64 {
        sizes.moe_layers.min(self.layers)
    }
}

impl ShardBytes {
    /// Counts the bytes of a shard that owns `load.experts` experts of each of `load.layers` layers.
    ///
    /// Of a stage they are an upper bound: the shape says only what all layers hold together, so every layer counts as
    /// one with experts, and the dense part without one table as spread evenly over the layers.
    #[must_use]
    pub fn of(shape: &ModelShape, spec: &Validated, load: ShardLoad) -> Self {
        let sizes = Sizes::of(shape);
        let sequences = own_sequences(spec, load);
        let tokens = u64::from(spec.context_tokens).next_multiple_of(BLOCK_TOKENS);
        Self {
            dense: dense(shape, &sizes, load),
            experts: product([load.moe_layers(&sizes), shape.expert_bytes.unsigned_abs(), load.experts]),
            kv: product([sequences, tokens, load.layers, sizes.kv, kv_bytes(spec)]),
            receive: sizes.receive(load),
            activations: sizes.activations(sequences.min(TOKEN_BUDGET)),
            margin: MARGIN,
            on_device: spec.device.backend != Backend::CPU,
        }
    }

    /// All terms together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.tensors().saturating_add(self.margin)
    }

    /// All terms but the margin: what a worker allocates for its program.
    #[must_use]
    pub fn tensors(&self) -> u64 {
        let terms = [self.dense, self.experts, self.kv, self.receive, self.activations];
        terms.into_iter().fold(0, u64::saturating_add)
    }

    /// Memory of the device, 0 on CPU.
    #[must_use]
    pub fn device(&self) -> u64 {
        if self.on_device { self.total() } else { 0 }
    }

    /// Memory of the host: everything on CPU, else buffers and a margin for loading.
    #[must_use]
    pub fn host(&self) -> u64 {
        if self.on_device { self.receive.saturating_add(2 * MARGIN) } else { self.total() }
    }

    /// What the shard reads at its start.
    #[must_use]
    pub fn loaded(&self) -> u64 {
        self.dense.saturating_add(self.experts)
    }
}

/// Sequences whose cache one shard holds: its share, or all of them where every stage sees every sequence.
pub(super) fn own_sequences(spec: &Validated, load: ShardLoad) -> u64 {
    let all = u64::from(spec.max_concurrent_sequences);
    match load.strategy {
        Strategy::Experts => all.div_ceil(load.shards),
        Strategy::Pipeline => all,
    }
}

/// Everything but the routed experts that the shard holds.
pub(super) fn dense(shape: &ModelShape, sizes: &Sizes, load: ShardLoad) -> u64 {
    let all = shape.dense_bytes.unsigned_abs();
    if load.layers >= sizes.layers {
        return all;
    }
    let table = table(shape, sizes);
    let layers = product([(all - table).div_ceil(sizes.layers.max(1)), load.layers]);
    if load.table { layers.saturating_add(table) } else { layers }
}

/// The embedding, or a head of its size.
fn table(shape: &ModelShape, sizes: &Sizes) -> u64 {
    let bytes = product([sizes.vocabulary, sizes.hidden, dense_bytes_of_32(shape.weights)]) / 32;
    bytes.min(shape.dense_bytes.unsigned_abs())
}

/// Exact numerics cache F32; a device's default is BF16.
pub(super) fn kv_bytes(spec: &Validated) -> u64 {
    if spec.device.backend == Backend::CPU { 4 } else { 2 }
}

/// The sizes of a shape as unsigned numbers, and what a worker declares of them.
pub(super) struct Sizes {
    pub(super) layers: u64,
    pub(super) moe_layers: u64,
    pub(super) hidden: u64,
    pub(super) vocabulary: u64,
    pub(super) experts: u64,
    /// Experts of one token.
    pub(super) chosen: u64,
    pub(super) kv: u64,
    activation: u64,
    /// Columns of a routed expert's inner layer.
    width: u64,
}

impl Sizes {
    pub(super) fn of(shape: &ModelShape) -> Self {
        let hidden = positive(shape.hidden_size);
        let thirty_seconds = shape.expert_bytes.unsigned_abs().saturating_mul(32);
        Self {
            layers: positive(shape.layers),
            moe_layers: positive(shape.moe_layers),
            hidden,
            vocabulary: positive(shape.vocab_size),
            experts: positive(shape.experts),
            chosen: positive(shape.experts_per_token),
            kv: positive(shape.kv_elements),
            activation: positive(shape.activation_elements),
            // Gate, up and down are three matrices of hidden × width.
            width: thirty_seconds / (3 * hidden.max(1) * bytes_of_32(shape.weights)),
        }
    }

    /// Of one row: residual, its norm, the delta, shared and routed sum, the packed row; then each chosen expert's term
    /// and its place in the tree; router, lists, and what the shape counts.
    fn activations(&self, samples: u64) -> u64 {
        let row = (6 + 2 * self.chosen) * self.hidden + self.experts + 6 * self.chosen + 3 + self.activation;
        let sample = self.vocabulary + 2 * self.hidden + 1;
        product([TOKEN_BUDGET, row, WORD]).saturating_add(product([samples, sample, WORD]))
    }

    /// For each peer a step's rows and as many sums as they can have; one frame of a peer's rows with its experts' work.
    /// Of a stage: a step's rows as they come in and as they go out, and a copy of each step under way, of which there
    /// are as many as stages.
    fn receive(&self, load: ShardLoad) -> u64 {
        if load.strategy == Strategy::Pipeline {
            let steps = load.shards.saturating_add(2);
            return if load.shards > 1 { product([steps, TOKEN_BUDGET, self.hidden, WORD]) } else { 0 };
        }
        let row = (1 + self.chosen) * self.hidden + 4 * self.chosen + 3;
        let served = row + self.chosen * (self.hidden + self.width);
        let frame_rows = (FRAME_BYTES / (4 * self.hidden + 10 * self.chosen + 10)).max(1);
        let peers = load.shards.saturating_sub(1);
        let frame = if peers > 0 { product([frame_rows, served, WORD]) } else { 0 };
        product([peers, TOKEN_BUDGET, row, WORD]).saturating_add(frame)
    }
}

/// Bytes of 32 numbers of a routed expert, scales included where they are as dense as the numbers.
pub(super) fn bytes_of_32(format: WeightFormat) -> u64 {
    match format {
        WeightFormat::F32 => 128,
        WeightFormat::F16 | WeightFormat::BF16 => 64,
        WeightFormat::FP8 => 32,
        WeightFormat::MXFP4 => 17,
    }
}

/// Bytes of 32 numbers of the dense part, which MXFP4 leaves as it was.
pub(super) fn dense_bytes_of_32(format: WeightFormat) -> u64 {
    if format == WeightFormat::MXFP4 { 64 } else { bytes_of_32(format) }
}

/// The schema bounds every size of a shape from below by 1.
fn positive(size: i32) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}
