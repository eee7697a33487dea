//! A case (buffers, ops, control) and its run on a backend, whole or cut into ranges of rows.

use std::ops::Range;

use crate::backend::{Backend, Control, Executable, Lane, Report, SampleRow, Ticket, TokenSource};
use crate::formats::e4m3;
use crate::ops::Op;
use crate::program::{Bucket, BufferDecl, BufferId, BufferKind, Dtype, Program, Scales, Segment, Step};

#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) decl: BufferDecl,
    pub(super) bytes: Vec<u8>,
}

/// Some ops over ports, with what they are given.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    /// The op that the case is about.
    pub(super) tested: &'static str,
    pub(super) buffers: Vec<Declared>,
    pub(super) steps: Vec<Op>,
    pub(super) control: Control,
    pub(super) outputs: Vec<BufferId>,
    /// Whether row r of every port belongs to row r of the run.
    pub(super) row_wise: bool,
    /// Number of its first buffer, so that two cases fit one backend.
    pub(super) first: u32,
    pub(super) segment: Segment,
}

/// One live row each, all of one sequence over scattered blocks.
pub(super) fn control(rows: usize) -> Control {
    let blocks: Vec<u32> = (0..rows.div_ceil(64) as u32).rev().collect();
    let slot = |row: usize| i64::from(blocks[row / 64]) * 64 + (row % 64) as i64;
    Control {
        rows,
        tokens: (0..rows as u32).map(|row| TokenSource::Host(row % 5)).collect(),
        positions: (0..rows as u32).collect(),
        kv_slots: (0..rows).map(slot).collect(),
        sequence_starts: vec![0, rows as u32],
        block_tables: vec![blocks],
        samples: Vec::new(),
    }
}

impl Case {
    pub(super) fn new(tested: &'static str, shape: String, control: Control) -> Self {
        Self {
            name: format!("{tested} {shape}"),
            tested,
            buffers: Vec::new(),
            steps: Vec::new(),
            control,
            outputs: Vec::new(),
            row_wise: true,
            first: 0,
            segment: Segment::Whole,
        }
    }

    pub(super) fn buffer(&self, id: BufferId) -> &Declared {
        &self.buffers[(id.0 - self.first) as usize]
    }

    pub(super) fn declare(
        &mut self,
        kind: BufferKind,
        dtype: Dtype,
        shape: (usize, usize),
        bytes: Vec<u8>,
    ) -> BufferId {
        let id = BufferId(self.first + self.buffers.len() as u32);
        let name = format!("{kind:?} {}", id.0);
        self.buffers.push(Declared {
            decl: BufferDecl { name, kind, dtype, rows: shape.0, cols: shape.1, scales: None },
            bytes,
        });
        id
    }

    /// F32 numbers in a port-in.
    pub(super) fn input(&mut self, rows: usize, cols: usize) -> BufferId {
        let bytes = self.noise(Dtype::F32, rows * cols);
        self.declare(BufferKind::PortIn, Dtype::F32, (rows, cols), bytes)
    }

    /// Given ids in a port-in.
    pub(super) fn ids(&mut self, cols: usize, ids: &[u32]) -> BufferId {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.declare(BufferKind::PortIn, Dtype::U32, (ids.len() / cols, cols), bytes)
    }

    pub(super) fn weight(&mut self, dtype: Dtype, rows: usize, cols: usize) -> BufferId {
        self.stack(dtype, rows, (rows, cols))
    }

    /// A weight of matrices of `matrix` rows; E4M3 ones have tile scales of changing types.
    pub(super) fn stack(&mut self, dtype: Dtype, matrix: usize, shape: (usize, usize)) -> BufferId {
        let scales = (dtype == Dtype::E4m3).then(|| {
            let kinds = [Dtype::F32, Dtype::Bf16, Dtype::E8m0, Dtype::F16];
            let buffer = BufferId(u32::MAX);
            let (rows, cols) = Scales { buffer, rows: matrix }.shape(shape.0, shape.1);
            let kind = kinds[self.buffers.len() % kinds.len()];
            let bytes = self.noise(kind, rows * cols);
            Scales { buffer: self.declare(BufferKind::Weight, kind, (rows, cols), bytes), rows: matrix }
        });
        let bytes = self.noise(dtype, shape.0 * shape.1);
        let id = self.declare(BufferKind::Weight, dtype, shape, bytes);
        self.buffers[(id.0 - self.first) as usize].decl.scales = scales;
        id
    }

