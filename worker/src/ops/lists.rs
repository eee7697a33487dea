//! Operands of the mixture ops: rows on their way to experts, partial sums on their way back, banks of weights.

use std::ops::Range;

use crate::ops::Activation;
use crate::program::BufferId;

/// Rows on their way to experts: in ports between shards, in state for the shard's own experts.
///
/// `len` = [rows, pairs]; row j is row `row[j]` of the requester and has `pairs[j]` consecutive entries in
/// `expert` (ascending within a row) and `weight`; `activation` row j is its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowList {
    /// U32 \[1, 2\].
    pub len: BufferId,
    /// U32 \[capacity, 1\], ascending.
    pub row: BufferId,
    /// U32 \[capacity, 1\].
    pub pairs: BufferId,
    /// U32 \[capacity · top_k, 1\].
    pub expert: BufferId,
    /// F32 \[capacity · top_k, 1\].
    pub weight: BufferId,
    /// F32 \[capacity, hidden\].
    pub activation: BufferId,
}

/// Partial sums on their way back: for each row of a [`RowList`], one F32 row per maximal tree node that the owner
/// holds whole and that was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialList {
    /// U32 \[1, 2\]: rows (as in the row list), nodes in all.
    pub len: BufferId,
    /// U32 \[capacity, 1\]: nodes of each row.
    pub nodes: BufferId,
    /// U32 \[capacity · top_k, 1\]: first expert of each node.
    pub lo: BufferId,
    /// U32 \[capacity · top_k, 1\]: one past the last expert of each node.
    pub hi: BufferId,
    /// F32 \[capacity · top_k, hidden\].
    pub sum: BufferId,
}

/// The weights of the experts that this shard owns in one layer, expert after expert in ascending order of id.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertBank {
    /// Ids owned, ascending, disjoint.
    pub owned: Vec<Range<u32>>,
    /// \[owned · width, hidden\].
    pub gate: BufferId,
    /// \[owned · width, hidden\].
    pub up: BufferId,
    /// \[owned · hidden, width\].
    pub down: BufferId,
    /// Columns of the expert's middle.
    pub width: usize,
    /// From gate and up to the middle.
    pub activation: Activation,
    /// Added to the products, where the family has them.
    pub biases: Option<ExpertBiases>,
}

/// Biases of the experts that this shard owns, a row each, in the order of their [`ExpertBank`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertBiases {
    /// \[owned, width\].
    pub gate: BufferId,
    /// \[owned, width\].
    pub up: BufferId,
    /// \[owned, hidden\]: added before the routing weight.
    pub down: BufferId,
}
