//! The sampler: from the raw logits of one position to one token, the same for every backend.
//!
//! Pure: no clock, no randomness of its own (a counter-based generator is keyed by the request), no environment.
//! Never changes the logits it is given, and never panics on them.

mod candidates;
pub mod counts;
mod logprobs;
mod penalties;
mod philox;

pub use counts::TokenCounts;

use crate::engine::request::{SampledToken, SamplingParams};

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// There is nothing to choose from.
    #[error("the row of logits is empty; at least one is needed")]
    Empty,
    /// A logit that is not a number one can compare.
    #[error("the logit of token {id} is {value}; only finite numbers are allowed")]
    NonFinite {
        /// The first offending id.
        id: u32,
        /// What was there.
        value: f32,
    },
}

/// Chooses the token of one position.
///
/// `logits[id]` is the raw score of token `id`; `history` counts the prompt and the answer so far; `output_index` is
/// 0 for the first token of the answer; `top_logprobs` of the most likely ids are reported.
///
/// Log-probabilities are of the raw distribution. The choice applies, in this order, penalties (as vLLM does:
/// repetition over prompt and answer, then frequency and presence over the answer), temperature, top-k, top-p and
/// min-p; candidates stand by descending logit, ties by ascending id, and u = Philox4x32-10(seed, `output_index`)
/// picks one by the inverse of the cumulative distribution in F32. Temperature 0 takes the first candidate.
///
/// # Errors
/// [`SamplingError`] when the row is empty or holds a NaN or an infinity.
pub fn sample(
    logits: &[f32],
    params: &SamplingParams,
    history: &TokenCounts,
    output_index: u64,
    top_logprobs: u32,
) -> Result<SampledToken, SamplingError> {
    let raw = logprobs::LogSoftmax::new(logits)?;
    let id = if params.is_without_penalties() {
        choose(logits, params, output_index)
    } else {
        let mut penalised = logits.to_vec();
        penalties::penalise(&mut penalised, history, params);
        choose(&penalised, params, output_index)
    };
    let top = raw.top(top_logprobs);
    Ok(SampledToken { id, logprob: raw.of(id), top })
}

