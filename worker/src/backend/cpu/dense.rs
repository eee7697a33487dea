//! Ops of the dense part: embedding, norms, matmuls, rotation, activation, sums.

use crate::backend::TokenSource;
use crate::ops::{Op, Pairing, RopeTable};
use crate::program::{BufferId, View};

use super::attend::combine_rows;
use super::epilogue::Epilogue;
use super::lanes::{LANES, sum};
use super::math::{cos_sin, silu};
use super::matmul::{Product, Weight, multiply};
use super::run::{Device, Run};
use super::runs::{Line, Runs, fill, fill_by_group, fill_lines};

impl Run {
    /// A sampled id outside the table gives NaN, which the finite check reports.
    pub(super) fn embed(&self, table: BufferId, samples: BufferId, out: BufferId) {
        let vocabulary = self.memory.get(table).decl.rows;
        let table = self.weight(table);
        let sampled = self.memory.read::<u32>(samples);
        let hidden = self.memory.cols(out);
        let mut out = self.memory.write::<f32>(out);
        for (row, out) in out.chunks_exact_mut(hidden).take(self.control.rows).enumerate() {
            let id = match self.control.tokens[row] {
                TokenSource::Host(id) => id as usize,
                TokenSource::Sampled(index) => sampled[index as usize] as usize,
            };
            if self.is_padding(row) {
                out.fill(if self.poison { f32::NAN } else { 0.0 });
            } else if id < vocabulary {
                table.widen(id * hidden, out);
            } else {
                out.fill(f32::NAN);
            }
        }
    }

    /// Over the first `rows` rows of `views`, which are input and output; `norm` is weight and eps.
    pub(super) fn rms_norm(&self, device: &mut Device, views: (View, View), norm: (BufferId, f32), rows: usize) {
        let ((input, out), (weight, eps)) = (views, norm);
        let width = input.width;
        let mut factors = vec![0.0; width];
        self.weight(weight).widen(0, &mut factors);
        let x = self.take(input, rows);
        let mut target = self.memory.write::<f32>(out.buffer);
        let groups = input.groups;
        fill(&mut device.pool, &mut target, self.runs(out, rows), 2 * width, |row, group, out| {
            let x = &x[(row * groups + group) * width..][..width];
            let scale = 1.0 / (square_sum(x) / width as f32 + eps).sqrt();
            for ((out, x), factor) in out.iter_mut().zip(x).zip(&factors) {
                *out = x * scale * factor;
            }
        });
    }

    /// Over the first `rows` rows of `views`, which are input and output.
    pub(super) fn linear(
        &self,
        device: &mut Device,
        views: (View, View),
        by: (BufferId, Option<BufferId>),
        rows: usize,
    ) {
        let ((input, out), (weight, bias)) = (views, by);
        let bias = bias.map_or_else(Vec::new, |bias| self.widened(bias, 0, out.width));
        let starts = |view: View| -> Vec<usize> {
            let runs = self.runs(view, rows);
            (0..rows).map(|row| runs.at(row, 0)).collect()
        };
        let (x_rows, out_rows) = (starts(input), starts(out));
        let (x, weight) = (self.memory.read::<f32>(input.buffer), self.weight(weight));
        let product = Product {
            x: &x,
            x_rows: &x_rows,
            k: input.width,
            weight: weight.as_weight(),
            gated: None,
            first: 0,
            columns: out.width,
            out_rows: &out_rows,
            scale: None,
            epilogue: Epilogue { bias: &bias, ..Epilogue::default() },
        };
        multiply(&mut device.pool, device.level, &[product], &mut self.memory.write::<f32>(out.buffer));
    }

