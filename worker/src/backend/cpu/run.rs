//! The walk: one op of a program after the other, on the device thread.
//!
//! Never queues, never waits for anything but its own pool.

use crate::backend::{BackendError, Control, NonFinite, Report};
use crate::ops::Op;
use crate::program::{BufferId, Dtype, Scales, Step, View};

use super::encoded::{Encoded, TileScales};
use super::level::Available;
use super::matmul::Weight;
use super::memory::{Memory, Read};
use super::pool::Pool;
use super::runs::Runs;

/// What one run needs besides the device.
pub(super) struct Run {
    pub(super) memory: Memory,
    pub(super) control: Control,
    /// Rows of no sequence are padding.
    pub(super) sequences: Vec<Option<usize>>,
    /// Padding rows begin as NaN instead of 0, to show that nothing of them leaks.
    pub(super) poison: bool,
    pub(super) report: Report,
}

/// The device: threads and their level.
pub(super) struct Device {
    pub(super) pool: Pool,
    pub(super) level: Available,
}

/// Elements in their source format, held for reading.
pub(super) enum WeightGuard<'a> {
    F32(Read<'a, f32>),
    Bf16(Read<'a, half::bf16>),
    F16(Read<'a, half::f16>),
    Encoded(EncodedGuard<'a>),
}

/// Rows of a block format or of FP8, held for reading.
pub(super) struct EncodedGuard<'a> {
    dtype: Dtype,
    bytes: Read<'a, u8>,
    cols: usize,
    scales: Option<(Scales, Dtype, Read<'a, u8>)>,
}

impl EncodedGuard<'_> {
    fn rows(&self) -> Encoded<'_> {
        let scales = self.scales.as_ref();
        let scales = scales.map(|(layout, dtype, bytes)| TileScales { layout: *layout, dtype: *dtype, bytes });
        Encoded { dtype: self.dtype, bytes: &self.bytes, cols: self.cols, scales }
    }
}

impl WeightGuard<'_> {
    pub(super) fn as_weight(&self) -> Weight<'_> {
        match self {
            Self::F32(all) => Weight::F32(all),
            Self::Bf16(all) => Weight::Bf16(all),
            Self::F16(all) => Weight::F16(all),
            Self::Encoded(all) => Weight::Encoded(all.rows()),
        }
    }

    /// The elements from `start` on, widened; whole rows of an encoded weight.
    pub(super) fn widen(&self, start: usize, out: &mut [f32]) {
        let end = start + out.len();
        match self {
            Self::F32(all) => out.copy_from_slice(&all[start..end]),
            Self::Bf16(all) => out.iter_mut().zip(&all[start..end]).for_each(|(o, w)| *o = w.to_f32()),
            Self::F16(all) => out.iter_mut().zip(&all[start..end]).for_each(|(o, w)| *o = w.to_f32()),
            Self::Encoded(all) => all.rows().widen_rows(start / all.cols, out),
        }
    }
}

impl Run {
    /// Carries out one op.
    ///
    /// # Errors
    /// [`BackendError::Misuse`] when a list between shards contradicts itself.
    pub(super) fn step(&mut self, device: &mut Device, step: &Step) -> Result<(), BackendError> {
        match &step.op {
            Op::Embed { table, samples, out } => self.embed(*table, *samples, *out),
            Op::RmsNorm { input, weight, eps, out } => {
                let rows = self.control.rows;
                self.rms_norm(device, (*input, *out), (*weight, *eps), rows);
            }
            Op::Linear { input, weight, bias, out } => {
                let rows = self.control.rows;
                self.linear(device, (*input, *out), (*weight, *bias), rows);
            }
            Op::PerHeadMatmul { .. } => self.per_head(device, &step.op),
            Op::Rope { target, table } => self.rope(device, *target, table),
            Op::Clamp { target, limit } => self.clamp(device, *target, *limit),
            Op::AppendKv { first, second, cache } => self.append_kv(*first, *second, *cache),
            Op::AttendMla { .. } => self.attend_mla(device, &step.op),
            Op::AttendGqa { .. } => self.attend_gqa(device, &step.op),
            Op::SwiGlu { gate, up, out } => self.swiglu(device, *gate, *up, *out),
            Op::Add { a, b, out } => self.add(*a, *b, *out),
            Op::Route { .. } => self.route(device, &step.op),
            Op::PackRows { .. } => self.pack_rows(&step.op)?,
            Op::GroupedGateUp { list, bank, out } => self.gate_up(device, list, bank, *out)?,
            Op::GroupedDown { list, bank, input, out } => self.down(device, (list, bank), *input, *out)?,
            Op::TreePartials { .. } => self.tree_partials(device, &step.op)?,
            Op::TreeCombine { parts, experts, out } => self.tree_combine(device, parts, *experts, *out)?,
            Op::GatherSamples { input, out } => self.gather_samples(*input, *out),
            Op::Logits { .. } => self.logits(device, &step.op),
            Op::Sample { logits, samples } => self.sample(*logits, *samples),
            Op::FiniteCheck { input } => self.finite_check(step, *input, false),
            Op::FiniteCheckSamples { input } => self.finite_check(step, *input, true),
        }
        Ok(())
    }

    /// Whether nothing of the row counts.
    pub(super) fn is_padding(&self, row: usize) -> bool {
        self.control.kv_slots[row] < 0
    }

    pub(super) fn weight(&self, id: BufferId) -> WeightGuard<'_> {
        let buffer = self.memory.get(id);
        match buffer.decl.dtype {
            Dtype::Bf16 => WeightGuard::Bf16(buffer.read()),
            Dtype::F16 => WeightGuard::F16(buffer.read()),
            // Compile refuses U32.
            Dtype::F32 | Dtype::U32 => WeightGuard::F32(buffer.read()),
            dtype => WeightGuard::Encoded(EncodedGuard {
                dtype,
                bytes: buffer.read(),
                cols: buffer.decl.cols,
                scales: buffer.decl.scales.map(|layout| {
                    let scales = self.memory.get(layout.buffer);
                    (layout, scales.decl.dtype, scales.read())
                }),
            }),
        }
    }

    /// `len` elements of a weight from `start`, widened.
    pub(super) fn widened(&self, id: BufferId, start: usize, len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        self.weight(id).widen(start, &mut values);
        values
    }

    pub(super) fn runs(&self, view: View, rows: usize) -> Runs {
        Runs { rows, cols: self.memory.cols(view.buffer), view }
    }

    /// Copies every run of a view out, one behind the other.
    pub(super) fn take(&self, view: View, rows: usize) -> Vec<f32> {
        self.runs(view, rows).gather(&self.memory.read::<f32>(view.buffer))
    }

    /// Adds a fault unless the row has one.
    pub(super) fn report_fault(&mut self, fault: NonFinite) {
        if !self.report.non_finite.iter().any(|earlier| earlier.row == fault.row) {
            self.report.non_finite.push(fault);
        }
    }
}