/// The id chosen from finite, penalised logits; `logits` is not empty.
fn choose(logits: &[f32], params: &SamplingParams, output_index: u64) -> u32 {
    if params.temperature == 0.0 {
        return candidates::argmax(logits);
    }
    let kept = candidates::Candidates::new(logits, params.temperature, params.top_k)
        .keep_top_p(params.top_p)
        .keep_min_p(params.min_p);
    kept.at(philox::uniform(params.seed, output_index))
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn with(change: impl FnOnce(&mut SamplingParams)) -> SamplingParams {
        let mut params = SamplingParams { temperature: 1.0, seed: 7, ..SamplingParams::default() };
        change(&mut params);
        params
    }

    fn ids(logits: &[f32], params: &SamplingParams, count: u64) -> Vec<u32> {
        let history = TokenCounts::default();
        (0..count).map(|index| sample(logits, params, &history, index, 0).unwrap().id).collect()
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_equal_logits_and_reports_raw_logprobs() {
        let token = sample(&[0.0, 2.0, 2.0, 0.0], &SamplingParams::default(), &TokenCounts::default(), 0, 3).unwrap();
        let (high, low) = (-0.820_075_2, -2.820_075_2);
        assert_eq!(token, SampledToken { id: 1, logprob: high, top: vec![(1, high), (2, high), (0, low)] });
    }

    #[test]
    fn a_logit_that_is_not_finite_is_an_error_that_names_the_token() {
        let at = |value| {
            sample(&[0.0, value], &SamplingParams::default(), &TokenCounts::default(), 0, 0).unwrap_err().to_string()
        };
        assert_eq!(at(f32::NAN), "the logit of token 1 is NaN; only finite numbers are allowed");
        assert_eq!(at(f32::INFINITY), "the logit of token 1 is inf; only finite numbers are allowed");
        assert_eq!(at(f32::NEG_INFINITY), "the logit of token 1 is -inf; only finite numbers are allowed");
        let empty = sample(&[], &SamplingParams::default(), &TokenCounts::default(), 0, 0);
        assert_eq!(empty, Err(SamplingError::Empty));
    }

    #[test]
    fn the_share_of_each_token_approaches_its_probability() {
        let logits = [3.0_f32.ln(), 0.0, 4.0_f32.ln(), 2.0_f32.ln()];
        let drawn = ids(&logits, &with(|_| {}), 20_000);
        for (id, share) in [0.3, 0.1, 0.4, 0.2].into_iter().enumerate() {
            let seen = drawn.iter().filter(|&&d| d as usize == id).count() as f64 / 20_000.0;
            assert!((seen - share).abs() < 0.015, "token {id}: {seen} for {share}");
        }
    }

    #[test]
    fn a_filter_that_leaves_one_candidate_is_greedy() {
        let logits = [0.0, 0.5, 3.0, 0.4];
        for params in [with(|p| p.top_k = 1), with(|p| p.top_p = 1e-6), with(|p| p.min_p = 1.0)] {
            assert_eq!(ids(&logits, &params, 50), vec![2; 50], "{params:?}");
        }
    }

    #[test]
    fn penalties_move_the_choice_away_from_what_was_said() {
        let mut history = TokenCounts::of_prompt(&[1]);
        let chosen = |history: &TokenCounts, params| sample(&[1.0, 1.5, 1.4], &params, history, 0, 0).unwrap().id;
        let greedy = SamplingParams::default;
        assert_eq!(chosen(&history, greedy()), 1);
        assert_eq!(chosen(&history, SamplingParams { repetition_penalty: 1.5, ..greedy() }), 2);
        assert_eq!(chosen(&history, SamplingParams { presence_penalty: 2.0, ..greedy() }), 1);
        history.push_generated(1);
        assert_eq!(chosen(&history, SamplingParams { presence_penalty: 0.2, ..greedy() }), 2);
        history.push_generated(2);
        history.push_generated(2);
        assert_eq!(chosen(&history, SamplingParams { frequency_penalty: 0.3, ..greedy() }), 1);
    }

    fn any_params() -> impl Strategy<Value = SamplingParams> {
        let shape = (prop_oneof![Just(0.0_f32), 1e-6_f32..2.0], 0_u32..70, 1e-6_f32..=1.0, 0.0_f32..=1.0, any::<u64>());
        let penalties = (0.1_f32..10.0, -2.0_f32..=2.0, -2.0_f32..=2.0);
        (shape, penalties).prop_map(|((temperature, top_k, top_p, min_p, seed), (repetition, presence, frequency))| {
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                seed,
                repetition_penalty: repetition,
                presence_penalty: presence,
                frequency_penalty: frequency,
            }
        })
    }

    proptest! {
        #[test]
        fn any_finite_row_gives_a_token_of_the_vocabulary_and_the_same_one_again(
            logits in prop::collection::vec(prop_oneof![-50.0_f32..50.0, -f32::MAX..f32::MAX], 1..80),
            params in any_params(),
            prompt in prop::collection::vec(0_u32..100, 0..20),
            index in any::<u64>(),
        ) {
            let history = TokenCounts::of_prompt(&prompt);
            let token = sample(&logits, &params, &history, index, 20).unwrap();
            prop_assert!((token.id as usize) < logits.len());
            prop_assert!(token.logprob <= 0.0 && !token.logprob.is_nan());
            prop_assert_eq!(token.top.len(), logits.len().min(20));
            prop_assert!(token.top.is_sorted_by(|a, b| a.1 >= b.1));
            prop_assert_eq!(sample(&logits, &params, &history, index, 20).unwrap(), token);
        }

        #[test]
        fn the_chosen_token_passes_every_filter(
            logits in prop::collection::vec(-5.0_f32..5.0, 1..60),
            params in any_params(),
            index in any::<u64>(),
        ) {
            let neutral = SamplingParams {
                repetition_penalty: 1.0, presence_penalty: 0.0, frequency_penalty: 0.0, ..params
            };
            let id = sample(&logits, &neutral, &TokenCounts::default(), index, 0).unwrap().id as usize;
            let better = logits.iter().filter(|&&l| l > logits[id]).count();
            prop_assert!(neutral.top_k == 0 || better < neutral.top_k as usize);
            if neutral.temperature == 0.0 {
                prop_assert_eq!(better, 0);
            } else {
                let best = logits.iter().copied().fold(f32::MIN, f32::max);
                let weight = ((logits[id] - best) / neutral.temperature).exp();
                prop_assert!(weight >= neutral.min_p);
            }
        }
    }
}
