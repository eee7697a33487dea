//! The meaning of every op in F64: slow, short, written apart from every backend; the referee of all of them.
//!
//! Never fast, never threaded, never rounds but where an op's definition says so. Its inputs have passed a backend's
//! checks: it panics on others.

mod attend;
mod dense;
mod experts;
mod head;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::{Control, KV_BLOCK, Report};
use crate::formats::e4m3::TILE;
use crate::ops::Op;
use crate::program::{BufferDecl, BufferId, Dtype, Program, View};

/// Buffers as F64; ids and counts are whole numbers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    buffers: BTreeMap<BufferId, (BufferDecl, Vec<f64>)>,
    /// Weights that have met their scales.
    scaled: BTreeSet<BufferId>,
}

impl Memory {
    /// A buffer of zeros.
    pub fn alloc(&mut self, id: BufferId, decl: &BufferDecl) {
        self.buffers.insert(id, (decl.clone(), vec![0.0; decl.rows * decl.cols]));
    }

    /// Takes the first elements of a buffer from their bytes in its dtype.
    ///
    /// # Panics
    /// When the buffer is unknown or smaller.
    pub fn load(&mut self, id: BufferId, bytes: &[u8]) {
        let (decl, values) = self.buffers.get_mut(&id).expect("should be allocated");
        let (numbers, size) = decl.dtype.block();
        let mut widened = vec![0.0; bytes.len() / size * numbers];
        assert!(widened.len() <= values.len(), "{} should have room", decl.name);
        if decl.dtype == Dtype::U32 {
            // Not every id is an F32.
            let words = bytes.as_chunks::<4>().0.iter().map(|&word| f64::from(u32::from_le_bytes(word)));
            values.iter_mut().zip(words).for_each(|(value, word)| *value = word);
        } else {
            decl.dtype.widen(bytes, &mut widened);
            values.iter_mut().zip(&widened).for_each(|(value, &x)| *value = f64::from(x));
        }
        self.scaled.remove(&id);
    }

    /// Multiplies E4M3 weights by the scales of their tiles, once: the products are F32 by definition.
    fn apply_scales(&mut self) {
        for id in self.buffers.keys().copied().collect::<Vec<_>>() {
            let BufferDecl { rows, cols, scales, .. } = *self.decl(id);
            let Some(scales) = scales.filter(|_| self.scaled.insert(id)) else { continue };
            for row in 0..rows {
                let factors = self.row(scales.buffer, scales.row_of(row)).to_vec();
                let scaled = |col: usize, x: f64| f64::from(x as f32 * factors[col / TILE] as f32);
                let product: Vec<f64> = self.row(id, row).iter().enumerate().map(|(col, &x)| scaled(col, x)).collect();
                assert_eq!(product.len(), cols);
                self.set_row(id, row, &product);
            }
        }
    }

    /// All elements.
    ///
    /// # Panics
    /// When the buffer is unknown.
    #[must_use]
    pub fn values(&self, id: BufferId) -> &[f64] {
        &self.buffers.get(&id).expect("should be allocated").1
    }

    fn values_mut(&mut self, id: BufferId) -> &mut [f64] {
        &mut self.buffers.get_mut(&id).expect("should be allocated").1
    }

    fn decl(&self, id: BufferId) -> &BufferDecl {
        &self.buffers.get(&id).expect("should be allocated").0
    }

    fn row(&self, id: BufferId, row: usize) -> &[f64] {
        let cols = self.decl(id).cols;
        &self.values(id)[row * cols..(row + 1) * cols]
    }

    fn set_row(&mut self, id: BufferId, row: usize, values: &[f64]) {
        let cols = self.decl(id).cols;
        self.values_mut(id)[row * cols..(row + 1) * cols].copy_from_slice(values);
    }

    fn run(&self, view: View, row: usize, group: usize) -> Vec<f64> {
        self.row(view.buffer, row)[view.offset + group * view.stride..][..view.width].to_vec()
    }