    /// The same case over the F32 numbers that its weights stand for.
    pub(super) fn decoded(&self) -> Self {
        let mut twin = self.clone();
        for buffer in twin.buffers.iter_mut().filter(|buffer| buffer.decl.kind == BufferKind::Weight) {
            let BufferDecl { dtype, rows, cols, scales, .. } = buffer.decl;
            let mut numbers = vec![0.0; rows * cols];
            dtype.widen(&buffer.bytes, &mut numbers);
            if let Some(scales) = scales {
                let companion = self.buffer(scales.buffer);
                let mut factors = vec![0.0; companion.decl.rows * companion.decl.cols];
                companion.decl.dtype.widen(&companion.bytes, &mut factors);
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number *= factors[scales.row_of(at / cols) * companion.decl.cols + at % cols / 128];
                }
            }
            buffer.bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            (buffer.decl.dtype, buffer.decl.scales) = (Dtype::F32, None);
        }
        twin
    }

    pub(super) fn output(&mut self, dtype: Dtype, rows: usize, cols: usize) -> BufferId {
        let id = self.declare(BufferKind::PortOut, dtype, (rows, cols), Vec::new());
        self.outputs.push(id);
        id
    }

    /// Numbers in (−1, 1), different for each buffer of the case.
    fn noise(&self, dtype: Dtype, count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(self.buffers.len() as u64 + 1);
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        match dtype {
            Dtype::F32 => (0..count).flat_map(|_| next().to_le_bytes()).collect(),
            Dtype::Bf16 => (0..count).flat_map(|_| half::bf16::from_f32(next()).to_le_bytes()).collect(),
            Dtype::F16 => (0..count).flat_map(|_| half::f16::from_f32(next()).to_le_bytes()).collect(),
            Dtype::E4m3 => {
                let codes = (0..count).map(|_| (next().to_bits() >> 8) as u8);
                codes.map(|code| if e4m3::is_nan(code) { code ^ 8 } else { code }).collect()
            }
            Dtype::E8m0 => (0..count).map(|_| (next() * 4.0 + 127.0) as u8).collect(),
            Dtype::U32 => panic!("ids are given, not drawn"),
            _ => blocks(dtype, count, next),
        }
    }

    pub(super) fn numbered(&self) -> impl Iterator<Item = (BufferId, &Declared)> {
        (self.first..).map(BufferId).zip(&self.buffers)
    }

    /// Formats of the case's weights.
    pub(super) fn formats(&self) -> impl Iterator<Item = Dtype> + '_ {
        self.buffers.iter().filter(|buffer| buffer.decl.kind == BufferKind::Weight).map(|buffer| buffer.decl.dtype)
    }

    pub(super) fn program(&self) -> Program {
        let bucket = Bucket { rows: self.control.rows, samples: self.control.samples.len() };
        let steps = self.steps.iter().map(|op| Step { layer: 3, op: op.clone() }).collect();
        Program { segment: self.segment, bucket, steps }
    }

    fn cut(&self, rows: &Range<usize>) -> Control {
        let whole = &self.control;
        let inside = |sample: &&SampleRow| rows.contains(&(sample.row as usize));
        Control {
            rows: rows.len(),
            tokens: whole.tokens[rows.clone()].to_vec(),
            positions: whole.positions[rows.clone()].to_vec(),
            kv_slots: whole.kv_slots[rows.clone()].to_vec(),
            sequence_starts: vec![0, rows.len() as u32],
            block_tables: whole.block_tables.clone(),
            samples: whole.samples.iter().filter(inside).cloned().collect(),
        }
    }
}

/// Blocks of any bits under scales that keep their numbers below about 1.
fn blocks(dtype: Dtype, count: usize, mut next: impl FnMut() -> f32) -> Vec<u8> {
    let size = dtype.block().1;
    let mut bytes: Vec<u8> = (0..dtype.bytes_of(count)).map(|_| (next().to_bits() >> 8) as u8).collect();
    let (halves, largest): (&[usize], f32) = match dtype {
        Dtype::Q8_0 | Dtype::Iq4Nl => (&[0], 127.0),
        Dtype::Q4_0 | Dtype::Q5_0 => (&[0], 16.0),
        Dtype::Q5_1 => (&[0, 2], 32.0),
        Dtype::Q4K | Dtype::Q5K => (&[0, 2], 63.0 * 31.0),
        Dtype::Q6K => (&[size - 2], 127.0 * 32.0),
        _ => (&[], 1.0),
    };
    for block in bytes.chunks_exact_mut(size) {
        for &at in halves {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(next() / largest).to_le_bytes());
        }
        if dtype == Dtype::Mxfp4 {
            block[0] = 120 + block[0] % 8;
        }
    }
    bytes
}

