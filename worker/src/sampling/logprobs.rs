//! Log-probabilities of the raw distribution. Never sees penalties or temperature.

use super::SamplingError;

/// The log-softmax of one row, evaluated on demand.
pub(super) struct LogSoftmax<'a> {
    logits: &'a [f32],
    max: f32,
    /// ln Σ exp(logit − max), summed in F64 by ascending id: one order for every backend and thread count.
    log_sum: f64,
}

impl<'a> LogSoftmax<'a> {
    pub(super) fn new(logits: &'a [f32]) -> Result<Self, SamplingError> {
        if let Some((id, &value)) = (0_u32..).zip(logits).find(|(_, logit)| !logit.is_finite()) {
            return Err(SamplingError::NonFinite { id, value });
        }
        let max = logits.iter().copied().reduce(f32::max).ok_or(SamplingError::Empty)?;
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - max).exp())).sum();
        Ok(Self { logits, max, log_sum: sum.ln() })
    }

    /// ln p(id); `id` is below the vocabulary size. At most 0, and finite: a difference that overflows F32 is cut off.
    pub(super) fn of(&self, id: u32) -> f32 {
        let logit = self.logits[id as usize];
        let exact = f64::from(logit) - f64::from(self.max) - self.log_sum;
        (exact as f32).clamp(f32::MIN, 0.0)
    }

    /// The `count` most likely ids with their log-probabilities, descending, ties by id.
    pub(super) fn top(&self, count: u32) -> Vec<(u32, f32)> {
        let count = count as usize;
        let mut best: Vec<(u32, f32)> = Vec::with_capacity(count.min(self.logits.len()) + 1);
        for (id, &logit) in (0_u32..).zip(self.logits) {
            if best.len() == count && best.last().is_none_or(|&(_, worst)| logit <= worst) {
                continue;
            }
            let place = best.partition_point(|&(_, other)| other >= logit);
            best.insert(place, (id, logit));
            best.truncate(count);
        }
        best.into_iter().map(|(id, _)| (id, self.of(id))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_probabilities_add_up_to_one_and_the_top_is_the_sorted_prefix(
            logits in prop::collection::vec(prop_oneof![-20.0_f32..20.0, Just(1.0)], 1..100),
            count in 0_u32..21,
        ) {
            let row = LogSoftmax::new(&logits).unwrap();
            let all: Vec<f32> = (0..logits.len() as u32).map(|id| row.of(id)).collect();
            let sum: f64 = all.iter().map(|&l| f64::from(l).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-5);
            let mut order: Vec<u32> = (0..logits.len() as u32).collect();
            order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            order.truncate(count as usize);
            prop_assert_eq!(row.top(count).iter().map(|&(id, _)| id).collect::<Vec<_>>(), order);
        }
    }
}
