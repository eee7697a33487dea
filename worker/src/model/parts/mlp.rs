//! A SwiGLU MLP: down(silu(gate(x)) · up(x)).

use crate::model::recipe::Recorder;
use crate::ops::Op;
use crate::program::{BufferId, BufferKind, View};
use crate::weights::WeightsError;

/// A dense or shared MLP with its scratch.
pub(in crate::model) struct Mlp {
    hidden: usize,
    width: usize,
    gate: BufferId,
    up: BufferId,
    down: BufferId,
}

/// Scratch for MLPs of any width up to the widest.
#[derive(Clone, Copy)]
pub(in crate::model) struct MlpScratch {
    gate: BufferId,
    up: BufferId,
}

impl MlpScratch {
    /// `None` for a width of 0: the model has no such MLP.
    pub(in crate::model) fn declare(recorder: &mut Recorder<'_>, name: &str, width: usize) -> Option<Self> {
        if width == 0 {
            return None;
        }
        let gate = recorder.rows(BufferKind::Scratch, &format!("{name}.gate"), width);
        let up = recorder.rows(BufferKind::Scratch, &format!("{name}.up"), width);
        Some(Self { gate, up })
    }
}

impl Mlp {
    pub(in crate::model) fn bind(
        recorder: &mut Recorder<'_>,
        prefix: &str,
        hidden: usize,
        width: usize,
    ) -> Result<Self, WeightsError> {
        let gate = recorder.matrix(&format!("{prefix}.gate_proj.weight"), [width, hidden])?;
        let up = recorder.matrix(&format!("{prefix}.up_proj.weight"), [width, hidden])?;
        let down = recorder.matrix(&format!("{prefix}.down_proj.weight"), [hidden, width])?;
        Ok(Self { hidden, width, gate, up, down })
    }

    pub(in crate::model) fn record(
        &self,
        recorder: &mut Recorder<'_>,
        scratch: MlpScratch,
        input: BufferId,
        out: BufferId,
    ) {
        let input = View::columns(input, 0, self.hidden);
        let gate = View::columns(scratch.gate, 0, self.width);
        let up = View::columns(scratch.up, 0, self.width);
        recorder.push(Op::Linear { input, weight: self.gate, bias: None, out: gate });
        recorder.push(Op::Linear { input, weight: self.up, bias: None, out: up });
        recorder.push(Op::SwiGlu { gate, up, out: gate });
        let out = View::columns(out, 0, self.hidden);
        recorder.push(Op::Linear { input: gate, weight: self.down, bias: None, out });
    }
}
