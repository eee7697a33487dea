//! Recording: a recipe declares buffers, binds them to tensors, pushes ops and cuts them into programs.
//!
//! Holds no numbers; the same recording runs on every backend.

use std::ops::Range;

use crate::ops::{Op, PartialList, RowList};
use crate::program::{Bucket, BufferDecl, BufferId, BufferKind, Dtype, Program, Scales, Segment, Step};
use crate::weights::WeightsError;
use crate::weights::checkpoint::Checkpoint;

/// Who needs a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every shard; its contents are part of the dense digest.
    Dense,
    /// The owner of an expert.
    Expert,
}

/// One tensor's place in a weight buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Name in the files.
    pub tensor: String,
    /// Where it goes.
    pub buffer: BufferId,
    /// First byte there.
    pub offset: usize,
    /// Which elements of the tensor, and in which order.
    pub part: Part,
    /// Who needs it.
    pub scope: Scope,
}

/// Which elements of a tensor a [`Binding`] takes, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of them, as they lie.
    Whole,
    /// One matrix \[rows, cols\] of a stack, transposed: its column c becomes row c of the buffer. With `odd`, the even
    /// columns become the rows of the buffer and the odd ones those of the other place, so that both are read once.
    Transposed {
        /// Which of the stack.
        matrix: usize,
        /// Rows and columns of one matrix.
        shape: [usize; 2],
        /// Bytes of an element.
        element: usize,
        /// Buffer and first byte of the odd columns.
        odd: Option<(BufferId, usize)>,
    },
}

/// A tensor \[experts, inputs, outputs\] of all experts of a layer, or \[experts, outputs\] for a bias.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    /// Its name.
    pub tensor: &'a str,
    /// Matrices in it.
    pub experts: usize,
    /// Rows of a matrix; `None` for a bias.
    pub inputs: Option<usize>,
    /// Columns of a matrix.
    pub outputs: usize,
}

/// What a recording yields.
#[derive(Debug)]
pub struct Recording {
    /// Index = [`BufferId`].
    pub buffers: Vec<BufferDecl>,
    /// In the order of reading.
    pub bindings: Vec<Binding>,
    /// In the order of running.
    pub programs: Vec<Program>,
}

/// Records one model for one shard.
pub struct Recorder<'a> {
    checkpoint: &'a Checkpoint,
    bucket: Bucket,
    recording: Recording,
    steps: Vec<Step>,
    layer: u32,
}

impl<'a> Recorder<'a> {
    /// An empty recording over these files.
    #[must_use]
    pub fn new(checkpoint: &'a Checkpoint, bucket: Bucket) -> Self {
        let recording = Recording { buffers: Vec::new(), bindings: Vec::new(), programs: Vec::new() };
        Self { checkpoint, bucket, recording, steps: Vec::new(), layer: 0 }
    }

    /// Worst case of one run.
    #[must_use]
    pub fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// The decoder layer that the following ops belong to.
    pub fn set_layer(&mut self, layer: usize) {
        self.layer = u32::try_from(layer).expect("should fit: layers are bounded by the config");
    }

    /// Declares a buffer.
    pub fn buffer(&mut self, kind: BufferKind, dtype: Dtype, name: &str, shape: [usize; 2]) -> BufferId {
        let id = u32::try_from(self.recording.buffers.len()).expect("should fit: far fewer buffers than u32::MAX");
        let [rows, cols] = shape;
        self.recording.buffers.push(BufferDecl { name: name.to_owned(), kind, dtype, rows, cols, scales: None });
        BufferId(id)
    }

    /// An F32 buffer with a row per row of the bucket.
    pub fn rows(&mut self, kind: BufferKind, name: &str, cols: usize) -> BufferId {
        self.buffer(kind, Dtype::F32, name, [self.bucket.rows, cols])
    }

    /// Whether the files have a tensor of this name.
    #[must_use]
    pub fn has(&self, tensor: &str) -> bool {
        self.checkpoint.has(tensor)
    }

    /// Binds a dense matrix.
    ///
    /// # Errors
    /// When the tensor is missing, or of another shape or element type.
    pub fn matrix(&mut self, tensor: &str, shape: [usize; 2]) -> Result<BufferId, WeightsError> {
        self.dense(tensor, &shape, shape)
    }

    /// Binds a dense vector as one row.
    ///
    /// # Errors
    /// As [`Recorder::matrix`].
    pub fn vector(&mut self, tensor: &str, len: usize) -> Result<BufferId, WeightsError> {
        self.dense(tensor, &[len], [1, len])
    }

    fn dense(&mut self, tensor: &str, found: &[usize], shape: [usize; 2]) -> Result<BufferId, WeightsError> {
        let dtype = self.checkpoint.tensor(tensor, found)?;
        let buffer = self.buffer(BufferKind::Weight, dtype, tensor, shape);
        self.bind(tensor.to_owned(), buffer, 0, Scope::Dense);
        if dtype == Dtype::E4m3 {
            self.scales((buffer, shape[0]), &[tensor.to_owned()], Scope::Dense)?;
        }
        Ok(buffer)
    }

