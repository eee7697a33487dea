//! Attention of one row over the paged cache, several heads at once.
//!
//! Keys in absolute order in tiles of 64 aligned to position 0 with a running maximum and sum, so that the result of a
//! head depends neither on chunking nor on how many rows and heads run together.
#![expect(unsafe_code, reason = "pointer walks over checked ranges, and calls of levelled kernels")]

mod score;
#[cfg(test)]
mod tests;
mod values;

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx512, HalfAvx2};
use super::lanes::{Bf16, F16, F32, Format, Lanes, Plain};
use super::level::{Available, Level};
use super::math::{exp, exp_all};
use super::matmul::Weight;
use score::score;
use values::{Factors, accumulate};

pub(super) use values::combine_rows;

/// Keys of one tile; also the slots of one cache block, so a tile is contiguous.
pub(super) const TILE: usize = 64;

/// Heads that walk the cache together: a block is in the second-level cache for all but the first of them.
const CROWD: usize = 16;

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

/// Where key and value of some heads stand among the elements of a slot.
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

/// The queries of one row and some heads that share keys and values.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// First parts, one behind the other.
    pub(super) latent: &'a [f32],
    /// Second parts, one behind the other.
    pub(super) rope: &'a [f32],
    pub(super) scale: f32,
    /// For each head one more score, without a value.
    pub(super) sinks: Option<&'a [f32]>,
}

/// For each head: out = Σ softmax(scale · q·k ‖ sink)_t · value_t.
///
/// # Panics
/// When a block is outside the cache or a width does not fit.
pub(super) fn attend(level: Available, queries: Queries<'_>, keys: Keys<'_>, outs: &mut [&mut [f32]]) {
    let Slot { width, key, latent, rope, value } = keys.slot;
    let (heads, slots) = (outs.len(), keys.cache.len() / width);
    let wide = queries.latent.len() == heads * latent && queries.rope.len() == heads * rope;
    assert!(wide, "a query should be as wide as a key");
    assert!(queries.sinks.is_none_or(|sinks| sinks.len() == heads), "a head should have one sink");
    let widest = outs.iter().map(|out| out.len()).max().unwrap_or(0);
    assert!(outs.iter().all(|out| out.len() == widest), "values should be equally wide");
    assert!(key + latent + rope <= width && value + widest <= width, "key and value should be inside their slot");
    assert!(keys.first < keys.count, "a row should see itself");
    let blocks = &keys.blocks[..keys.count.div_ceil(TILE)];
    assert!(blocks.iter().all(|&block| (block as usize + 1) * TILE <= slots), "blocks should be in the cache");
    // SAFETY: every slot read is in a block of the cache, as asserted.
    unsafe {
        match keys.cache {
            Weight::F32(cache) => attend_level::<F32>(level, queries, (keys, cache), outs),
            Weight::Bf16(cache) => attend_level::<Bf16>(level, queries, (keys, cache), outs),
            Weight::F16(cache) => attend_level::<F16>(level, queries, (keys, cache), outs),
            Weight::Encoded(_) => unreachable!("compile refuses such a cache"),
        }
    }
}

type Cache<'a, F> = (Keys<'a>, &'a [<F as Format>::Element]);

/// # Safety
/// Blocks are in the cache, and widths fit.
unsafe fn attend_level<F: Format>(
    level: Available,
    queries: Queries<'_>,
    cache: Cache<'_, F>,
    outs: &mut [&mut [f32]],
) {
    // SAFETY: the level is available.
    unsafe {
        match level.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => attend_avx512::<F>(queries, cache, outs),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => attend_avx2::<F>(queries, cache, outs),
            _ => attend_of::<Plain<4>, F>(queries, cache, outs),
        }
    }
}

/// # Safety
/// As [`attend_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn attend_avx512<F: Format>(queries: Queries<'_>, cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
    // SAFETY: passed on.
    unsafe { attend_of::<Avx512, F>(queries, cache, outs) }
}

/// # Safety
/// As [`attend_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn attend_avx2<F: Format>(queries: Queries<'_>, cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
    // SAFETY: passed on.
    unsafe { attend_of::<HalfAvx2, F>(queries, cache, outs) }
}

