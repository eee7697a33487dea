//! Dot products of F32 rows with weight rows in their source format, tiled so that a weight is read once for several
//! rows, and cut over the pool by output column.
//!
//! One output element is Σ_k x_k · w_k: element k goes to lane k mod 16 in ascending order, a short end is padded with
//! zeros, then the lanes are summed in a fixed order. So its bits depend on its two rows alone.
#![expect(unsafe_code, reason = "pointer walks over checked ranges, and calls of levelled kernels")]

use std::ops::Range;

use half::{bf16, f16};

use super::encoded::{Encoded, rows_at_once, with_scratch};
use super::epilogue::Epilogue;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Bf16, F16, F32, Format, LANES, Lanes, Scalar, load_tail, sum, to_array};
use super::level::{Available, Level};
use super::pool::Pool;
use super::runs::Shared;

/// Elements of a weight or of a cache in their source format.
#[derive(Clone, Copy)]
pub(super) enum Weight<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    /// Decoded on the way.
    Encoded(Encoded<'a>),
}

impl Weight<'_> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::F32(all) => all.len(),
            Self::Bf16(all) => all.len(),
            Self::F16(all) => all.len(),
            Self::Encoded(all) => all.len(),
        }
    }

    /// Consecutive rows of `cols` elements from `first` as F32; `out` is whole rows long.
    fn widen_rows(self, cols: usize, first: usize, out: &mut [f32]) {
        let own = first * cols..first * cols + out.len();
        match self {
            Self::F32(all) => out.copy_from_slice(&all[own]),
            Self::Bf16(all) => out.iter_mut().zip(&all[own]).for_each(|(out, x)| *out = x.to_f32()),
            Self::F16(all) => out.iter_mut().zip(&all[own]).for_each(|(out, x)| *out = x.to_f32()),
            Self::Encoded(all) => all.widen_rows(first, out),
        }
    }
}

/// out\[out_rows\[r\] + n\] = scale\[r\] · (Σ_k x\[x_rows\[r\] + k\] · weight\[first + n, k\] + bias\[n\]), n in 0..columns.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) x: &'a [f32],
    /// Where each input row starts.
    pub(super) x_rows: &'a [usize],
    pub(super) k: usize,
    pub(super) weight: Weight<'a>,
    /// With it, the result is the epilogue's activation of weight · x and gated · x.
    pub(super) gated: Option<Weight<'a>>,
    pub(super) first: usize,
    pub(super) columns: usize,
    /// Where each output row starts.
    pub(super) out_rows: &'a [usize],
    pub(super) scale: Option<&'a [f32]>,
    pub(super) epilogue: Epilogue<'a>,
}

impl Product<'_> {
    fn assert_inside(&self, out: usize) {
        let fits = |rows: &[usize], width: usize, len: usize| rows.iter().all(|&at| at + width <= len);
        assert!(fits(self.x_rows, self.k, self.x.len()), "input rows should stay in their buffer");
        assert!(fits(self.out_rows, self.columns, out), "output rows should stay in their buffer");
        let weights = (self.first + self.columns) * self.k;
        assert!(weights <= self.weight.len(), "weight rows should stay in their buffer");
        assert!(self.gated.is_none_or(|gated| weights <= gated.len()), "gated rows should stay in their buffer");
        assert!(self.x_rows.len() == self.out_rows.len(), "an output row should have one input row");
        assert!(self.scale.is_none_or(|scale| scale.len() == self.x_rows.len()), "a row should have one scale");
    }

    fn work(&self) -> usize {
        self.x_rows.len() * self.columns * self.k * if self.gated.is_some() { 2 } else { 1 }
    }
}

/// Computes products that write disjoint elements of `out`.
///
/// # Panics
/// When a product reaches outside its buffers or two output rows overlap.
pub(super) fn multiply(pool: &mut Pool, level: Available, products: &[Product<'_>], out: &mut [f32]) {
    let mut spans = Vec::new();
    for product in products {
        product.assert_inside(out.len());
        spans.extend(product.out_rows.iter().map(|&at| (at, at + product.columns)));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0), "output rows should not overlap");
    let work: usize = products.iter().map(Product::work).sum();
    let columns: usize = products.iter().map(|product| product.columns).sum();
    let pieces = pool.pieces(work, columns.div_ceil(LANES));
    let shared = Shared::new(out);
    pool.run(pieces, &|piece| {
        let (start, end) = (columns * piece / pieces, columns * (piece + 1) / pieces);
        let mut before = 0;
        for product in products {
            let own = start.max(before)..end.min(before + product.columns);
            if !own.is_empty() {
                // SAFETY: ranges are asserted above; a piece owns its columns; the level is available.
                unsafe { dispatch(level, product, own.start - before..own.end - before, shared) };
            }
            before += product.columns;
        }
    });
}