    fn bind(&mut self, tensor: String, buffer: BufferId, offset: usize, scope: Scope) {
        self.recording.bindings.push(Binding { tensor, buffer, offset, part: Part::Whole, scope });
    }

    /// Binds the tile scales of `weight`, a stack of E4M3 `matrices` of as many rows each.
    fn scales(&mut self, weight: (BufferId, usize), matrices: &[String], scope: Scope) -> Result<(), WeightsError> {
        let (weight, rows) = weight;
        let decl = &self.recording.buffers[weight.0 as usize];
        let mut scales = Scales { buffer: weight, rows };
        let ((one, cols), (all, _)) = (scales.shape(rows, decl.cols), scales.shape(decl.rows, decl.cols));
        let names: Vec<String> = matrices.iter().map(|matrix| format!("{matrix}_scale_inv")).collect();
        let dtype = self.alike(&names, &[one, cols], Dtype::F32)?;
        if ![Dtype::F32, Dtype::Bf16, Dtype::F16, Dtype::E8m0].contains(&dtype) {
            let found = format!("{dtype:?}, which is no type of a scale");
            return Err(WeightsError::Dtype { name: names[0].clone(), found });
        }
        scales.buffer = self.buffer(BufferKind::Weight, dtype, &format!("{}.scales", matrices[0]), [all, cols]);
        for (index, name) in names.into_iter().enumerate() {
            self.bind(name, scales.buffer, index * dtype.bytes_of(one * cols), scope);
        }
        self.recording.buffers[weight.0 as usize].scales = Some(scales);
        Ok(())
    }

    /// The one element type of some tensors of one shape; `none` when there are no tensors.
    fn alike(&self, names: &[String], shape: &[usize], none: Dtype) -> Result<Dtype, WeightsError> {
        let mut dtype = None;
        for name in names {
            let found = self.checkpoint.tensor(name, shape)?;
            let first = *dtype.get_or_insert(found);
            if found != first {
                let found = format!("{found:?} beside {first:?} of the same layer");
                return Err(WeightsError::Dtype { name: name.clone(), found });
            }
        }
        Ok(dtype.unwrap_or(none))
    }

    /// Binds one matrix per owned expert, stacked in ascending order; `name(e)` is the tensor of expert e.
    ///
    /// # Errors
    /// As [`Recorder::matrix`]; all experts of a bank are stored alike.
    pub fn bank(
        &mut self,
        owned: &[Range<u32>],
        shape: [usize; 2],
        name: impl Fn(u32) -> String,
    ) -> Result<BufferId, WeightsError> {
        self.bank_of(owned, &shape, shape, name)
    }

    /// Binds one vector per owned expert, a row each.
    ///
    /// # Errors
    /// As [`Recorder::bank`].
    pub fn vector_bank(
        &mut self,
        owned: &[Range<u32>],
        len: usize,
        name: impl Fn(u32) -> String,
    ) -> Result<BufferId, WeightsError> {
        self.bank_of(owned, &[len], [1, len], name)
    }

    fn bank_of(
        &mut self,
        owned: &[Range<u32>],
        found: &[usize],
        [rows, cols]: [usize; 2],
        name: impl Fn(u32) -> String,
    ) -> Result<BufferId, WeightsError> {
        let experts: Vec<u32> = owned.iter().cloned().flatten().collect();
        let names: Vec<String> = experts.iter().map(|&expert| name(expert)).collect();
        let dtype = self.alike(&names, found, Dtype::F32)?;
        let buffer = self.buffer(BufferKind::Weight, dtype, &name(0), [experts.len() * rows, cols]);
        for (index, name) in names.iter().enumerate() {
            self.bind(name.clone(), buffer, index * dtype.bytes_of(rows * cols), Scope::Expert);
        }
        if dtype == Dtype::E4m3 {
            self.scales((buffer, rows), &names, Scope::Expert)?;
        }
        Ok(buffer)
    }

    /// Binds the owned matrices of a stack, each transposed to \[outputs, inputs\]; a bias to \[owned, outputs\].
    ///
    /// # Errors
    /// As [`Recorder::matrix`].
    pub fn transposed_bank(&mut self, owned: &[Range<u32>], stack: Stack<'_>) -> Result<BufferId, WeightsError> {
        let dtype = self.stacked(stack)?;
        let buffer = self.bank_of_stack(owned, stack, stack.outputs, dtype);
        self.bind_stack(owned, stack, dtype, (buffer, None));
        Ok(buffer)
    }

