//! From a step plan to what the device is told, and from its report to what the scheduler is told. Pure.

use std::collections::BTreeMap;

use super::active::Active;
use super::request::SampledToken;
use crate::backend::{Control, NonFinite, Report, TokenSource};
use crate::scheduler::{Chunk, RequestId, StepPlan};

/// Lays the chunks of a plan out as consecutive rows.
pub(super) fn control(plan: &StepPlan, active: &BTreeMap<RequestId, Active>) -> Control {
    let mut control = Control { sequence_starts: vec![0], ..Control::default() };
    for chunk in &plan.chunks {
        let Some(request) = active.get(&chunk.id) else { continue };
        let host = request.tokens(chunk.start, chunk.count).iter().map(|&id| TokenSource::Host(id));
        control.tokens.extend(host);
        control.push_sequence(chunk.start..chunk.start + chunk.count, chunk.blocks.clone());
        if chunk.sample {
            let end = u32::try_from(control.rows).expect("should fit: bounded by the step's token budget");
            control.samples.push(request.sample_row(end - 1));
        }
    }
    control
}

/// What came of one chunk.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Computed, nothing sampled.
    Computed,
    /// Computed and sampled.
    Sampled(SampledToken),
    /// A number was not finite.
    Fault(Option<NonFinite>),
}

/// Divides a report among the chunks of its plan.
pub(super) fn outcomes(chunks: &[Chunk], report: Report) -> Vec<Outcome> {
    let mut samples = report.samples.into_iter();
    let mut begin = 0;
    let outcome = |chunk: &Chunk| {
        let rows = begin..begin + chunk.count;
        begin = rows.end;
        let sample = chunk.sample.then(|| samples.next().flatten());
        if let Some(fault) = report.non_finite.iter().find(|fault| rows.contains(&fault.row)) {
            return Outcome::Fault(Some(*fault));
        }
        match sample {
            None => Outcome::Computed,
            Some(Some(token)) => Outcome::Sampled(token),
            Some(None) => Outcome::Fault(None),
        }
    };
    chunks.iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::request::{Request, SamplingParams, Submission};

    fn active(prompt: Vec<u32>) -> Active {
        let request = Request {
            id: String::new(),
            prompt,
            max_tokens: 4,
            sampling: SamplingParams::default(),
            top_logprobs: 0,
            eos: vec![],
            deadline: None,
            priority: 0,
            tenant: String::new(),
            script: None,
        };
        Active::new(Submission { request, events: mpsc::channel(8).0 })
    }

    fn chunk(id: u64, start: u32, count: u32, sample: bool, blocks: Vec<u32>) -> Chunk {
        Chunk { id: RequestId(id), start, count, sample, blocks }
    }

    #[test]
    fn chunks_become_rows_with_positions_slots_and_tables() {
        let active = BTreeMap::from([(RequestId(1), active((0..70).collect())), (RequestId(2), active(vec![7, 8]))]);
        let chunks = vec![chunk(1, 62, 4, false, vec![5, 2]), chunk(2, 0, 2, true, vec![0])];
        let control = control(&StepPlan { chunks, ..StepPlan::default() }, &active);
        let ids = [62, 63, 64, 65, 7, 8].map(TokenSource::Host);
        assert_eq!(control.tokens, ids);
        assert_eq!(control.positions, [62, 63, 64, 65, 0, 1]);
        assert_eq!(control.kv_slots, [382, 383, 128, 129, 0, 1]);
        assert_eq!(control.sequence_starts, [0, 4, 6]);
        assert_eq!(control.block_tables, [vec![5, 2], vec![0]]);
        assert_eq!(control.samples.iter().map(|s| (s.row, s.output_index)).collect::<Vec<_>>(), [(5, 0)]);
        assert_eq!(control.rows, 6);
    }

    #[test]
    fn a_row_that_is_not_finite_fails_its_own_request_only() {
        let token = |id| SampledToken { id, logprob: -1.0, top: vec![] };
        let fault = NonFinite { row: 2, layer: 1, op: "finite_check" };
        let report = Report {
            samples: vec![Some(token(4)), Some(token(5)), None],
            non_finite: vec![fault],
            ..Report::default()
        };
        let chunks = [
            chunk(1, 0, 1, true, vec![0]),
            chunk(2, 0, 2, true, vec![1]),
            chunk(3, 0, 3, false, vec![2]),
            chunk(4, 0, 1, true, vec![3]),
        ];
        let expected =
            [Outcome::Sampled(token(4)), Outcome::Fault(Some(fault)), Outcome::Computed, Outcome::Fault(None)];
        assert_eq!(outcomes(&chunks, report), expected);
    }
}
