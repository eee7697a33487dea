//! A step between its parts and the frames of the wire. Pure.

use bytes::{Bytes, BytesMut};
use shoal_proto::shard::Stage;

use super::{StageShape, check_faults, plan, split_faults};
use crate::backend::{Control, NonFinite};
use crate::shards::FRAME_BYTES;
use crate::shards::frames::{ACTIVATION_DTYPE, FrameError};

/// A step that leaves a stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parts {
    /// Numbered by rank 0.
    pub step: u64,
    /// An encoded plan, the same for every stage.
    pub plan: Bytes,
    /// Rows of F32.
    pub activation: Bytes,
    /// Of this stage and those before it, by row.
    pub faults: Vec<NonFinite>,
}

/// A step that has arrived whole and was checked.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// As it came.
    pub parts: Parts,
    /// What the plan says.
    pub control: Control,
}

/// Cuts a step into frames of at most 1 MiB (one row is always sent), numbered from `sequence` on.
#[must_use]
pub fn cut(parts: Parts, sequence: u64, row_bytes: usize) -> Vec<Stage> {
    let Parts { step, mut plan, mut activation, faults } = parts;
    let mut frames = Vec::new();
    while frames.is_empty() || !plan.is_empty() || !activation.is_empty() {
        let piece = plan.split_to(plan.len().min(FRAME_BYTES));
        let fitting = (FRAME_BYTES - piece.len()) / row_bytes.max(1);
        let rows = if plan.is_empty() && piece.is_empty() { fitting.max(1) } else { fitting };
        let rows = activation.split_to(activation.len().min(if plan.is_empty() { rows * row_bytes } else { 0 }));
        frames.push(Stage {
            step,
            sequence: sequence + frames.len() as u64,
            plan: piece,
            activation: rows,
            activation_dtype: ACTIVATION_DTYPE.to_owned(),
            ..Stage::default()
        });
    }
    if let Some(last) = frames.last_mut() {
        last.last = true;
        (last.fault_row, last.fault_layer) = split_faults(&faults);
    }
    frames
}

/// Puts the frames of one peer together, step after step.
#[derive(Debug)]
pub struct Assembly {
    shape: StageShape,
    step: u64,
    open: bool,
    plan: BytesMut,
    activation: BytesMut,
}

impl Assembly {
    /// Nothing has arrived.
    #[must_use]
    pub fn new(shape: StageShape) -> Self {
        Self { shape, step: 0, open: false, plan: BytesMut::new(), activation: BytesMut::new() }
    }

    /// Takes the next frame of the peer; the step, when it was the last of it.
    ///
    /// # Errors
    /// [`FrameError`]: the peer is not to be trusted any more, and nothing of the step may be used.
    pub fn push(&mut self, frame: &Stage) -> Result<Option<Arrived>, FrameError> {
        self.check(frame)?;
        (self.step, self.open) = (frame.step, !frame.last);
        self.plan.extend_from_slice(&frame.plan);
        self.activation.extend_from_slice(&frame.activation);
        if !frame.last {
            return Ok(None);
        }
        let (plan, activation) = (self.plan.split().freeze(), self.activation.split().freeze());
        let control = plan::decode(&plan, &self.shape)?;
        let due = control.rows * self.shape.row_bytes();
        if activation.len() != due {
            return Err(FrameError(format!("{} bytes of rows where {due} are due", activation.len())));
        }
        let faults = check_faults(&frame.fault_row, &frame.fault_layer, control.rows, &self.shape)?;
        Ok(Some(Arrived { parts: Parts { step: frame.step, plan, activation, faults }, control }))
    }

    fn check(&self, frame: &Stage) -> Result<(), FrameError> {
        let fail = |text: String| Err(FrameError(text));
        if frame.activation_dtype != ACTIVATION_DTYPE {
            return fail(format!("activation_dtype {:?} is not {ACTIVATION_DTYPE}", frame.activation_dtype));
        }
        if self.open && frame.step != self.step {
            return fail(format!("step {} while step {} is not whole", frame.step, self.step));
        }
        if !self.open && frame.step <= self.step {
            return fail(format!("step {} after step {}", frame.step, self.step));
        }
        if !frame.last && frame.plan.is_empty() && frame.activation.is_empty() {
            return fail("an empty piece".into());
        }
        if !frame.last && (!frame.fault_row.is_empty() || !frame.fault_layer.is_empty()) {
            return fail("faults before the last piece".into());
        }
        let sizes = [
            ("plan", self.plan.len() + frame.plan.len(), self.shape.plan_bytes()),
            ("rows", self.activation.len() + frame.activation.len(), self.shape.bucket.rows * self.shape.row_bytes()),
        ];
        match sizes.into_iter().find(|(_, bytes, most)| bytes > most) {
            Some((what, bytes, most)) => fail(format!("{bytes} bytes of {what}; at most {most} are allowed")),
            None => Ok(()),
        }
    }
}
