//! The paged cache and attention over it.

use crate::formats::bf16;
use crate::ops::Op;
use crate::program::{BufferId, Dtype, View};

use super::{Walk, dot};

impl Walk<'_> {
    pub(super) fn append_kv(&mut self, first: View, second: View, cache: BufferId) {
        let rounds = self.memory.decl(cache).dtype == Dtype::Bf16;
        for row in self.live() {
            let mut entry = self.memory.run(first, row, 0);
            entry.extend(self.memory.run(second, row, 0));
            if rounds {
                entry.iter_mut().for_each(|x| *x = f64::from(bf16::widen(bf16::round(*x as f32))));
            }
            self.memory.set_row(cache, self.control.kv_slots[row] as usize, &entry);
        }
    }

    pub(super) fn attend_mla(&mut self, op: &Op) {
        let Op::AttendMla { q_latent, q_rope, cache, scale, out } = op else { return };
        for row in self.live() {
            let slots = self.seen(row);
            for head in 0..q_latent.groups {
                let mut query = self.memory.run(*q_latent, row, head);
                query.extend(self.memory.run(*q_rope, row, head));
                let rows: Vec<&[f64]> = slots.iter().map(|&slot| self.memory.row(*cache, slot)).collect();
                let scores: Vec<f64> = rows.iter().map(|key| f64::from(*scale) * dot(&query, key)).collect();
                let y = mixed(&scores, None, out.width, |t, c| rows[t][c]);
                self.memory.set_run(*out, row, head, &y);
            }
        }
    }

    pub(super) fn attend_gqa(&mut self, op: &Op) {
        let Op::AttendGqa { query, cache, kv_heads, window, sinks, scale, out } = op else { return };
        let width = query.width;
        for row in self.live() {
            let all = self.seen(row);
            let slots = &all[window.map_or(0, |window| all.len().saturating_sub(window))..];
            for head in 0..query.groups {
                let key_head = head * kv_heads / query.groups;
                let q = self.memory.run(*query, row, head);
                let part = |slot: usize, part: usize| &self.memory.row(*cache, slot)[part * width..][..width];
                let score = |&slot: &usize| f64::from(*scale) * dot(&q, part(slot, key_head));
                let scores: Vec<f64> = slots.iter().map(score).collect();
                let sink = sinks.map(|sinks| self.memory.values(sinks)[head]);
                let y = mixed(&scores, sink, width, |t, c| part(slots[t], kv_heads + key_head)[c]);
                self.memory.set_run(*out, row, head, &y);
            }
        }
    }
}

/// Σ_t softmax(scores ‖ sink)_t · value(t, c) for every column c.
fn mixed(scores: &[f64], sink: Option<f64>, width: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let highest = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - highest).exp());
    let column = |c: usize| weights.iter().enumerate().map(|(t, weight)| weight * value(t, c)).sum::<f64>() / total;
    (0..width).map(column).collect()
}