/// # Safety
/// The product is inside its buffers, and nobody else writes these columns of its rows.
unsafe fn dispatch(level: Available, product: &Product<'_>, columns: Range<usize>, out: Shared) {
    let skip = (product.first + columns.start) * product.k;
    // SAFETY: passed on; each format is taken with its own pointers.
    unsafe {
        match (product.weight, product.gated) {
            (Weight::F32(w), None) => at_level::<F32>(level, product, (&w[skip..], None), columns, out),
            (Weight::Bf16(w), None) => at_level::<Bf16>(level, product, (&w[skip..], None), columns, out),
            (Weight::F16(w), None) => at_level::<F16>(level, product, (&w[skip..], None), columns, out),
            (Weight::F32(w), Some(Weight::F32(g))) => {
                at_level::<F32>(level, product, (&w[skip..], Some(&g[skip..])), columns, out);
            }
            (Weight::Bf16(w), Some(Weight::Bf16(g))) => {
                at_level::<Bf16>(level, product, (&w[skip..], Some(&g[skip..])), columns, out);
            }
            (Weight::F16(w), Some(Weight::F16(g))) => {
                at_level::<F16>(level, product, (&w[skip..], Some(&g[skip..])), columns, out);
            }
            _ => decoded(level, product, columns, out),
        }
    }
}

/// Decodes some weight rows, multiplies all input rows with them, and so on: a weight is decoded once for all rows.
/// Takes every format, also a gate and an up of different ones.
///
/// # Safety
/// As [`dispatch`].
unsafe fn decoded(level: Available, product: &Product<'_>, columns: Range<usize>, out: Shared) {
    let Product { weight, gated, first, k, .. } = *product;
    let banks = if gated.is_some() { 2 } else { 1 };
    let step = rows_at_once(k, banks);
    for start in columns.clone().step_by(step) {
        let some = start..columns.end.min(start + step);
        let len = some.len() * k;
        with_scratch(banks * len, |scratch| {
            let (rows, gated_rows) = scratch.split_at_mut(len);
            weight.widen_rows(k, first + start, rows);
            if let Some(gated) = gated {
                gated.widen_rows(k, first + start, gated_rows);
            }
            let pair: Pair<'_, F32> = (rows, gated.map(|_| &*gated_rows));
            // SAFETY: passed on; the scratch holds the rows of these columns.
            unsafe { at_level::<F32>(level, product, pair, some, out) }
        });
    }
}

/// Weight rows, and gated rows, from that of the first column to compute.
type Pair<'a, F> = (&'a [<F as Format>::Element], Option<&'a [<F as Format>::Element]>);

/// # Safety
/// As [`dispatch`].
unsafe fn at_level<F: Format>(
    level: Available,
    product: &Product<'_>,
    weights: Pair<'_, F>,
    columns: Range<usize>,
    out: Shared,
) {
    // SAFETY: the level is available.
    unsafe {
        match level.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => columns_avx512::<F>(product, weights, columns, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => columns_avx2::<F>(product, weights, columns, out),
            _ => columns_of::<Scalar, F, 1, 2>(product, weights, columns, out),
        }
    }
}

/// # Safety
/// As [`dispatch`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn columns_avx512<F: Format>(product: &Product<'_>, weights: Pair<'_, F>, columns: Range<usize>, out: Shared) {
    // SAFETY: passed on.
    unsafe { columns_of::<Avx512, F, 4, 4>(product, weights, columns, out) }
}

/// # Safety
/// As [`dispatch`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn columns_avx2<F: Format>(product: &Product<'_>, weights: Pair<'_, F>, columns: Range<usize>, out: Shared) {
    // SAFETY: passed on.
    unsafe { columns_of::<Avx2, F, 2, 2>(product, weights, columns, out) }
}

