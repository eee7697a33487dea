//! Weighted sums of rows: of the values that a query sees, and of weight rows in the transposed half of absorption.

#[cfg(target_arch = "x86_64")]
use super::super::lanes::{Avx512, HalfAvx2};
use super::super::lanes::{Bf16, F16, F32, Format, LANES, Lanes, Plain, load_tail};
use super::super::level::{Available, Level};
use super::super::matmul::Weight;
use super::MANY;

/// Factors of one sum, by row, and what its output is multiplied with first.
#[derive(Clone, Copy)]
pub(super) struct Factors<'a> {
    pub(super) of: &'a [f32],
    pub(super) shrink: f32,
}

/// out = out · shrink + Σ_t factor_t · rows\[t\] for sets of Q outputs, t ascending; rows are `rows.1` elements apart. P
/// registers of each output at once: Q · P independent sums, and a row is read once for all Q. What was read is still near
/// when the next set comes to the same columns.
///
/// # Safety
/// As [`Lanes`]; there are as many rows as factors of each sum, all outputs are equally wide, and every row has as many
/// readable elements.
#[inline(always)]
pub(super) unsafe fn accumulate<L: Lanes, F: Format, const Q: usize, const P: usize>(
    factors: &[[Factors<'_>; Q]],
    rows: (*const F::Element, usize),
    outs: &mut [[&mut [f32]; Q]],
) {
    let width = outs.first().map_or(0, |outs| outs[0].len());
    let mut column = 0;
    // SAFETY: columns are below the width.
    unsafe {
        while column + P * L::WIDTH <= width {
            for (factors, outs) in factors.iter().zip(&mut *outs) {
                columns::<L, F, Q, P>(factors, rows, outs, (column, L::WIDTH));
            }
            column += P * L::WIDTH;
        }
        while column < width {
            let count = L::WIDTH.min(width - column);
            for (factors, outs) in factors.iter().zip(&mut *outs) {
                columns::<L, F, Q, 1>(factors, rows, outs, (column, count));
            }
            column += count;
        }
    }
}

/// P registers of every output from column `at.0` on; the only one of P = 1 may hold fewer elements, `at.1`.
///
/// # Safety
/// As [`accumulate`], whose columns these are.
#[inline(always)]
unsafe fn columns<L: Lanes, F: Format, const Q: usize, const P: usize>(
    factors: &[Factors<'_>; Q],
    rows: (*const F::Element, usize),
    outs: &mut [&mut [f32]; Q],
    at: (usize, usize),
) {
    let (column, count) = at;
    let (first, stride) = rows;
    // SAFETY: passed on; a short piece goes by way of the stack.
    unsafe {
        let mut sums = [[L::splat(0.0); P]; Q];
        for q in 0..Q {
            let shrink = L::splat(factors[q].shrink);
            for (p, sum) in sums[q].iter_mut().enumerate() {
                let out = outs[q].as_ptr().add(column + p * L::WIDTH);
                let before = if count == L::WIDTH { L::load_f32(out) } else { load_tail::<L, F32>(out, count) };
                *sum = before.times(shrink);
            }
        }
        for t in 0..factors[0].of.len() {
            let from = first.add(t * stride + column);
            let mut row = [L::splat(0.0); P];
            for (p, piece) in row.iter_mut().enumerate() {
                let from = from.add(p * L::WIDTH);
                *piece = if count == L::WIDTH { F::load::<L>(from) } else { load_tail::<L, F>(from, count) };
            }
            for q in 0..Q {
                let factor = L::splat(*factors[q].of.get_unchecked(t));
                for p in 0..P {
                    sums[q][p] = sums[q][p].add_product(factor, row[p]);
                }
            }
        }
        for q in 0..Q {
            for (p, sum) in sums[q].iter().enumerate() {
                let out = &mut outs[q][column + p * L::WIDTH..][..count];
                if count == L::WIDTH {
                    sum.store(out.as_mut_ptr());
                } else {
                    let mut piece = [0.0; LANES];
                    sum.store(piece.as_mut_ptr());
                    out.copy_from_slice(&piece[..count]);
                }
            }
        }
    }
}

/// Of several rows x at once: outs\[r\]\[c\] = Σ_i xs\[r\]\[i\] · weight\[first + i, c\], i ascending; weight rows are as wide
/// as the outputs.
///
/// # Panics
/// When the weight rows are not inside the weight, or are not decoded, or widths differ.
pub(in super::super) fn combine_rows(
    level: Available,
    xs: &[&[f32]],
    weight: Weight<'_>,
    first: usize,
    outs: &mut [&mut [f32]],
) {
    let (Some(x), Some(width)) = (xs.first(), outs.first().map(|out| out.len())) else {
        return;
    };
    assert!(xs.len() == outs.len() && xs.iter().all(|other| other.len() == x.len()), "inputs should be equally wide");
    assert!(outs.iter().all(|out| out.len() == width), "outputs should be equally wide");
    assert!((first + x.len()) * width <= weight.len(), "weight rows should stay in their buffer");
    let skipped = first * width;
    // SAFETY: the rows are inside the weight, as asserted.
    unsafe {
        match weight {
            Weight::F32(all) => combine_level::<F32>(level, xs, all.as_ptr().add(skipped), outs),
            Weight::Bf16(all) => combine_level::<Bf16>(level, xs, all.as_ptr().add(skipped), outs),
            Weight::F16(all) => combine_level::<F16>(level, xs, all.as_ptr().add(skipped), outs),
            Weight::Encoded(_) => unreachable!("the caller decodes"),
        }
    }
}

/// # Safety
/// Weight rows as many as an input is wide, and as wide as an output, are readable.
unsafe fn combine_level<F: Format>(level: Available, xs: &[&[f32]], rows: *const F::Element, outs: &mut [&mut [f32]]) {
    // SAFETY: the level is available.
    unsafe {
        match level.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => combine_avx512::<F>(xs, rows, outs),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => combine_avx2::<F>(xs, rows, outs),
            _ => combine_of::<Plain<4>, F>(xs, rows, outs),
        }
    }
}

/// # Safety
/// As [`combine_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn combine_avx512<F: Format>(xs: &[&[f32]], rows: *const F::Element, outs: &mut [&mut [f32]]) {
    // SAFETY: passed on.
    unsafe { combine_of::<Avx512, F>(xs, rows, outs) }
}

/// # Safety
/// As [`combine_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn combine_avx2<F: Format>(xs: &[&[f32]], rows: *const F::Element, outs: &mut [&mut [f32]]) {
    // SAFETY: passed on.
    unsafe { combine_of::<HalfAvx2, F>(xs, rows, outs) }
}

