//! What the last stage sampled, between its report and the wire. Pure.
//!
//! An outcome is one frame: 4,096 samples with 20 alternatives each stay below 1 MiB.

use shoal_proto::shard::{Outcome, StageToken};

use super::{StageShape, check_faults, split_faults};
use crate::backend::Report;
use crate::engine::request::SampledToken;
use crate::shards::frames::FrameError;

/// What an outcome must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The oldest in flight.
    pub step: u64,
    /// Of it.
    pub rows: usize,
    /// Alternatives asked for, by sample.
    pub top_logprobs: Vec<u32>,
}

/// The message; the faults of the report are those of all stages after the first.
#[must_use]
pub fn to_wire(step: u64, sequence: u64, report: Report) -> Outcome {
    let (fault_row, fault_layer) = split_faults(&report.non_finite);
    let token = |sampled: Option<SampledToken>| match sampled {
        Some(SampledToken { id, logprob, top }) => {
            let (top, top_logprob) = top.into_iter().unzip();
            StageToken { id: Some(id), logprob, top, top_logprob }
        }
        None => StageToken::default(),
    };
    Outcome { step, sequence, samples: report.samples.into_iter().map(token).collect(), fault_row, fault_layer }
}

/// The report in an outcome that answers `expected`.
///
/// # Errors
/// [`FrameError`]; nothing of the step may be used then.
pub fn check(outcome: Outcome, expected: &Expected, shape: &StageShape) -> Result<Report, FrameError> {
    let fail = |text: String| Err(FrameError(text));
    if outcome.step != expected.step {
        return fail(format!("an outcome of step {} where step {} is due", outcome.step, expected.step));
    }
    if outcome.samples.len() != expected.top_logprobs.len() {
        let (found, due) = (outcome.samples.len(), expected.top_logprobs.len());
        return fail(format!("{found} samples where {due} are due"));
    }
    let non_finite = check_faults(&outcome.fault_row, &outcome.fault_layer, expected.rows, shape)?;
    let samples = outcome.samples.into_iter().zip(&expected.top_logprobs);
    let samples = samples.map(|(token, &top)| from_wire(token, top, shape)).collect::<Result<_, _>>()?;
    Ok(Report { samples, non_finite, ..Report::default() })
}

fn from_wire(token: StageToken, most: u32, shape: &StageShape) -> Result<Option<SampledToken>, FrameError> {
    let Some(id) = token.id else { return Ok(None) };
    let due = most.min(shape.vocabulary) as usize;
    if token.top.len() != due || token.top_logprob.len() != due {
        let (ids, logprobs) = (token.top.len(), token.top_logprob.len());
        return Err(FrameError(format!("{ids} alternatives with {logprobs} log-probabilities where {due} are due")));
    }
    if let Some(id) = token.top.iter().chain([&id]).find(|&&id| id >= shape.vocabulary) {
        return Err(FrameError(format!("token {id} is not below {}", shape.vocabulary)));
    }
    if token.top_logprob.iter().chain([&token.logprob]).any(|logprob| logprob.is_nan()) {
        return Err(FrameError("a log-probability that is not a number".into()));
    }
    let top = token.top.into_iter().zip(token.top_logprob).collect();
    Ok(Some(SampledToken { id, logprob: token.logprob, top }))
}
