//! The recorded program: a list of ops over numbered buffers, for one segment of a step and one shape bucket.
//!
//! A backend turns a program into something it can run again and again: a walk over a pool, a captured graph, one
//! encoder. Never holds numbers, devices or requests.

mod dtype;

pub use dtype::Dtype;

use crate::formats::e4m3::TILE;
use crate::ops::Op;

/// Number of a buffer within one loaded model; declared by the recipe, honoured by every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// What a buffer is for; decides who may write it and how long its contents live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferKind {
    /// Uploaded once, read only after that.
    Weight,
    /// Paged cache; rows are slots. Lives until the model is dropped.
    Kv,
    /// Meaningless at the start of every run.
    Scratch,
    /// Carries from one segment of a step to the next.
    State,
    /// Written by the program, read by the host after `wait`.
    PortOut,
    /// Written by the host before `submit`, read by the program.
    PortIn,
}

/// Declaration of a buffer: `rows × cols` elements, row-major, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferDecl {
    /// For errors and traces, such as `model.layers.3.mlp.experts.gate`.
    pub name: String,
    /// What it is for.
    pub kind: BufferKind,
    /// Of every element.
    pub dtype: Dtype,
    /// Capacity in rows; the live rows of a run come from the [`Control`](crate::backend::Control) or from a `len` buffer.
    pub rows: usize,
    /// Elements of a row; whole blocks of the dtype.
    pub cols: usize,
    /// Of an E4M3 weight: what its tiles are multiplied by.
    pub scales: Option<Scales>,
}

/// The companion of an E4M3 weight: one scale for every 128 × 128 tile, ragged at the lower and right edges.
///
/// The weight is a stack of matrices of `rows` rows; each has its own ⌈rows/128⌉ × ⌈cols/128⌉ tiles, stacked alike.
/// A weight's value is e4m3 · scale, one F32 product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scales {
    /// F32, BF16, F16 or E8M0 \[matrices · ⌈rows/128⌉, ⌈cols/128⌉\].
    pub buffer: BufferId,
    /// Rows of one matrix of the stack.
    pub rows: usize,
}

impl Scales {
    /// Row of the companion that scales `row` of the weight.
    #[must_use]
    pub fn row_of(self, row: usize) -> usize {
        row / self.rows * self.rows.div_ceil(TILE) + row % self.rows / TILE
    }

    /// Rows and columns of the companion of a weight of `rows` × `cols`.
    #[must_use]
    pub fn shape(self, rows: usize, cols: usize) -> (usize, usize) {
        (rows.div_ceil(self.rows) * self.rows.div_ceil(TILE), cols.div_ceil(TILE))
    }
}

impl BufferDecl {
    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.dtype.bytes_of(self.rows * self.cols)
    }
}

/// Columns of a buffer seen as `groups` runs of `width`: element (row, g, i) stands at column `offset + g·stride + i`.
///
/// ```text
/// row: |· offset ·|width|··stride − width··|width|··…
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The buffer looked at.
    pub buffer: BufferId,
    /// First column.
    pub offset: usize,
    /// Runs in a row: the heads, or 1.
    pub groups: usize,
    /// Columns from one run to the next.
    pub stride: usize,
    /// Columns of a run.
    pub width: usize,
}

impl View {
    /// The first `width` columns as one run.
    #[must_use]
    pub fn columns(buffer: BufferId, offset: usize, width: usize) -> Self {
        Self { buffer, offset, groups: 1, stride: width, width }
    }
}

/// Which part of a step a program is.
///
/// With M mixture layers and remote experts a step is `Front(0)`, then for each i in 0..M: rows travel,
/// `Local(i)` meanwhile, partial sums come back, `Front(i + 1)`. The expert lane runs `Serve(i)` for peers.
/// Unsharded, the same ops in the same order are one `Whole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Everything from embedding to sample.
    Whole,
    /// From the sum of mixture layer i − 1 (or the embedding) to the packed rows of mixture layer i (or the sample).
    Front(usize),
    /// Own experts and shared experts of mixture layer i.
    Local(usize),
    /// Own experts of mixture layer i for one frame of a peer's rows.
    Serve(usize),
}

/// Shape bucket: worst-case sizes that a program is recorded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Most rows (tokens) of one run.
    pub rows: usize,
    /// Most rows sampled in one run.
    pub samples: usize,
}

/// One op with the layer that it belongs to, for faults and profiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Index of the decoder layer; the number of layers for what follows them.
    pub layer: u32,
    /// What to do.
    pub op: Op,
}

/// A recorded program. Its buffers are declared beside it, once per loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Which part of a step.
    pub segment: Segment,
    /// Worst case.
    pub bucket: Bucket,
    /// Run in this order, as if each finished before the next begins.
    pub steps: Vec<Step>,
}
