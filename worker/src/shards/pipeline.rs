//! Steps on their way through the stages of a pipeline: cut into frames and put together ([`frames`]), the plan that every
//! stage follows ([`plan`]), what the last one sampled ([`outcome`]), and the door through which frames come ([`intake`]).
//!
//! ```text
//! rank 0 ── plan + rows ──► rank 1 ── plan + rows ──► … rank N − 1
//!   ▲                                                      │
//!   └───────────────────── outcome ────────────────────────┘
//! ```
//! Everything in a frame is checked before it is used. Never schedules and never computes.

pub mod frames;
pub mod intake;
pub mod outcome;
pub mod plan;

use crate::backend::{KV_BLOCK, NonFinite};
use crate::model::loaded::LoadedModel;
use crate::program::Bucket;

use super::FRAME_BYTES;
use super::frames::FrameError;

/// Sizes that every frame of a pipeline is checked against; equal on all stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageShape {
    /// Elements of a row.
    pub hidden: usize,
    /// Most rows and samples of a step.
    pub bucket: Bucket,
    /// Positions are below this.
    pub context: u32,
    /// Block ids are below this.
    pub kv_blocks: u32,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Layers of the model.
    pub layers: u32,
}

impl StageShape {
    /// Of a loaded model.
    #[must_use]
    pub fn of(model: &LoadedModel) -> Self {
        let info = &model.info;
        Self {
            hidden: info.hidden,
            bucket: model.bucket,
            context: info.max_context,
            kv_blocks: info.kv_blocks,
            vocabulary: info.vocabulary,
            layers: info.layers,
        }
    }

    /// What a step may be, for people and for Hello.
    #[must_use]
    pub fn capacity(&self) -> String {
        let Self { context, kv_blocks, bucket: Bucket { rows, samples }, .. } = self;
        format!("{kv_blocks} KV blocks, a context of {context}, {rows} rows and {samples} samples a step")
    }

    /// Bytes of a row.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.hidden * size_of::<f32>()
    }

    /// No plan is longer than this when encoded: a varint of 32 bits has 5 bytes at most.
    #[must_use]
    pub fn plan_bytes(&self) -> usize {
        const CHUNK: usize = 32;
        const SAMPLE: usize = 96;
        let table = (self.context as usize).div_ceil(KV_BLOCK) * 5;
        let seen = self.context.min(self.vocabulary) as usize * 3 * 5;
        self.bucket.rows * (CHUNK + table) + self.bucket.samples * (SAMPLE + seen)
    }

    /// No step has more frames than this.
    #[must_use]
    pub fn frames(&self) -> usize {
        let rows = (FRAME_BYTES / self.row_bytes().max(1)).max(1);
        self.plan_bytes().div_ceil(FRAME_BYTES) + self.bucket.rows.div_ceil(rows) + 1
    }
}

/// The first fault of each row, by row: those of an earlier stage go before one's own.
#[must_use]
pub fn merge_faults(earlier: Vec<NonFinite>, own: Vec<NonFinite>) -> Vec<NonFinite> {
    let mut by_row = std::collections::BTreeMap::new();
    for fault in earlier.into_iter().chain(own) {
        by_row.entry(fault.row).or_insert(fault);
    }
    by_row.into_values().collect()
}

/// Rows and layers of faults, for the wire.
fn split_faults(faults: &[NonFinite]) -> (Vec<u32>, Vec<u32>) {
    faults.iter().map(|fault| (fault.row, fault.layer)).unzip()
}

/// The faults of a frame: rows of the step, ascending, and a layer beside each.
fn check_faults(rows: &[u32], layers: &[u32], live: usize, shape: &StageShape) -> Result<Vec<NonFinite>, FrameError> {
    let ascending = rows.is_sorted_by(|a, b| a < b) && rows.last().is_none_or(|&row| (row as usize) < live);
    if rows.len() != layers.len() || !ascending || layers.iter().any(|&layer| layer > shape.layers) {
        let text = format!(
            "faults in rows {rows:?} and layers {layers:?}; allowed: ascending rows below {live}, layers up to {}",
            shape.layers
        );
        return Err(FrameError(text));
    }
    let name = |layer| if layer < shape.layers { "finite_check" } else { "finite_check_samples" };
    Ok(rows.iter().zip(layers).map(|(&row, &layer)| NonFinite { row, layer, op: name(layer) }).collect())
}

#[cfg(test)]
mod tests;
