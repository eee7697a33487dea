//! Ops over the paged cache: append and attend.

use std::ops::Range;

use half::bf16;

use crate::ops::Op;
use crate::program::{BufferId, Dtype, View};

use super::attend::{Keys, Query, Slot, attend};
use super::run::{Device, Run};
use super::runs::{Line, fill_lines};

impl Run {
    pub(super) fn append_kv(&self, first: View, second: View, cache: BufferId) {
        let rows = self.control.rows;
        let (firsts, seconds) = (self.take(first, rows), self.take(second, rows));
        let width = first.width + second.width;
        let entry = |row: usize| {
            firsts[row * first.width..][..first.width].iter().chain(&seconds[row * second.width..][..second.width])
        };
        let slots = self.control.kv_slots.iter().enumerate();
        let live = slots.filter_map(|(row, &slot)| usize::try_from(slot).ok().map(|slot| (row, slot)));
        let buffer = self.memory.get(cache);
        if buffer.decl.dtype == Dtype::Bf16 {
            let mut cache = buffer.write::<bf16>();
            for (row, slot) in live {
                let stored = cache[slot * width..][..width].iter_mut().zip(entry(row));
                stored.for_each(|(to, &from)| *to = bf16::from_bits(crate::formats::bf16::round(from)));
            }
        } else {
            let mut cache = buffer.write::<f32>();
            for (row, slot) in live {
                cache[slot * width..][..width].iter_mut().zip(entry(row)).for_each(|(to, &from)| *to = from);
            }
        }
    }

    pub(super) fn attend_mla(&self, device: &mut Device, op: &Op) {
        let Op::AttendMla { q_latent, q_rope, cache, scale, out } = op else {
            return;
        };
        let rows = self.control.rows;
        let latents = self.take(*q_latent, rows);
        let ropes = self.take(*q_rope, rows);
        let cache = self.weight(*cache);
        let (heads, latent, rope) = (q_latent.groups, q_latent.width, q_rope.width);
        let slot = Slot { width: latent + rope, key: 0, latent, rope, value: 0 };
        let work = 2 * self.longest() * slot.width;
        let level = device.level;
        let lines = Line::all(&self.bands(), heads, heads);
        let mut target = self.memory.write::<f32>(out.buffer);
        fill_lines(&mut device.pool, &mut target, (self.runs(*out, rows), work), &lines, |line, first, outs| {
            let Some(blocks) = self.blocks(line.rows.start) else {
                outs.iter_mut().for_each(|out| out.fill(0.0));
                return;
            };
            let query = |place: usize| {
                let (row, head) = line.at(place);
                Query {
                    latent: &latents[(row * heads + head) * latent..][..latent],
                    rope: &ropes[(row * heads + head) * rope..][..rope],
                    first: 0,
                    count: self.control.positions[row] as usize + 1,
                    sink: None,
                }
            };
            let queries: Vec<_> = (first..first + outs.len()).map(query).collect();
            attend(level, &queries, Keys { cache: cache.as_weight(), blocks, slot, scale: *scale }, outs);
        });
    }

    pub(super) fn attend_gqa(&self, device: &mut Device, op: &Op) {
        let Op::AttendGqa { query, cache, kv_heads, window, sinks, scale, out } = op else {
            return;
        };
        let rows = self.control.rows;
        let queries = self.take(*query, rows);
        let cache = self.weight(*cache);
        let (heads, width) = (query.groups, query.width);
        let sinks = sinks.map(|sinks| self.widened(sinks, 0, heads));
        let seen = |count: usize| window.map_or(count, |window| window.min(count));
        let work = 2 * seen(self.longest()) * width;
        let level = device.level;
        let lines = Line::all(&self.bands(), heads, heads / kv_heads);
        let mut target = self.memory.write::<f32>(out.buffer);
        fill_lines(&mut device.pool, &mut target, (self.runs(*out, rows), work), &lines, |line, first, outs| {
            let Some(blocks) = self.blocks(line.rows.start) else {
                outs.iter_mut().for_each(|out| out.fill(0.0));
                return;
            };
            let query = |place: usize| {
                let (row, head) = line.at(place);
                let count = self.control.positions[row] as usize + 1;
                Query {
                    latent: &queries[(row * heads + head) * width..][..width],
                    rope: &[],
                    first: count - seen(count),
                    count,
                    sink: sinks.as_ref().map(|sinks| sinks[head]),
                }
            };
            let queries: Vec<_> = (first..first + outs.len()).map(query).collect();
            let key_head = line.groups.start * kv_heads / heads;
            let (key, value) = (key_head * width, (kv_heads + key_head) * width);
            let slot = Slot { width: 2 * kv_heads * width, key, latent: width, rope: 0, value };
            attend(level, &queries, Keys { cache: cache.as_weight(), blocks, slot, scale: *scale }, outs);
        });
    }

    /// The rows of each sequence; padding between them.
    fn bands(&self) -> Vec<Range<usize>> {
        let mut bands: Vec<Range<usize>> = Vec::new();
        let sequence = |row: usize| self.sequences[row].filter(|_| !self.is_padding(row));
        for row in 0..self.control.rows {
            match bands.last_mut().filter(|band| sequence(band.start) == sequence(row)) {
                Some(band) => band.end = row + 1,
                None => bands.push(row..row + 1),
            }
        }
        bands
    }

    /// Most keys that a row of this run can see.
    fn longest(&self) -> usize {
        self.control.positions.iter().max().map_or(0, |&position| position as usize + 1)
    }

    /// Cache blocks of a row's sequence; `None` for padding.
    fn blocks(&self, row: usize) -> Option<&[u32]> {
        let sequence = self.sequences[row].filter(|_| !self.is_padding(row))?;
        Some(&self.control.block_tables[sequence])
    }
}
