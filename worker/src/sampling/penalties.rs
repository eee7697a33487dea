//! The penalties on tokens already seen, as vLLM applies them. Never looks at order or at probabilities.

use super::TokenCounts;
use crate::engine::request::SamplingParams;

/// Every seen token's logit is divided (positive) or multiplied (negative) by the repetition penalty; then a generated
/// one loses count × frequency and, once, presence. Ids past the row are ignored; the result stays finite.
pub(super) fn penalise(logits: &mut [f32], history: &TokenCounts, params: &SamplingParams) {
    for (id, seen) in history.iter() {
        let Some(logit) = logits.get_mut(id as usize) else { continue };
        let factor = params.repetition_penalty;
        let mut value = if *logit > 0.0 { *logit / factor } else { *logit * factor };
        if seen.generated > 0 {
            value -= seen.generated as f32 * params.frequency_penalty;
            value -= params.presence_penalty;
        }
        *logit = value.clamp(f32::MIN, f32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_penalty_touches_the_tokens_it_is_about() {
        let mut counts = TokenCounts::of_prompt(&[0, 9]);
        counts.push_generated(1);
        counts.push_generated(1);
        let params = SamplingParams {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..SamplingParams::default()
        };
        let mut logits = [4.0, -4.0, 3.0];
        penalise(&mut logits, &counts, &params);
        assert_eq!(logits, [2.0, -9.0, 3.0]);
    }

    #[test]
    fn a_penalty_never_makes_a_logit_infinite() {
        let params = SamplingParams { repetition_penalty: 0.1, ..SamplingParams::default() };
        let mut logits = [f32::MAX];
        penalise(&mut logits, &TokenCounts::of_prompt(&[0]), &params);
        assert_eq!(logits, [f32::MAX]);
    }
}
