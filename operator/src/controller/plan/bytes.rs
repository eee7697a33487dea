//! The bytes that one shard needs, term by term.
//!
//! Never compares with nodes.

use crate::controller::validate::Validated;
use crate::crd::{Backend, ModelShape};

/// Rows that one step computes at most; the worker's limit.
pub const TOKEN_BUDGET: u64 = 512;
/// Tokens of one KV block; a sequence holds whole blocks.
pub const BLOCK_TOKENS: u64 = 64;
/// What a process needs beside its tensors: code, tokenizer, streams, one tensor while loading.
pub const MARGIN: u64 = 512 << 20;

/// The bytes of the largest shard of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardBytes {
    /// Everything but the routed experts.
    pub dense: u64,
    /// The routed experts that the shard owns, in all layers.
    pub experts: u64,
    /// Its share of the sequences × their context.
    pub kv: u64,
    /// Rows that the other shards may send at once.
    pub receive: u64,
    /// Rows of its own steps, with logits.
    pub activations: u64,
    /// See [`MARGIN`].
    pub margin: u64,
    /// Whether tensors live in the memory of a device rather than of the host.
    pub on_device: bool,
}

/// What the bytes of a shard depend on beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLoad {
    /// Shards of the group.
    pub shards: u64,
    /// Experts of one layer on this shard.
    pub experts: u64,
}

impl ShardBytes {
    /// Counts the bytes of a shard that owns `load.experts` experts of every layer.
    #[must_use]
    pub fn of(shape: &ModelShape, spec: &Validated, load: ShardLoad) -> Self {
        let on_device = spec.device.backend != Backend::CPU;
        let sequences = u64::from(spec.max_concurrent_sequences).div_ceil(load.shards);
        let tokens = u64::from(spec.context_tokens).next_multiple_of(BLOCK_TOKENS);
        let hidden = positive(shape.hidden_size);
        Self {
            dense: shape.dense_bytes.unsigned_abs(),
            experts: positive(shape.moe_layers) * shape.expert_bytes.unsigned_abs() * load.experts,
            kv: product([sequences, tokens, positive(shape.layers), positive(shape.kv_elements), kv_bytes(spec)]),
            receive: product([load.shards - 1, TOKEN_BUDGET, hidden * 4 + positive(shape.experts_per_token) * 8]),
            activations: product([TOKEN_BUDGET, hidden * 2 + positive(shape.activation_elements), 4])
                .saturating_add(product([sequences, positive(shape.vocab_size), 4])),
            margin: MARGIN,
            on_device,
        }
    }

    /// All terms together.
    #[must_use]
    pub fn total(&self) -> u64 {
        let terms = [self.dense, self.experts, self.kv, self.receive, self.activations, self.margin];
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

/// Exact numerics cache F32; a device's default is BF16.
fn kv_bytes(spec: &Validated) -> u64 {
    if spec.device.backend == Backend::CPU { 4 } else { 2 }
}

/// The schema bounds every size of a shape from below by 1.
fn positive(size: i32) -> u64 {
    u64::try_from(size).unwrap_or(0)
}

fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}
