//! Scores of keys: dot products of several queries with several keys at once.

use std::hint::black_box;

use super::super::lanes::{F32, Format, LANES, Lanes, load_tail};
use super::{Keys, Query, Slot, TILE};

/// scores\[i\]\[q\]\[t\] = scale · (q_latent·latent_t + q_rope·rope_t) of sets of Q queries. Keys go N at a time, so that
/// some before and behind `seen` are scored too; N divides 64. Two sets follow each other at the same keys.
///
/// # Safety
/// From `block` on 64 slots are readable, the queries are as wide as their keys, and `seen` is in 0..64.
#[inline(always)]
pub(super) unsafe fn score<L: Lanes, F: Format, const Q: usize, const N: usize>(
    queries: &[[Query<'_>; Q]],
    (keys, block): (&Keys<'_>, *const F::Element),
    seen: (usize, usize),
    scores: &mut [[[f32; TILE]; Q]],
) {
    let Slot { width, key, latent, rope, .. } = keys.slot;
    for (queries, scores) in queries.chunks(2).zip(scores.chunks_mut(2)) {
        for t in (seen.0 / N * N..seen.1).step_by(N) {
            for (queries, scores) in queries.iter().zip(&mut *scores) {
                // SAFETY: passed on; N divides 64, so the last N keys end inside the block.
                let dots = unsafe {
                    let at = block.add(t * width + key);
                    let mut dots = dots::<L, F, Q, N>(queries.map(|query| query.latent.as_ptr()), (at, width), latent);
                    if rope > 0 {
                        let ropes = queries.map(|query| query.rope.as_ptr());
                        let second = self::dots::<L, F, Q, N>(ropes, (at.add(latent), width), rope);
                        for (dot, second) in dots.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                            *dot += second;
                        }
                    }
                    dots
                };
                for (scores, dots) in scores.iter_mut().zip(dots) {
                    for (score, dot) in scores[t..t + N].iter_mut().zip(dots) {
                        *score = keys.scale * dot;
                    }
                }
            }
        }
    }
}

/// The dot products of Q queries with N keys of `k` elements, whose starts are `keys.1` elements apart: element i in
/// lane i mod 16, lanes in the fixed order. Walked once for each part of the lanes that a register holds, so that the
/// sums of a tile stay in registers. Q · N is a multiple of eight.
///
/// # Safety
/// As [`Lanes`]; all have `k` readable elements.
#[inline(always)]
unsafe fn dots<L: Lanes, F: Format, const Q: usize, const N: usize>(
    x: [*const f32; Q],
    keys: (*const F::Element, usize),
    k: usize,
) -> [[f32; N]; Q] {
    const { assert!((Q * N).is_multiple_of(8), "sums go eight at a time") };
    let (first, stride) = keys;
    let whole = k / LANES * LANES;
    let mut lanes = [[[0.0; LANES]; N]; Q];
    for part in (0..LANES).step_by(L::WIDTH) {
        // SAFETY: every address is below k elements from the start of its row.
        unsafe {
            let mut sums = [[L::splat(0.0); N]; Q];
            for i in (part..whole).step_by(LANES) {
                let mut loaded = [L::splat(0.0); N];
                for (n, key) in loaded.iter_mut().enumerate() {
                    *key = F::load::<L>(first.add(n * stride + i));
                }
                for q in 0..Q {
                    let input = L::load_f32(x[q].add(i));
                    for n in 0..N {
                        sums[q][n] = sums[q][n].add_product(input, loaded[n]);
                    }
                }
            }
            if whole < k {
                let start = k.min(whole + part);
                let count = L::WIDTH.min(k - start);
                let mut loaded = [L::splat(0.0); N];
                for (n, key) in loaded.iter_mut().enumerate() {
                    *key = load_tail::<L, F>(first.add(n * stride + start), count);
                }
                for q in 0..Q {
                    let input = load_tail::<L, F32>(x[q].add(start), count);
                    for n in 0..N {
                        sums[q][n] = sums[q][n].add_product(input, loaded[n]);
                    }
                }
            }
            for (lanes, sums) in lanes.iter_mut().zip(sums) {
                for (lanes, sum) in lanes.iter_mut().zip(sums) {
                    sum.store(lanes[part..].as_mut_ptr());
                }
            }
        }
        // In memory between parts: their registers are for the sums of the next.
        black_box(&mut lanes);
    }
    let mut dots = [[0.0; N]; Q];
    for (dots, lanes) in dots.as_flattened_mut().chunks_mut(8).zip(lanes.as_flattened().chunks(8)) {
        if let (Ok(dots), Ok(lanes)) = (<&mut [f32; 8]>::try_from(dots), lanes.try_into()) {
            // SAFETY: as above.
            *dots = unsafe { L::sums(lanes) };
        }
    }
    dots
}
