//! Attention of one row and head over the paged cache, and the transposed half of latent attention's absorption.
//!
//! Keys in absolute order in tiles of 64 aligned to position 0 with a running maximum and sum, so that the result
//! depends neither on chunking nor on how many rows run together.
#![expect(unsafe_code, reason = "pointer walks over checked ranges, and calls of levelled kernels")]

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Bf16, F16, F32, Format, LANES, Lanes, Scalar, load_tail};
use super::level::{Available, Level};
use super::math::exp;
use super::matmul::{Weight, tile};

/// Keys of one tile; also the slots of one cache block, so a tile is contiguous.
pub(super) const TILE: usize = 64;

/// The keys that one row sees.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    /// Rows are slots.
    pub(super) cache: Weight<'a>,
    /// Blocks in order of position; at least ⌈count / 64⌉.
    pub(super) blocks: &'a [u32],
    /// Position of the first key seen: above 0 behind a window.
    pub(super) first: usize,
    /// One past the position of the last: position + 1.
    pub(super) count: usize,
    pub(super) slot: Slot,
}

/// Where key and value of one head stand among the elements of a slot.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Elements of a slot.
    pub(super) width: usize,
    /// First element of the key.
    pub(super) key: usize,
    /// Columns of the key's first part; the second part, if any, follows it.
    pub(super) latent: usize,
    pub(super) rope: usize,
    /// First element of the value.
    pub(super) value: usize,
}

/// The query of one row and head.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) latent: &'a [f32],
    pub(super) rope: &'a [f32],
    pub(super) scale: f32,
    /// One more score, without a value.
    pub(super) sink: Option<f32>,
}

/// out = Σ softmax(scale · q·k ‖ sink)_t · value_t.
///
/// # Panics
/// When a block is outside the cache or a width does not fit.
pub(super) fn attend(level: Available, query: Query<'_>, keys: Keys<'_>, out: &mut [f32]) {
    let Slot { width, key, latent, rope, value } = keys.slot;
    let slots = keys.cache.len() / width;
    assert!(query.latent.len() == latent && query.rope.len() == rope, "a query should be as wide as a key");
    assert!(key + latent + rope <= width && value + out.len() <= width, "key and value should be inside their slot");
    assert!(keys.first < keys.count, "a row should see itself");
    let blocks = &keys.blocks[..keys.count.div_ceil(TILE)];
    assert!(blocks.iter().all(|&block| (block as usize + 1) * TILE <= slots), "blocks should be in the cache");
    // SAFETY: every slot read is in a block of the cache, as asserted.
    unsafe {
        match keys.cache {
            Weight::F32(cache) => attend_level::<F32>(level, query, (keys, cache), out),
            Weight::Bf16(cache) => attend_level::<Bf16>(level, query, (keys, cache), out),
            Weight::F16(cache) => attend_level::<F16>(level, query, (keys, cache), out),
            Weight::Encoded(_) => unreachable!("compile refuses such a cache"),
        }
    }
}

type Cache<'a, F> = (Keys<'a>, &'a [<F as Format>::Element]);

/// # Safety
/// Blocks are in the cache, and widths fit.
unsafe fn attend_level<F: Format>(level: Available, query: Query<'_>, cache: Cache<'_, F>, out: &mut [f32]) {
    // SAFETY: the level is available.
    unsafe {
        match level.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => attend_avx512::<F>(query, cache, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => attend_avx2::<F>(query, cache, out),
            _ => attend_of::<Scalar, F>(query, cache, out),
        }
    }
}

/// # Safety
/// As [`attend_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn attend_avx512<F: Format>(query: Query<'_>, cache: Cache<'_, F>, out: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { attend_of::<Avx512, F>(query, cache, out) }
}

/// # Safety
/// As [`attend_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn attend_avx2<F: Format>(query: Query<'_>, cache: Cache<'_, F>, out: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { attend_of::<Avx2, F>(query, cache, out) }
}

/// # Safety
/// As [`attend_level`].
#[inline(always)]
unsafe fn attend_of<L: Lanes, F: Format>(query: Query<'_>, cache: Cache<'_, F>, out: &mut [f32]) {
    let (keys, elements) = cache;
    let Slot { width, key, value, .. } = keys.slot;
    let (mut highest, mut total) = query.sink.map_or((f32::NEG_INFINITY, 0.0_f32), |sink| (sink, 1.0));
    out.fill(0.0);
    let blocks = keys.blocks[..keys.count.div_ceil(TILE)].iter().enumerate();
    for (index, &block) in blocks.skip(keys.first / TILE) {
        let hidden = keys.first.saturating_sub(index * TILE);
        let count = TILE.min(keys.count - index * TILE) - hidden;
        // SAFETY: the block is in the cache.
        let first = unsafe { elements.as_ptr().add((block as usize * TILE + hidden) * width) };
        let mut scores = [0.0_f32; TILE];
        // SAFETY: `count` slots of the block, and the query is as wide as their keys.
        unsafe { score::<L, F>(query, keys.slot, first.add(key), &mut scores[..count]) };
        let best = scores[..count].iter().copied().fold(highest, f32::max);
        let shrink = exp(highest - best);
        highest = best;
        total *= shrink;
        for score in &mut scores[..count] {
            *score = exp(*score - best);
            total += *score;
        }
        // SAFETY: `count` slots of the block, `out` is as wide as a value.
        unsafe { accumulate::<L, F>(&scores[..count], (first.add(value), width), shrink, out) };
    }
    for value in out {
        *value /= total;
    }
}

