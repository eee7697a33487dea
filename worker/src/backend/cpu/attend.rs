//! Attention over the paged cache, several rows and heads of one sequence at once.
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

/// Queries that walk the cache together: a block is in the second-level cache for all but the first of them.
const CROWD: usize = 32;

/// Sets of queries, or of rows, in one go, of at most four each.
const MANY: usize = CROWD / 4;

/// The keys of some heads of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    /// Rows are slots.
    pub(super) cache: Weight<'a>,
    /// Blocks in order of position.
    pub(super) blocks: &'a [u32],
    pub(super) slot: Slot,
    /// What a product of query and key is multiplied with.
    pub(super) scale: f32,
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

/// What one head of one row asks, and the keys that it sees.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    /// First part.
    pub(super) latent: &'a [f32],
    /// Second part.
    pub(super) rope: &'a [f32],
    /// Position of the first key seen: above 0 behind a window.
    pub(super) first: usize,
    /// One past the position of the last: position + 1.
    pub(super) count: usize,
    /// One more score, without a value.
    pub(super) sink: Option<f32>,
}

impl Query<'_> {
    /// The slots that it sees of the block of that index; none where the second is not above the first.
    fn seen(&self, index: usize) -> (usize, usize) {
        let inside = |position: usize| position.saturating_sub(index * TILE).min(TILE);
        (inside(self.first), inside(self.count))
    }
}