/// Bytes of every output after a run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outputs(Vec<Vec<u8>>);

impl Outputs {
    pub(super) fn numbers(&self, case: &Case, index: usize) -> Vec<f64> {
        let decl = &case.buffer(case.outputs[index]).decl;
        let number = |four: &[u8]| {
            let four = [four[0], four[1], four[2], four[3]];
            if decl.dtype == Dtype::U32 {
                f64::from(u32::from_le_bytes(four))
            } else {
                f64::from(f32::from_le_bytes(four))
            }
        };
        self.0[index].chunks_exact(4).map(number).collect()
    }

    /// The bytes of some rows of every output.
    pub(super) fn rows(&self, case: &Case, rows: Range<usize>) -> Vec<Vec<u8>> {
        let width = |id: &BufferId| case.buffer(*id).decl.cols * 4;
        self.0
            .iter()
            .zip(&case.outputs)
            .map(|(all, id)| all[rows.start * width(id)..rows.end * width(id)].to_vec())
            .collect()
    }
}

/// Allocates a case's buffers and uploads its weights, in two pieces each.
pub(super) fn load(case: &Case, backend: &dyn Backend) {
    for (id, buffer) in case.numbered() {
        backend.alloc(id, &buffer.decl).unwrap();
        if buffer.decl.kind == BufferKind::Weight {
            let (front, back) = buffer.bytes.split_at(buffer.bytes.len() / 3);
            backend.upload(id, 0, front).unwrap();
            backend.upload(id, front.len(), back).unwrap();
        }
    }
}

/// A case loaded on a backend.
pub(super) struct Session<'a> {
    case: &'a Case,
    backend: &'a dyn Backend,
    executable: Executable,
}

impl<'a> Session<'a> {
    pub(super) fn new(case: &'a Case, backend: &'a dyn Backend) -> Self {
        load(case, backend);
        Self::of_loaded(case, backend)
    }

    pub(super) fn of_loaded(case: &'a Case, backend: &'a dyn Backend) -> Self {
        let executable = backend.compile(&case.program()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        Self { case, backend, executable }
    }

    /// Runs some rows of the case as if they were all.
    pub(super) fn run(&mut self, rows: Range<usize>) -> (Outputs, Report) {
        let ticket = self.submit(rows);
        self.finish(ticket)
    }

    /// Ports hold NaN behind the rows that run.
    pub(super) fn submit(&mut self, rows: Range<usize>) -> Ticket {
        let case = self.case;
        let cut = rows.len() < case.control.rows;
        for (id, buffer) in case.numbered().filter(|(_, buffer)| buffer.decl.kind == BufferKind::PortIn) {
            let width = buffer.decl.dtype.bytes_of(buffer.decl.cols);
            let is_rows = buffer.decl.rows == case.control.rows;
            let mut bytes = buffer.bytes.clone();
            if cut && is_rows {
                bytes.copy_within(rows.start * width..rows.end * width, 0);
                bytes[rows.len() * width..].fill(0xff);
            }
            self.backend.write_port(id, &bytes).unwrap();
        }
        let control = if cut { case.cut(&rows) } else { case.control.clone() };
        let lane = if matches!(case.segment, Segment::Serve(_)) { Lane::Expert } else { Lane::Step };
        self.backend.submit(self.executable, &control, lane).unwrap()
    }

    pub(super) fn finish(&mut self, ticket: Ticket) -> (Outputs, Report) {
        let case = self.case;
        let report = self.backend.wait(ticket).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let outputs = case.outputs.iter().map(|&id| {
            let mut bytes = vec![0; case.buffer(id).decl.bytes()];
            self.backend.read_port(id, &mut bytes).unwrap();
            bytes
        });
        (Outputs(outputs.collect()), report)
    }
}