/// scores\[t\] = scale · (q_latent·latent_t + q_rope·rope_t), four keys at a time.
///
/// # Safety
/// From `first` on `scores.len()` keys, a slot apart, are readable, and the query is as wide as they are.
#[inline(always)]
unsafe fn score<L: Lanes, F: Format>(query: Query<'_>, slot: Slot, first: *const F::Element, scores: &mut [f32]) {
    let width = slot.width;
    let (latent, rope) = ([query.latent.as_ptr()], [query.rope.as_ptr()]);
    for (index, scores) in scores.chunks_mut(4).enumerate() {
        // SAFETY: passed on; a short end goes key by key.
        unsafe {
            let key = first.add(index * 4 * width);
            if let [a, b, c, d] = scores {
                let [latents] = tile::<L, F, 1, 4>(latent, (key, width), slot.latent);
                let [ropes] = tile::<L, F, 1, 4>(rope, (key.add(slot.latent), width), slot.rope);
                for (score, (latent, rope)) in [a, b, c, d].into_iter().zip(latents.iter().zip(ropes)) {
                    *score = query.scale * (latent + rope);
                }
            } else {
                for (t, score) in scores.iter_mut().enumerate() {
                    let key = key.add(t * width);
                    let [[latent]] = tile::<L, F, 1, 1>(latent, (key, width), slot.latent);
                    let [[rope]] = tile::<L, F, 1, 1>(rope, (key.add(slot.latent), width), slot.rope);
                    *score = query.scale * (latent + rope);
                }
            }
        }
    }
}

/// out = out · shrink + Σ_t factors\[t\] · rows\[t\], t ascending; rows are `stride` elements apart.
///
/// # Safety
/// Every row has `out.len()` readable elements.
#[inline(always)]
unsafe fn accumulate<L: Lanes, F: Format>(
    factors: &[f32],
    rows: (*const F::Element, usize),
    shrink: f32,
    out: &mut [f32],
) {
    let (first, stride) = rows;
    let width = out.len();
    let mut column = 0;
    while column < width {
        let count = LANES.min(width - column);
        let mut piece = [0.0; LANES];
        piece[..count].copy_from_slice(&out[column..column + count]);
        // SAFETY: columns are below the width.
        unsafe {
            let mut lanes = L::load_f32(piece.as_ptr()).times(L::splat(shrink));
            for (t, &factor) in factors.iter().enumerate() {
                let from = first.add(t * stride + column);
                let row = if count == LANES { F::load::<L>(from) } else { load_tail::<L, F>(from, count) };
                lanes = lanes.add_product(L::splat(factor), row);
            }
            piece = lanes.to_array();
        }
        out[column..column + count].copy_from_slice(&piece[..count]);
        column += LANES;
    }
}

/// out\[c\] = Σ_i x\[i\] · weight\[first + i, c\], i ascending; rows are `out.len()` wide.
///
/// # Panics
/// When the rows are not inside the weight, or are not decoded.
pub(super) fn combine_rows(level: Available, x: &[f32], weight: Weight<'_>, first: usize, out: &mut [f32]) {
    assert!((first + x.len()) * out.len() <= weight.len(), "weight rows should stay in their buffer");
    let skipped = first * out.len();
    // SAFETY: the rows are inside the weight, as asserted.
    unsafe {
        match weight {
            Weight::F32(all) => combine_level::<F32>(level, x, all.as_ptr().add(skipped), out),
            Weight::Bf16(all) => combine_level::<Bf16>(level, x, all.as_ptr().add(skipped), out),
            Weight::F16(all) => combine_level::<F16>(level, x, all.as_ptr().add(skipped), out),
            Weight::Encoded(_) => unreachable!("the caller decodes"),
        }
    }
}

/// # Safety
/// `x.len()` rows of `out.len()` elements are readable.
unsafe fn combine_level<F: Format>(level: Available, x: &[f32], rows: *const F::Element, out: &mut [f32]) {
    // SAFETY: the level is available.
    unsafe {
        match level.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => combine_avx512::<F>(x, rows, out),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => combine_avx2::<F>(x, rows, out),
            _ => accumulate::<Scalar, F>(x, (rows, out.len()), 0.0, clear(out)),
        }
    }
}

fn clear(out: &mut [f32]) -> &mut [f32] {
    out.fill(0.0);
    out
}

/// # Safety
/// As [`combine_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn combine_avx512<F: Format>(x: &[f32], rows: *const F::Element, out: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { accumulate::<Avx512, F>(x, (rows, out.len()), 0.0, clear(out)) }
}

/// # Safety
/// As [`combine_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn combine_avx2<F: Format>(x: &[f32], rows: *const F::Element, out: &mut [f32]) {
    // SAFETY: passed on.
    unsafe { accumulate::<Avx2, F>(x, (rows, out.len()), 0.0, clear(out)) }
}
