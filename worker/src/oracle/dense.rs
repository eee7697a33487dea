//! The dense part.

use crate::backend::TokenSource;
use crate::ops::{Op, Pairing, RopeTable};
use crate::program::{BufferId, View};

use super::{Walk, dot, silu};

impl Walk<'_> {
    pub(super) fn embed(&mut self, table: BufferId, samples: BufferId, out: BufferId) {
        for row in self.live() {
            let id = match self.control.tokens[row] {
                TokenSource::Host(id) => id as usize,
                TokenSource::Sampled(index) => self.memory.whole(samples)[index as usize],
            };
            let embedding = self.memory.row(table, id).to_vec();
            self.memory.set_row(out, row, &embedding);
        }
    }

    pub(super) fn rms_norm(&mut self, input: View, norm: (BufferId, f32), out: View, row: usize) {
        for group in 0..input.groups {
            let x = self.memory.run(input, row, group);
            let mean = dot(&x, &x) / x.len() as f64;
            let scale = 1.0 / (mean + f64::from(norm.1)).sqrt();
            let normed: Vec<f64> = x.iter().zip(self.memory.values(norm.0)).map(|(x, w)| x * scale * w).collect();
            self.memory.set_run(out, row, group, &normed);
        }
    }

    pub(super) fn linear(&mut self, input: View, by: (BufferId, Option<BufferId>), out: View, row: usize) {
        let (weight, bias) = by;
        let x = self.memory.run(input, row, 0);
        let bias = |n: usize| bias.map_or(0.0, |bias| self.memory.values(bias)[n]);
        let y: Vec<f64> = (0..out.width).map(|n| dot(&x, self.memory.row(weight, n)) + bias(n)).collect();
        self.memory.set_run(out, row, 0, &y);
    }

    pub(super) fn per_head(&mut self, op: &Op) {
        let Op::PerHeadMatmul { input, weight, rows_per_head, first_row, rows, transposed, out } = op else { return };
        for row in self.live() {
            for head in 0..input.groups {
                let x = self.memory.run(*input, row, head);
                let first = head * rows_per_head + first_row;
                let w: Vec<&[f64]> = (first..first + rows).map(|j| self.memory.row(*weight, j)).collect();
                let y: Vec<f64> = if *transposed {
                    (0..out.width).map(|c| (0..*rows).map(|i| x[i] * w[i][c]).sum()).collect()
                } else {
                    w.iter().map(|w| dot(&x, w)).collect()
                };
                self.memory.set_run(*out, row, head, &y);
            }
        }
    }

    /// The angle is an F32 product by definition; its cosine and sine are exact.
    pub(super) fn rope(&mut self, target: View, table: &RopeTable) {
        let half = table.inv_freq.len();
        let factor = f64::from(table.factor);
        for row in self.live() {
            for group in 0..target.groups {
                let mut x = self.memory.run(target, row, group);
                for (i, frequency) in table.inv_freq.iter().enumerate() {
                    let angle = f64::from(self.control.positions[row] as f32 * frequency);
                    let (sin, cos) = (angle.sin() * factor, angle.cos() * factor);
                    let (a, b) = match table.pairing {
                        Pairing::Interleaved => (2 * i, 2 * i + 1),
                        Pairing::HalfSplit => (i, i + half),
                    };
                    (x[a], x[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
                }
                self.memory.set_run(target, row, group, &x);
            }
        }
    }

    pub(super) fn clamp(&mut self, target: View, limit: f64) {
        for row in self.live() {
            let x = self.memory.run(target, row, 0);
            let y: Vec<f64> = x.iter().map(|x| x.clamp(-limit, limit)).collect();
            self.memory.set_run(target, row, 0, &y);
        }
    }

    pub(super) fn swiglu(&mut self, gate: View, up: View, out: View) {
        for row in self.live() {
            let (gate, up) = (self.memory.run(gate, row, 0), self.memory.run(up, row, 0));
            let y: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| silu(*gate) * up).collect();
            self.memory.set_run(out, row, 0, &y);
        }
    }

    pub(super) fn add(&mut self, a: BufferId, b: BufferId, out: BufferId) {
        for row in self.live() {
            let sum: Vec<f64> =
                self.memory.row(a, row).iter().zip(self.memory.row(b, row)).map(|(a, b)| a + b).collect();
            self.memory.set_row(out, row, &sum);
        }
    }
}