    /// Binds the owned matrices of a stack whose even columns are one matrix and whose odd columns another.
    ///
    /// # Errors
    /// As [`Recorder::matrix`].
    pub fn interleaved_bank(&mut self, owned: &[Range<u32>], stack: Stack<'_>) -> Result<[BufferId; 2], WeightsError> {
        let dtype = self.stacked(stack)?;
        let [even, odd] = [0; 2].map(|_| self.bank_of_stack(owned, stack, stack.outputs / 2, dtype));
        self.bind_stack(owned, stack, dtype, (even, Some(odd)));
        Ok([even, odd])
    }

    fn stacked(&self, stack: Stack<'_>) -> Result<Dtype, WeightsError> {
        let Stack { tensor, experts, inputs, outputs } = stack;
        let found: Vec<usize> = std::iter::once(experts).chain(inputs).chain([outputs]).collect();
        let dtype = self.checkpoint.tensor(tensor, &found)?;
        if dtype.is_blocked() {
            let found = format!("{dtype:?}, whose blocks cannot be transposed; allowed: F32, BF16, F16");
            return Err(WeightsError::Dtype { name: tensor.to_owned(), found });
        }
        Ok(dtype)
    }

    fn bank_of_stack(&mut self, owned: &[Range<u32>], stack: Stack<'_>, outputs: usize, dtype: Dtype) -> BufferId {
        let experts = owned.iter().map(ExactSizeIterator::len).sum::<usize>();
        let shape = stack.inputs.map_or([experts, outputs], |inputs| [experts * outputs, inputs]);
        self.buffer(BufferKind::Weight, dtype, stack.tensor, shape)
    }

    fn bind_stack(
        &mut self,
        owned: &[Range<u32>],
        stack: Stack<'_>,
        dtype: Dtype,
        (buffer, odd): (BufferId, Option<BufferId>),
    ) {
        let shape = [stack.inputs.unwrap_or(1), stack.outputs];
        let element = dtype.bytes_of(1);
        let buffers = 1 + usize::from(odd.is_some());
        for (index, expert) in owned.iter().cloned().flatten().enumerate() {
            let offset = index * (shape[0] * shape[1] / buffers) * element;
            let part = Part::Transposed { matrix: expert as usize, shape, element, odd: odd.map(|odd| (odd, offset)) };
            let tensor = stack.tensor.to_owned();
            self.recording.bindings.push(Binding { tensor, buffer, offset, part, scope: Scope::Expert });
        }
    }

    /// Declares the buffers of a row list for `capacity` rows.
    pub fn row_list(&mut self, kind: BufferKind, name: &str, capacity: usize, dims: ListDims) -> RowList {
        let mut list = |part: &str, dtype, shape| self.buffer(kind, dtype, &format!("{name}.{part}"), shape);
        RowList {
            len: list("len", Dtype::U32, [1, 2]),
            row: list("row", Dtype::U32, [capacity, 1]),
            pairs: list("pairs", Dtype::U32, [capacity, 1]),
            expert: list("expert", Dtype::U32, [capacity * dims.top_k, 1]),
            weight: list("weight", Dtype::F32, [capacity * dims.top_k, 1]),
            activation: list("activation", Dtype::F32, [capacity, dims.hidden]),
        }
    }

    /// Declares the buffers of a partial list for `capacity` rows.
    pub fn partial_list(&mut self, kind: BufferKind, name: &str, capacity: usize, dims: ListDims) -> PartialList {
        let mut list = |part: &str, dtype, shape| self.buffer(kind, dtype, &format!("{name}.{part}"), shape);
        let nodes = capacity * dims.top_k;
        PartialList {
            len: list("len", Dtype::U32, [1, 2]),
            nodes: list("nodes", Dtype::U32, [capacity, 1]),
            lo: list("lo", Dtype::U32, [nodes, 1]),
            hi: list("hi", Dtype::U32, [nodes, 1]),
            sum: list("sum", Dtype::F32, [nodes, dims.hidden]),
        }
    }

    /// Appends an op to the current segment.
    pub fn push(&mut self, op: Op) {
        self.steps.push(Step { layer: self.layer, op });
    }

    /// Ends the current segment.
    pub fn cut(&mut self, segment: Segment) {
        let bucket = self.bucket;
        self.recording.programs.push(Program { segment, bucket, steps: std::mem::take(&mut self.steps) });
    }

    /// Records a segment of its own beside the current one.
    pub fn aside(&mut self, segment: Segment, rows: usize, ops: Vec<Op>) {
        let layer = self.layer;
        let bucket = Bucket { rows, samples: 0 };
        let steps = ops.into_iter().map(|op| Step { layer, op }).collect();
        self.recording.programs.push(Program { segment, bucket, steps });
    }

    /// The finished recording.
    #[must_use]
    pub fn finish(self) -> Recording {
        self.recording
    }
}

/// Sizes that the lists between shards share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListDims {
    /// Columns of a row.
    pub hidden: usize,
    /// Most pairs of a row.
    pub top_k: usize,
}
