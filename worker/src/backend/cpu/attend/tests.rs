use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::super::lanes::{LANES, sum};
use super::*;

/// Elements of a cache or weight, and what they stand for.
struct Stored {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    f16: Vec<f16>,
}

impl Stored {
    /// Numbers that are the same in every format.
    fn noise(random: &mut StdRng, len: usize) -> Self {
        let number = |_| f32::from(random.random_range(-128_i8..=127)) / 64.0;
        let f32: Vec<f32> = (0..len).map(number).collect();
        let bf16 = f32.iter().map(|&x| bf16::from_f32(x)).collect();
        let f16 = f32.iter().map(|&x| f16::from_f32(x)).collect();
        Self { f32, bf16, f16 }
    }

    fn formats(&self) -> [Weight<'_>; 3] {
        [Weight::F32(&self.f32), Weight::Bf16(&self.bf16), Weight::F16(&self.f16)]
    }
}

fn noise(random: &mut StdRng, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn levels() -> impl Iterator<Item = Available> {
    Level::ALL.into_iter().filter_map(|level| Available::check(level).ok())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Element i in lane i mod 16, then the lanes: the definition of a dot product here.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        lanes[i % LANES] += x * y;
    }
    sum(lanes)
}

/// The definition for one query, a number at a time: tiles of 64 positions, keys ascending.
fn alone(query: &Query<'_>, keys: &Keys<'_>, out: &mut [f32]) {
    let Weight::F32(cache) = keys.cache else { panic!("the reference reads F32") };
    let row = |position: usize| {
        &cache[(keys.blocks[position / TILE] as usize * TILE + position % TILE) * keys.slot.width..][..keys.slot.width]
    };
    let (mut highest, mut total) = query.sink.map_or((f32::NEG_INFINITY, 0.0), |sink| (sink, 1.0_f32));
    out.fill(0.0);
    for tile in query.first / TILE..query.count.div_ceil(TILE) {
        let positions = query.first.max(tile * TILE)..query.count.min((tile + 1) * TILE);
        let score = |position| {
            let (first, second) = row(position)[keys.slot.key..].split_at(query.latent.len());
            keys.scale * (dot(query.latent, first) + dot(query.rope, second))
        };
        let scores: Vec<f32> = positions.clone().map(score).collect();
        let best = scores.iter().copied().fold(highest, f32::max);
        let shrink = exp(highest - best);
        highest = best;
        total *= shrink;
        out.iter_mut().for_each(|value| *value *= shrink);
        for (position, score) in positions.zip(scores) {
            let factor = exp(score - best);
            total += factor;
            for (out, value) in out.iter_mut().zip(&row(position)[keys.slot.value..]) {
                *out += factor * value;
            }
        }
    }
    out.iter_mut().for_each(|value| *value /= total);
}

/// Heads, slot, and columns of a value.
const SHAPES: [(usize, Slot, usize); 5] = [
    (1, Slot { width: 24, key: 0, latent: 16, rope: 8, value: 0 }, 16),
    (3, Slot { width: 29, key: 0, latent: 21, rope: 8, value: 0 }, 21),
    (7, Slot { width: 94, key: 5, latent: 40, rope: 0, value: 50 }, 40),
    (8, Slot { width: 147, key: 0, latent: 128, rope: 19, value: 0 }, 128),
    (22, Slot { width: 70, key: 1, latent: 35, rope: 3, value: 2 }, 67),
];

/// Rows that are asked together: the keys that each sees. Neighbours as in a prompt, behind a window, and far apart.
const ROWS: [&[(usize, usize)]; 7] = [
    &[(0, 1)],
    &[(0, 63), (0, 64), (0, 65), (0, 66)],
    &[(199, 200)],
    &[(0, 200), (0, 2)],
    &[(100, 170), (101, 171), (102, 172), (103, 173), (104, 174)],
    &[(0, 3), (130, 200), (190, 191), (0, 128)],
    &[(62, 63), (63, 64), (64, 65), (65, 66)],
];

#[test]
fn rows_and_heads_together_have_the_bits_of_each_alone_a_number_at_a_time() {
    let mut random = StdRng::seed_from_u64(11);
    for (heads, slot, width) in SHAPES {
        for rows in ROWS {
            let (blocks, count) = ([3, 0, 4, 1], rows.len() * heads);
            let cache = Stored::noise(&mut random, 5 * TILE * slot.width);
            let (latent, rope) = (noise(&mut random, count * slot.latent), noise(&mut random, count * slot.rope));
            let sinks = noise(&mut random, heads);
            for sinks in [None, Some(&sinks)] {
                let keys = Keys { cache: Weight::F32(&cache.f32), blocks: &blocks, slot, scale: 0.3 };
                let query = |at: usize| Query {
                    latent: &latent[at * slot.latent..][..slot.latent],
                    rope: &rope[at * slot.rope..][..slot.rope],
                    first: rows[at / heads].0,
                    count: rows[at / heads].1,
                    sink: sinks.map(|sinks| sinks[at % heads]),
                };
                let queries: Vec<_> = (0..count).map(query).collect();
                let mut expected = vec![0.0; count * width];
                for (query, out) in queries.iter().zip(expected.chunks_exact_mut(width)) {
                    alone(query, &keys, out);
                }
                for level in levels() {
                    for (format, cache) in cache.formats().into_iter().enumerate() {
                        let mut found = vec![f32::NAN; count * width];
                        let mut outs: Vec<_> = found.chunks_exact_mut(width).collect();
                        attend(level, &queries, Keys { cache, ..keys }, &mut outs);
                        assert_eq!(bits(&found), bits(&expected), "{heads} heads, {rows:?}, {level:?} {format}");
                    }
                }
            }
        }
    }
}

#[test]
fn rows_combined_together_have_the_bits_of_each_alone_a_number_at_a_time() {
    let mut random = StdRng::seed_from_u64(12);
    for (rows, inputs, width, first) in
        [(1, 5, 16, 0), (2, 3, 20, 2), (3, 17, 64, 1), (7, 8, 131, 0), (9, 1, 7, 3), (39, 4, 24, 1)]
    {
        let weight = Stored::noise(&mut random, (first + inputs) * width);
        let x = noise(&mut random, rows * inputs);
        let xs: Vec<&[f32]> = x.chunks_exact(inputs).collect();
        let mut expected = vec![0.0; rows * width];
        for (x, out) in xs.iter().zip(expected.chunks_exact_mut(width)) {
            for (x, row) in x.iter().zip(weight.f32.chunks_exact(width).skip(first)) {
                out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
            }
        }
        for level in levels() {
            for (format, weight) in weight.formats().into_iter().enumerate() {
                let mut found = vec![f32::NAN; rows * width];
                let mut outs: Vec<_> = found.chunks_exact_mut(width).collect();
                combine_rows(level, &xs, weight, first, &mut outs);
                assert_eq!(bits(&found), bits(&expected), "{rows} rows of {width}, {level:?} {format}");
            }
        }
    }
}