    fn set_run(&mut self, view: View, row: usize, group: usize, values: &[f64]) {
        let start = row * self.decl(view.buffer).cols + view.offset + group * view.stride;
        self.values_mut(view.buffer)[start..start + view.width].copy_from_slice(values);
    }

    /// A buffer of whole numbers.
    fn whole(&self, id: BufferId) -> Vec<usize> {
        self.values(id).iter().map(|&value| value as usize).collect()
    }
}

/// One run of a program: the memory it changes, and what the host wrote.
struct Walk<'a> {
    memory: &'a mut Memory,
    control: &'a Control,
    report: Report,
}

/// Carries out a program.
///
/// # Panics
/// When the program, the buffers and the control do not fit together.
pub fn run(program: &Program, memory: &mut Memory, control: &Control) -> Report {
    memory.apply_scales();
    let mut walk = Walk { memory, control, report: Report::default() };
    for step in &program.steps {
        walk.step(&step.op, step.layer);
    }
    walk.report
}

impl Walk<'_> {
    fn step(&mut self, op: &Op, layer: u32) {
        match op {
            Op::Embed { table, samples, out } => self.embed(*table, *samples, *out),
            Op::RmsNorm { input, weight, eps, out } => {
                self.live().for_each(|row| self.rms_norm(*input, (*weight, *eps), *out, row));
            }
            Op::Linear { input, weight, bias, out } => {
                self.live().for_each(|row| self.linear(*input, (*weight, *bias), *out, row));
            }
            Op::PerHeadMatmul { .. } => self.per_head(op),
            Op::Rope { target, table } => self.rope(*target, table),
            Op::Clamp { target, limit } => self.clamp(*target, f64::from(*limit)),
            Op::AppendKv { first, second, cache } => self.append_kv(*first, *second, *cache),
            Op::AttendMla { .. } => self.attend_mla(op),
            Op::AttendGqa { .. } => self.attend_gqa(op),
            Op::SwiGlu { gate, up, out } => self.swiglu(*gate, *up, *out),
            Op::Add { a, b, out } => self.add(*a, *b, *out),
            Op::Route { logits, bias, rule, expert, weight } => self.route(*logits, *bias, rule, (*expert, *weight)),
            Op::PackRows { .. } => self.pack_rows(op),
            Op::GroupedGateUp { list, bank, out } => self.gate_up(list, bank, *out),
            Op::GroupedDown { list, bank, input, out } => self.down((list, bank), *input, *out),
            Op::TreePartials { .. } => self.tree_partials(op),
            Op::TreeCombine { parts, experts, out } => self.tree_combine(parts, *experts, *out),
            Op::GatherSamples { input, out } => self.gather_samples(*input, *out),
            Op::Logits { .. } => self.logits(op),
            Op::Sample { logits, samples } => self.sample(*logits, *samples),
            Op::FiniteCheck { input } => self.finite_check((op.name(), layer), *input, false),
            Op::FiniteCheckSamples { input } => self.finite_check((op.name(), layer), *input, true),
        }
    }

    /// Rows that are not padding.
    fn live(&self) -> impl Iterator<Item = usize> + use<> {
        let slots = self.control.kv_slots.clone();
        (0..self.control.rows).filter(move |&row| slots[row] >= 0)
    }

    /// Cache slots that a row sees, in order of position.
    fn seen(&self, row: usize) -> Vec<usize> {
        let starts = &self.control.sequence_starts;
        let sequence = starts.windows(2).position(|two| (two[0] as usize..two[1] as usize).contains(&row));
        let blocks = &self.control.block_tables[sequence.expect("a live row should be in a sequence")];
        (0..=self.control.positions[row] as usize)
            .map(|position| blocks[position / KV_BLOCK] as usize * KV_BLOCK + position % KV_BLOCK)
            .collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}