    pub(super) fn per_head(&self, device: &mut Device, op: &Op) {
        let Op::PerHeadMatmul { input, weight, rows_per_head, first_row, rows: used, transposed, out } = op else {
            return;
        };
        let rows = self.control.rows;
        let (from, to) = (self.runs(*input, rows), self.runs(*out, rows));
        let (x, weight) = (self.memory.read::<f32>(input.buffer), self.weight(*weight));
        let mut target = self.memory.write::<f32>(out.buffer);
        if *transposed {
            let (level, first) = (device.level, |head: usize| head * rows_per_head + first_row);
            let work = used * out.width;
            if let Weight::Encoded(weight) = weight.as_weight() {
                let decode = |head| {
                    let mut decoded = vec![0.0; work];
                    weight.widen_rows(first(head), &mut decoded);
                    decoded
                };
                fill_by_group(&mut device.pool, &mut target, (to, work), decode, |decoded, head, outs| {
                    combine_rows(level, &from.rows_of(&x, head, 0..rows), Weight::F32(decoded), 0, outs);
                });
                return;
            }
            // Of one head all rows together.
            let lines = Line::all(std::slice::from_ref(&(0..rows)), input.groups, 1);
            fill_lines(&mut device.pool, &mut target, (to, work), &lines, |line, row, outs| {
                let (head, row) = (line.groups.start, line.rows.start + row);
                let xs = from.rows_of(&x, head, row..row + outs.len());
                combine_rows(level, &xs, weight.as_weight(), first(head), outs);
            });
            return;
        }
        let starts = |runs: Runs, head: usize| -> Vec<usize> { (0..rows).map(|row| runs.at(row, head)).collect() };
        let heads: Vec<_> = (0..input.groups).map(|head| (starts(from, head), starts(to, head))).collect();
        let product = |(head, (x_rows, out_rows))| Product {
            x: &x,
            x_rows,
            k: input.width,
            weight: weight.as_weight(),
            gated: None,
            first: head * rows_per_head + first_row,
            columns: *used,
            out_rows,
            scale: None,
            epilogue: Epilogue::default(),
        };
        let pairs = heads.iter().map(|(x_rows, out_rows)| (x_rows.as_slice(), out_rows.as_slice()));
        let products: Vec<_> = pairs.enumerate().map(product).collect();
        multiply(&mut device.pool, device.level, &products, &mut target);
    }

    pub(super) fn rope(&self, device: &mut Device, target: View, table: &RopeTable) {
        let rows = self.control.rows;
        let half = table.inv_freq.len();
        let turns: Vec<(f32, f32)> = (0..rows)
            .flat_map(|row| table.inv_freq.iter().map(move |frequency| (row, frequency)))
            .map(|(row, frequency)| {
                let (cos, sin) = cos_sin(self.control.positions[row] as f32 * frequency);
                (cos * table.factor, sin * table.factor)
            })
            .collect();
        let mut buffer = self.memory.write::<f32>(target.buffer);
        fill(&mut device.pool, &mut buffer, self.runs(target, rows), 4 * half, |row, _, run| {
            for (i, &(cos, sin)) in turns[row * half..][..half].iter().enumerate() {
                let (a, b) = match table.pairing {
                    Pairing::Interleaved => (2 * i, 2 * i + 1),
                    Pairing::HalfSplit => (i, i + half),
                };
                (run[a], run[b]) = (run[a] * cos - run[b] * sin, run[b] * cos + run[a] * sin);
            }
        });
    }

    pub(super) fn clamp(&self, device: &mut Device, target: View, limit: f32) {
        let mut buffer = self.memory.write::<f32>(target.buffer);
        fill(&mut device.pool, &mut buffer, self.runs(target, self.control.rows), target.width, |_, _, run| {
            run.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
        });
    }

    pub(super) fn swiglu(&self, device: &mut Device, gate: View, up: View, out: View) {
        const SIGMOID_WORK: usize = 16;
        let (rows, width) = (self.control.rows, out.width);
        let (gate, up) = (self.take(gate, rows), self.take(up, rows));
        let mut target = self.memory.write::<f32>(out.buffer);
        fill(&mut device.pool, &mut target, self.runs(out, rows), SIGMOID_WORK * width, |row, _, out| {
            let pairs = gate[row * width..].iter().zip(&up[row * width..]);
            for (out, (&gate, up)) in out.iter_mut().zip(pairs) {
                *out = silu(gate) * up;
            }
        });
    }

    pub(super) fn add(&self, a: BufferId, b: BufferId, out: BufferId) {
        let (rows, cols) = (self.control.rows, self.memory.cols(out));
        let a = self.take(View::columns(a, 0, cols), rows);
        let b = self.take(View::columns(b, 0, cols), rows);
        let mut out = self.memory.write::<f32>(out);
        for (out, (a, b)) in out.iter_mut().zip(a.iter().zip(&b)) {
            *out = a + b;
        }
    }
}

/// Σ x², lane-split as the wide kernels are.
fn square_sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let pieces = x.chunks_exact(LANES);
    let rest = pieces.remainder();
    for piece in pieces {
        for (lane, x) in lanes.iter_mut().zip(piece) {
            *lane += x * x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x * x;
    }
    sum(lanes)
}
