//! What follows the last layer.

use crate::backend::NonFinite;
use crate::ops::Op;
use crate::program::{BufferId, View};
use crate::sampling;

use super::Walk;

impl Walk<'_> {
    pub(super) fn gather_samples(&mut self, input: BufferId, out: BufferId) {
        for (index, sample) in self.control.samples.iter().enumerate() {
            let x = self.memory.row(input, sample.row as usize).to_vec();
            self.memory.set_row(out, index, &x);
        }
    }

    pub(super) fn logits(&mut self, op: &Op) {
        let Op::Logits { input, norm, eps, head, normed, out } = op else { return };
        let whole = |memory: &super::Memory, id: BufferId| View::columns(id, 0, memory.decl(id).cols);
        let [input, normed, out] = [*input, *normed, *out].map(|id| whole(self.memory, id));
        for index in 0..self.control.samples.len() {
            self.rms_norm(input, (*norm, *eps), normed, index);
            self.linear(normed, (*head, None), out, index);
        }
    }

    /// The sampler's own arithmetic is F32 by definition.
    pub(super) fn sample(&mut self, logits: BufferId, samples: BufferId) {
        self.report.samples.clear();
        for (index, wanted) in self.control.samples.iter().enumerate() {
            let row: Vec<f32> = self.memory.row(logits, index).iter().map(|&logit| logit as f32).collect();
            let sampled =
                sampling::sample(&row, &wanted.params, &wanted.history, wanted.output_index, wanted.top_logprobs).ok();
            self.memory.set_row(samples, index, &[sampled.as_ref().map_or(0.0, |token| f64::from(token.id))]);
            self.report.samples.push(sampled);
        }
    }

    pub(super) fn finite_check(&mut self, at: (&'static str, u32), input: BufferId, sampled: bool) {
        let (op, layer) = at;
        let rows: Vec<usize> = if sampled {
            self.control.samples.iter().map(|sample| sample.row as usize).collect()
        } else {
            (0..self.control.rows).collect()
        };
        for (index, row) in rows.into_iter().enumerate() {
            let known = self.report.non_finite.iter().any(|fault| fault.row as usize == row);
            let live = self.control.kv_slots[row] >= 0;
            if live && !known && self.memory.row(input, index).iter().any(|value| !value.is_finite()) {
                self.report.non_finite.push(NonFinite { row: row as u32, layer, op });
            }
        }
    }
}
