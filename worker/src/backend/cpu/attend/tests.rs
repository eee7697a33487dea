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

/// The definition for one head, a number at a time: tiles of 64 positions, keys ascending.
fn one_head(latent: &[f32], rope: &[f32], (scale, sink): (f32, Option<f32>), keys: &Keys<'_>, out: &mut [f32]) {
    let Weight::F32(cache) = keys.cache else { panic!("the reference reads F32") };
    let row = |position: usize| {
        &cache[(keys.blocks[position / TILE] as usize * TILE + position % TILE) * keys.slot.width..][..keys.slot.width]
    };
    let (mut highest, mut total) = sink.map_or((f32::NEG_INFINITY, 0.0), |sink| (sink, 1.0_f32));
    out.fill(0.0);
    for tile in keys.first / TILE..keys.count.div_ceil(TILE) {
        let positions = keys.first.max(tile * TILE)..keys.count.min((tile + 1) * TILE);
        let score = |position| {
            let (first, second) = row(position)[keys.slot.key..].split_at(latent.len());
            scale * (dot(latent, first) + dot(rope, second))
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

#[test]
fn heads_together_have_the_bits_of_each_alone_a_number_at_a_time() {
    let mut random = StdRng::seed_from_u64(11);
    for (heads, slot, width) in SHAPES {
        for count in [1_usize, 2, 63, 64, 65, 200] {
            let blocks = [3, 0, 4, 1];
            let cache = Stored::noise(&mut random, 5 * TILE * slot.width);
            let (latent, rope) = (noise(&mut random, heads * slot.latent), noise(&mut random, heads * slot.rope));
            let sinks = noise(&mut random, heads);
            for (first, sinks) in [(0, None), (count - 1, Some(&sinks[..])), (count.saturating_sub(70), Some(&sinks))] {
                let keys = Keys { cache: Weight::F32(&cache.f32), blocks: &blocks, first, count, slot };
                let queries = Queries { latent: &latent, rope: &rope, scale: 0.3, sinks };
                let mut expected = vec![0.0; heads * width];
                for (head, out) in expected.chunks_exact_mut(width).enumerate() {
                    let (latent, rope) = (&latent[head * slot.latent..], &rope[head * slot.rope..]);
                    let query = (&latent[..slot.latent], &rope[..slot.rope]);
                    one_head(query.0, query.1, (0.3, sinks.map(|sinks| sinks[head])), &keys, out);
                }
                for level in levels() {
                    for (format, cache) in cache.formats().into_iter().enumerate() {
                        let mut found = vec![f32::NAN; heads * width];
                        let mut outs: Vec<_> = found.chunks_exact_mut(width).collect();
                        attend(level, queries, Keys { cache, ..keys }, &mut outs);
                        assert_eq!(
                            bits(&found),
                            bits(&expected),
                            "{heads} heads, {first}..{count}, {level:?} {format}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rows_combined_together_have_the_bits_of_each_alone_a_number_at_a_time() {
    let mut random = StdRng::seed_from_u64(12);
    for (rows, inputs, width, first) in [(1, 5, 16, 0), (2, 3, 20, 2), (3, 17, 64, 1), (7, 8, 131, 0), (9, 1, 7, 3)] {
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
