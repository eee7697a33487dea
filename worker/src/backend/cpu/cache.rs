//! Ops over the paged cache: append and attend.

use half::bf16;

use crate::ops::Op;
use crate::program::{BufferId, Dtype, View};

use super::attend::{Keys, Query, attend};
use super::run::{Device, Run};
use super::runs::fill;

impl Run {
    pub(super) fn append_kv(&self, latent: View, rope: View, cache: BufferId) {
        let rows = self.control.rows;
        let (latents, ropes) = (self.take(latent, rows), self.take(rope, rows));
        let width = latent.width + rope.width;
        let key = |row: usize| {
            latents[row * latent.width..][..latent.width].iter().chain(&ropes[row * rope.width..][..rope.width])
        };
        let slots = self.control.kv_slots.iter().enumerate();
        let live = slots.filter_map(|(row, &slot)| usize::try_from(slot).ok().map(|slot| (row, slot)));
        let buffer = self.memory.get(cache);
        if buffer.decl.dtype == Dtype::Bf16 {
            let mut cache = buffer.write::<bf16>();
            for (row, slot) in live {
                let stored = cache[slot * width..][..width].iter_mut().zip(key(row));
                stored.for_each(|(to, &from)| *to = bf16::from_bits(crate::formats::bf16::round(from)));
            }
        } else {
            let mut cache = buffer.write::<f32>();
            for (row, slot) in live {
                cache[slot * width..][..width].iter_mut().zip(key(row)).for_each(|(to, &from)| *to = from);
            }
        }
    }

    pub(super) fn attend(&self, device: &mut Device, op: &Op) {
        let Op::AttendMla { q_latent, q_rope, cache, scale, out } = op else {
            return;
        };
        let rows = self.control.rows;
        let latents = self.take(*q_latent, rows);
        let ropes = self.take(*q_rope, rows);
        let cache = self.weight(*cache);
        let heads = q_latent.groups;
        let longest = self.control.positions.iter().max().map_or(0, |&position| position as usize + 1);
        let work = 2 * longest * (q_latent.width + q_rope.width);
        let level = device.level;
        let mut target = self.memory.write::<f32>(out.buffer);
        fill(&mut device.pool, &mut target, self.runs(*out, rows), work, |row, head, out| {
            let Some(sequence) = self.sequences[row].filter(|_| !self.is_padding(row)) else {
                out.fill(0.0);
                return;
            };
            let index = row * heads + head;
            let query = Query {
                latent: &latents[index * q_latent.width..][..q_latent.width],
                rope: &ropes[index * q_rope.width..][..q_rope.width],
                scale: *scale,
            };
            let keys = Keys {
                cache: cache.as_weight(),
                blocks: &self.control.block_tables[sequence],
                count: self.control.positions[row] as usize + 1,
                latent: q_latent.width,
                rope: q_rope.width,
            };
            attend(level, query, keys, out);
        });
    }
}
