//! Weights in block formats and in FP8: decoded row by row into F32 in a scratch that stays in cache, never as a whole.
//!
//! What follows is the arithmetic of F32 weights, so a result has the same bits as a model of decoded weights.

use std::cell::Cell;

use crate::formats::e4m3::TILE;
use crate::program::{Dtype, Scales};

/// Decoded elements that a thread holds at once: half of a small second-level cache.
const SCRATCH_ELEMENTS: usize = 64 << 10;

/// Rows of a weight in their source format.
#[derive(Clone, Copy)]
pub(super) struct Encoded<'a> {
    pub(super) dtype: Dtype,
    pub(super) bytes: &'a [u8],
    pub(super) cols: usize,
    pub(super) scales: Option<TileScales<'a>>,
}

/// The companion of an E4M3 weight.
#[derive(Clone, Copy)]
pub(super) struct TileScales<'a> {
    pub(super) layout: Scales,
    pub(super) dtype: Dtype,
    pub(super) bytes: &'a [u8],
}

impl Encoded<'_> {
    /// Elements.
    pub(super) fn len(self) -> usize {
        let (numbers, bytes) = self.dtype.block();
        self.bytes.len() / bytes * numbers
    }

    /// Decodes consecutive rows from `first` into `out`, which is whole rows long.
    pub(super) fn widen_rows(self, first: usize, out: &mut [f32]) {
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.cols)) {
            let bytes = self.dtype.bytes_of(self.cols);
            self.dtype.widen(&self.bytes[row * bytes..][..bytes], out);
            if let Some(scales) = self.scales {
                scales.apply(row, out);
            }
        }
    }
}

impl TileScales<'_> {
    fn apply(self, row: usize, out: &mut [f32]) {
        let size = self.dtype.bytes_of(1);
        let first = self.layout.row_of(row) * out.len().div_ceil(TILE);
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let mut scale = [0.0];
            self.dtype.widen(&self.bytes[(first + tile) * size..][..size], &mut scale);
            out.iter_mut().for_each(|out| *out *= scale[0]);
        }
    }
}

/// How many rows of `cols` elements are decoded at once, `banks` of them side by side.
pub(super) fn rows_at_once(cols: usize, banks: usize) -> usize {
    (SCRATCH_ELEMENTS / (cols * banks).max(1)).next_multiple_of(4).clamp(4, 64)
}

/// Calls `work` with this thread's scratch of `len` elements, whatever they hold.
pub(super) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    let result = work(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}