/// # Safety
/// As [`combine_level`].
#[inline(always)]
unsafe fn combine_of<L: Lanes, F: Format>(xs: &[&[f32]], rows: *const F::Element, outs: &mut [&mut [f32]]) {
    let (quads, rest) = xs.split_at(xs.len() / 4 * 4);
    let (quad_outs, rest_outs) = outs.split_at_mut(quads.len());
    let (pairs, last) = rest.split_at(rest.len() / 2 * 2);
    let (pair_outs, last_outs) = rest_outs.split_at_mut(pairs.len());
    // SAFETY: passed on.
    unsafe {
        combine_sets::<L, F, 4, 2>(quads, rows, quad_outs);
        combine_sets::<L, F, 2, 4>(pairs, rows, pair_outs);
        combine_sets::<L, F, 1, 8>(last, rows, last_outs);
    }
}

/// Q at once; Q divides their number.
///
/// # Safety
/// As [`combine_level`].
#[inline(always)]
unsafe fn combine_sets<L: Lanes, F: Format, const Q: usize, const P: usize>(
    xs: &[&[f32]],
    rows: *const F::Element,
    outs: &mut [&mut [f32]],
) {
    outs.iter_mut().for_each(|out| out.fill(0.0));
    for (xs, outs) in xs.chunks(MANY * Q).zip(outs.chunks_mut(MANY * Q)) {
        let (outs, _) = outs.as_chunks_mut::<Q>();
        let stride = outs[0][0].len();
        let factor = |at: usize| Factors { of: xs.get(at).copied().unwrap_or(&[]), shrink: 0.0 };
        let factors: [[Factors<'_>; Q]; MANY] = std::array::from_fn(|set| std::array::from_fn(|q| factor(set * Q + q)));
        // SAFETY: passed on.
        unsafe { accumulate::<L, F, Q, P>(&factors, (rows, stride), outs) };
    }
}