/// # Safety
/// As [`dispatch`].
#[inline(always)]
unsafe fn columns_of<L: Lanes, F: Format, const M: usize, const N: usize>(
    product: &Product<'_>,
    weights: Pair<'_, F>,
    columns: Range<usize>,
    out: Shared,
) {
    let rows = product.x_rows.len();
    let mut column = columns.start;
    while column < columns.end {
        let wide = column + N <= columns.end;
        let mut row = 0;
        while row < rows {
            let tall = row + M <= rows;
            let at = (row, column, column - columns.start);
            // SAFETY: passed on; the tile is inside the rows and columns.
            unsafe {
                match (tall, wide) {
                    (true, true) => store::<L, F, M, N>(product, weights, at, out),
                    (true, false) => store::<L, F, M, 1>(product, weights, at, out),
                    (false, true) => store::<L, F, 1, N>(product, weights, at, out),
                    (false, false) => store::<L, F, 1, 1>(product, weights, at, out),
                }
            }
            row += if tall { M } else { 1 };
        }
        column += if wide { N } else { 1 };
    }
}

/// # Safety
/// As [`dispatch`], for M rows and N columns from `at`: row, column, and its weight row in the pair.
#[inline(always)]
unsafe fn store<L: Lanes, F: Format, const M: usize, const N: usize>(
    product: &Product<'_>,
    weights: Pair<'_, F>,
    at: (usize, usize, usize),
    out: Shared,
) {
    let (row, column, weight_row) = at;
    let mut x = [std::ptr::null(); M];
    for (m, start) in x.iter_mut().enumerate() {
        // SAFETY: the row is inside the input.
        *start = unsafe { product.x.as_ptr().add(product.x_rows[row + m]) };
    }
    // SAFETY: N rows of K elements are inside the weights.
    unsafe {
        let skipped = weight_row * product.k;
        let mut sums = tile::<L, F, M, N>(x, (weights.0.as_ptr().add(skipped), product.k), product.k);
        if let Some(gated) = weights.1 {
            let up = tile::<L, F, M, N>(x, (gated.as_ptr().add(skipped), product.k), product.k);
            for m in 0..M {
                for n in 0..N {
                    sums[m][n] = product.epilogue.gated(column + n, sums[m][n], up[m][n]);
                }
            }
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                let sum = if weights.1.is_some() { sum } else { product.epilogue.single(column + n, sum) };
                let scaled = product.scale.map_or(sum, |scale| scale[row + m] * sum);
                out.set(product.out_rows[row + m] + column + n, scaled);
            }
        }
    }
}

/// The dot products of M input rows with N weight rows of `k` elements, whose starts are `rows.1` elements apart.
///
/// # Safety
/// As [`Lanes`]; all rows have `k` readable elements.
#[inline(always)]
unsafe fn tile<L: Lanes, F: Format, const M: usize, const N: usize>(
    x: [*const f32; M],
    rows: (*const F::Element, usize),
    k: usize,
) -> [[f32; N]; M] {
    let (w, stride) = rows;
    // SAFETY: every address is below k elements from the start of its row.
    unsafe {
        let zero = L::splat(0.0);
        let mut lanes = [[zero; N]; M];
        let mut weights = [zero; N];
        let mut i = 0;
        while i + LANES <= k {
            for (n, weights) in weights.iter_mut().enumerate() {
                *weights = F::load::<L>(w.add(n * stride + i));
            }
            for m in 0..M {
                let input = L::load_f32(x[m].add(i));
                for n in 0..N {
                    lanes[m][n] = lanes[m][n].add_product(input, weights[n]);
                }
            }
            i += LANES;
        }
        if i < k {
            for (n, weights) in weights.iter_mut().enumerate() {
                *weights = load_tail::<L, F>(w.add(n * stride + i), k - i);
            }
            for m in 0..M {
                let input = load_tail::<L, F32>(x[m].add(i), k - i);
                for n in 0..N {
                    lanes[m][n] = lanes[m][n].add_product(input, weights[n]);
                }
            }
        }
        let mut sums = [[0.0; N]; M];
        for m in 0..M {
            for n in 0..N {
                sums[m][n] = sum(to_array(lanes[m][n]));
            }
        }
        sums
    }
}
