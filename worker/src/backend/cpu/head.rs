//! Ops behind the last layer: gather the sampled rows, logits, sample; and the checks for finite numbers.

use crate::backend::NonFinite;
use crate::ops::Op;
use crate::program::{BufferId, Step, View};
use crate::sampling;

use super::run::{Device, Run};

impl Run {
    pub(super) fn gather_samples(&self, input: BufferId, out: BufferId) {
        let hidden = self.memory.cols(out);
        let input = self.memory.read::<f32>(input);
        let mut out = self.memory.write::<f32>(out);
        for (out, sample) in out.chunks_exact_mut(hidden).zip(&self.control.samples) {
            out.copy_from_slice(&input[sample.row as usize * hidden..][..hidden]);
        }
    }

    pub(super) fn logits(&self, device: &mut Device, op: &Op) {
        let Op::Logits { input, norm, eps, head, normed, out } = op else {
            return;
        };
        let rows = self.control.samples.len();
        let whole = |id: BufferId| View::columns(id, 0, self.memory.cols(id));
        self.rms_norm(device, (whole(*input), whole(*normed)), (*norm, *eps), rows);
        self.linear(device, (whole(*normed), whole(*out)), (*head, None), rows);
    }

    /// A row whose logits are not finite gives no sample, and leaves id 0 behind.
    pub(super) fn sample(&mut self, logits: BufferId, samples: BufferId) {
        let vocabulary = self.memory.cols(logits);
        let mut chosen = Vec::with_capacity(self.control.samples.len());
        {
            let logits = self.memory.read::<f32>(logits);
            let mut ids = self.memory.write::<u32>(samples);
            for (index, (row, logits)) in self.control.samples.iter().zip(logits.chunks_exact(vocabulary)).enumerate() {
                let token =
                    sampling::sample(logits, &row.params, &row.history, row.output_index, row.top_logprobs).ok();
                ids[index] = token.as_ref().map_or(0, |token| token.id);
                chosen.push(token);
            }
        }
        self.report.samples = chosen;
    }

    pub(super) fn finite_check(&mut self, step: &Step, input: BufferId, sampled: bool) {
        let cols = self.memory.cols(input);
        let rows: Vec<u32> = if sampled {
            self.control.samples.iter().map(|sample| sample.row).collect()
        } else {
            (0..self.control.rows as u32).collect()
        };
        let faulty: Vec<u32> = {
            let input = self.memory.read::<f32>(input);
            let bad = |values: &[f32]| values.iter().any(|value| !value.is_finite());
            let checked = rows.iter().zip(input.chunks_exact(cols));
            checked
                .filter(|&(&row, values)| !self.is_padding(row as usize) && bad(values))
                .map(|(&row, _)| row)
                .collect()
        };
        for row in faulty {
            self.report_fault(NonFinite { row, layer: step.layer, op: step.op.name() });
        }
    }
}