/// Softmax of one head so far.
#[derive(Clone, Copy)]
struct Running {
    highest: f32,
    total: f32,
}

/// Of a block: its first slot, and the slots seen.
struct Seen<E> {
    block: *const E,
    slots: (usize, usize),
}

/// # Safety
/// As [`attend_level`].
#[inline(always)]
unsafe fn attend_of<L: Lanes, F: Format>(queries: Queries<'_>, cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
    let (keys, elements) = cache;
    for (crowd, outs) in outs.chunks_mut(CROWD).enumerate() {
        let first = crowd * CROWD;
        let mut running = [Running { highest: f32::NEG_INFINITY, total: 0.0 }; CROWD];
        for (head, running) in running.iter_mut().enumerate().take(outs.len()) {
            if let Some(sinks) = queries.sinks {
                *running = Running { highest: sinks[first + head], total: 1.0 };
            }
        }
        outs.iter_mut().for_each(|out| out.fill(0.0));
        let blocks = keys.blocks[..keys.count.div_ceil(TILE)].iter().enumerate();
        for (index, &block) in blocks.skip(keys.first / TILE) {
            let slots = (keys.first.saturating_sub(index * TILE), TILE.min(keys.count - index * TILE));
            // SAFETY: the block is in the cache.
            let block = unsafe { elements.as_ptr().add(block as usize * TILE * keys.slot.width) };
            let seen = Seen { block, slots };
            let mut done = 0;
            while done < outs.len() {
                let (running, rest) = (&mut running[done..], &mut outs[done..]);
                // SAFETY: passed on; eight sums in registers whatever the number of heads.
                done += unsafe {
                    match rest.len() {
                        4.. => block_of::<L, F, 4, 2>((&queries, first + done), (keys.slot, &seen), running, rest),
                        2 | 3 => block_of::<L, F, 2, 4>((&queries, first + done), (keys.slot, &seen), running, rest),
                        _ => block_of::<L, F, 1, 8>((&queries, first + done), (keys.slot, &seen), running, rest),
                    }
                };
            }
        }
        for (out, running) in outs.iter_mut().zip(running) {
            out.iter_mut().for_each(|value| *value /= running.total);
        }
    }
}

/// One block for Q heads from `head` on; returns Q.
///
/// # Safety
/// As [`attend_level`]; the block is in the cache.
#[inline(always)]
unsafe fn block_of<L: Lanes, F: Format, const Q: usize, const N: usize>(
    (queries, head): (&Queries<'_>, usize),
    (slot, seen): (Slot, &Seen<F::Element>),
    running: &mut [Running],
    outs: &mut [&mut [f32]],
) -> usize {
    let (Some(running), Some(outs)) = (running.first_chunk_mut::<Q>(), outs.first_chunk_mut::<Q>()) else {
        return Q;
    };
    let (hidden, end) = seen.slots;
    let mut scores = [[0.0_f32; TILE]; Q];
    let mut shrinks = [0.0; Q];
    // SAFETY: the block has 64 slots.
    unsafe { score::<L, F, Q, N>((queries, head), (slot, seen.block), seen.slots, &mut scores) };
    for q in 0..Q {
        let scores = &mut scores[q][hidden..end];
        let best = scores.iter().copied().fold(running[q].highest, f32::max);
        shrinks[q] = exp(running[q].highest - best);
        running[q].highest = best;
        running[q].total *= shrinks[q];
        scores.iter_mut().for_each(|score| *score -= best);
        exp_all(scores);
    }
    for (running, scores) in running.iter_mut().zip(&scores) {
        scores[hidden..end].iter().for_each(|score| running.total += score);
    }
    let factors = std::array::from_fn(|q| Factors { of: &scores[q][hidden..end], shrink: shrinks[q] });
    // SAFETY: the slots are in the block, and outputs are as wide as a value.
    unsafe {
        let values = seen.block.add(hidden * slot.width + slot.value);
        accumulate::<L, F, Q, N>(factors, (values, slot.width), outs);
    }
    Q
}