/// For each query: out = Σ softmax(scale · q·k ‖ sink)_t · value_t.
///
/// # Panics
/// When a block is outside the cache or a width does not fit.
pub(super) fn attend(level: Available, queries: &[Query<'_>], keys: Keys<'_>, outs: &mut [&mut [f32]]) {
    let Slot { width, key, latent, rope, value } = keys.slot;
    let slots = keys.cache.len() / width;
    assert!(queries.len() == outs.len(), "every query should have its output");
    let wide = |query: &Query<'_>| query.latent.len() == latent && query.rope.len() == rope;
    assert!(queries.iter().all(wide), "a query should be as wide as a key");
    assert!(queries.iter().all(|query| query.first < query.count), "a row should see itself");
    let widest = outs.iter().map(|out| out.len()).max().unwrap_or(0);
    assert!(outs.iter().all(|out| out.len() == widest), "values should be equally wide");
    assert!(key + latent + rope <= width && value + widest <= width, "key and value should be inside their slot");
    let longest = queries.iter().map(|query| query.count).max().unwrap_or(0);
    let blocks = &keys.blocks[..longest.div_ceil(TILE)];
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
    queries: &[Query<'_>],
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
unsafe fn attend_avx512<F: Format>(queries: &[Query<'_>], cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
    // SAFETY: passed on.
    unsafe { attend_of::<Avx512, F>(queries, cache, outs) }
}

/// # Safety
/// As [`attend_level`], on a CPU with the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
unsafe fn attend_avx2<F: Format>(queries: &[Query<'_>], cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
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
unsafe fn attend_of<L: Lanes, F: Format>(queries: &[Query<'_>], cache: Cache<'_, F>, outs: &mut [&mut [f32]]) {
    let (keys, elements) = cache;
    for (queries, outs) in queries.chunks(CROWD).zip(outs.chunks_mut(CROWD)) {
        let mut running = [Running { highest: f32::NEG_INFINITY, total: 0.0 }; CROWD];
        for (running, query) in running.iter_mut().zip(queries) {
            if let Some(sink) = query.sink {
                *running = Running { highest: sink, total: 1.0 };
            }
        }
        outs.iter_mut().for_each(|out| out.fill(0.0));
        let from = queries.iter().map(|query| query.first / TILE).min().unwrap_or(0);
        let until = queries.iter().map(|query| query.count.div_ceil(TILE)).max().unwrap_or(0);
        for index in from..until {
            // SAFETY: the block is in the cache.
            let block = unsafe { elements.as_ptr().add(keys.blocks[index] as usize * TILE * keys.slot.width) };
            let mut done = 0;
            while done < outs.len() {
                let slots = queries[done].seen(index);
                let alike = queries[done..].iter().take_while(|query| query.seen(index) == slots).count();
                // Eight sums in registers whatever the number of queries.
                let taken = if alike < 4 { 1 << alike.ilog2() } else { alike / 4 * 4 };
                let own = done..done + taken;
                done += taken;
                if slots.0 >= slots.1 {
                    continue;
                }
                let seen = Seen { block, slots };
                let (queries, running, outs) = (&queries[own.clone()], &mut running[own.clone()], &mut outs[own]);
                // SAFETY: passed on.
                unsafe {
                    match taken {
                        4.. => block_of::<L, F, 4, 2>(queries, (keys, &seen), running, outs),
                        2 => block_of::<L, F, 2, 4>(queries, (keys, &seen), running, outs),
                        _ => block_of::<L, F, 1, 8>(queries, (keys, &seen), running, outs),
                    }
                }
            }
        }
        for (out, running) in outs.iter_mut().zip(running) {
            out.iter_mut().for_each(|value| *value /= running.total);
        }
    }
}

/// One block for queries that see the same of it, Q at once; Q divides their number.
///
/// # Safety
/// As [`attend_level`]; the block is in the cache.
#[inline(always)]
unsafe fn block_of<L: Lanes, F: Format, const Q: usize, const N: usize>(
    queries: &[Query<'_>],
    (keys, seen): (Keys<'_>, &Seen<F::Element>),
    running: &mut [Running],
    outs: &mut [&mut [f32]],
) {
    let ((queries, _), (running, _)) = (queries.as_chunks::<Q>(), running.as_chunks_mut::<Q>());
    let (outs, _) = outs.as_chunks_mut::<Q>();
    let (hidden, end) = seen.slots;
    let mut scores = [[[0.0_f32; TILE]; Q]; MANY];
    let mut shrinks = [[0.0; Q]; MANY];
    // SAFETY: the block has 64 slots.
    unsafe { score::<L, F, Q, N>(queries, (&keys, seen.block), seen.slots, &mut scores) };
    for ((running, scores), shrinks) in running.iter_mut().zip(&mut scores).zip(&mut shrinks) {
        weigh(running, scores, seen.slots, shrinks);
    }
    let factors: [[Factors<'_>; Q]; MANY] = std::array::from_fn(|i| {
        std::array::from_fn(|q| Factors { of: &scores[i][q][hidden..end], shrink: shrinks[i][q] })
    });
    // SAFETY: the slots are in the block, and outputs are as wide as a value.
    unsafe {
        let values = seen.block.add(hidden * keys.slot.width + keys.slot.value);
        accumulate::<L, F, Q, N>(&factors, (values, keys.slot.width), outs);
    }
}

/// Makes weights of Q queries' scores, and what was gathered so far is to be multiplied with.
#[inline(always)]
fn weigh<const Q: usize>(
    running: &mut [Running; Q],
    scores: &mut [[f32; TILE]; Q],
    (hidden, end): (usize, usize),
    shrinks: &mut [f32; Q],
) {
    let mut totals = [0.0; Q];
    for q in 0..Q {
        let scores = &mut scores[q][hidden..end];
        let best = largest(running[q].highest, scores);
        shrinks[q] = exp(running[q].highest - best);
        running[q].highest = best;
        totals[q] = running[q].total * shrinks[q];
        for score in scores.iter_mut() {
            *score -= best;
        }
        exp_all(scores);
    }
    // One addition after the other in each sum, but those of all queries side by side.
    for t in hidden..end {
        for (total, scores) in totals.iter_mut().zip(&*scores) {
            *total += scores[t];
        }
    }
    for (running, total) in running.iter_mut().zip(totals) {
        running.total = total;
    }
}

/// The largest of `first` and all others that are numbers. In eight lanes, as a maximum does not depend on the order.
#[inline(always)]
fn largest(first: f32, others: &[f32]) -> f32 {
    let mut lanes = [first; 8];
    let (whole, rest) = others.as_chunks::<8>();
    for others in whole {
        for i in 0..8 {
            lanes[i] = if others[i] > lanes[i] { others[i] } else { lanes[i] };
        }
    }
    let mut largest = first;
    for &other in lanes.iter().chain(rest) {
        largest = if other > largest { other } else { largest };
    }
    largest
}
