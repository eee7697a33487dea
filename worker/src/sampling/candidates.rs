//! The candidates of one choice, in the one order that every backend shares: descending logit, ties by ascending id.
//!
//! Never sees a logit that is not finite.

use std::cmp::Ordering;

/// The first candidate: the highest logit, of equal ones the lowest id. 0 for an empty row.
pub(super) fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0_u32, f32::NEG_INFINITY);
    for (id, &logit) in (0_u32..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0
}

/// Ids with weights relative to the most likely one, whose weight is 1; never empty.
pub(super) struct Candidates {
    entries: Vec<(u32, f32)>,
}

impl Candidates {
    /// Divides by `temperature` (above 0) and keeps the first `top_k`, or all for 0. `logits` is not empty.
    pub(super) fn new(logits: &[f32], temperature: f32, top_k: u32) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // The difference is taken first, so that no temperature can overflow: at worst a weight is 0, and such a
        // candidate can neither be drawn nor change a sum.
        let weight = |logit: f32| ((logit - max) / temperature).exp();
        let mut entries: Vec<(u32, f32)> =
            (0_u32..).zip(logits.iter().copied()).filter(|&(_, logit)| weight(logit) > 0.0).collect();
        let kept = top_k as usize;
        if kept > 0 && kept < entries.len() {
            entries.select_nth_unstable_by(kept - 1, descending);
            entries.truncate(kept);
        }
        entries.sort_unstable_by(descending);
        for (_, logit) in &mut entries {
            *logit = weight(*logit);
        }
        Self { entries }
    }

    /// Keeps the shortest prefix whose share of the whole reaches `top_p`.
    pub(super) fn keep_top_p(mut self, top_p: f32) -> Self {
        if top_p < 1.0 {
            let target = top_p * self.total();
            let mut cumulative = 0.0;
            let reached = self.entries.iter().position(|&(_, weight)| {
                cumulative += weight;
                cumulative >= target
            });
            self.entries.truncate(reached.map_or(self.entries.len(), |last| last + 1));
        }
        self
    }

    /// Keeps what is at least `min_p` times as likely as the most likely candidate.
    pub(super) fn keep_min_p(mut self, min_p: f32) -> Self {
        let kept = self.entries.partition_point(|&(_, weight)| weight >= min_p);
        self.entries.truncate(kept.max(1));
        self
    }

    /// The candidate at `u` ∈ [0, 1) of the cumulative distribution.
    pub(super) fn at(&self, u: f32) -> u32 {
        let target = u * self.total();
        let mut cumulative = 0.0;
        for &(id, weight) in &self.entries {
            cumulative += weight;
            if cumulative > target {
                return id;
            }
        }
        // Rounding can make u·total equal the total: then it is the last one.
        self.entries.last().map_or(0, |&(id, _)| id)
    }

    /// The sum of the weights in candidate order, in F32 as the cumulative sums are.
    fn total(&self) -> f32 {
        self.entries.iter().map(|&(_, weight)| weight).sum()
    }
}

fn descending(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    // Not total_cmp: 0 and −0 are a tie.
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(candidates: &Candidates) -> Vec<u32> {
        candidates.entries.iter().map(|&(id, _)| id).collect()
    }

    #[test]
    fn candidates_stand_by_descending_logit_and_ascending_id() {
        let logits = [0.0, 1.0, -0.0, 1.0, -1000.0];
        assert_eq!(ids(&Candidates::new(&logits, 1.0, 0)), [1, 3, 0, 2]);
        assert_eq!(ids(&Candidates::new(&logits, 1.0, 3)), [1, 3, 0]);
        assert_eq!(ids(&Candidates::new(&logits, 1e-6, 0)), [1, 3]);
    }

    #[test]
    fn the_filters_keep_the_prefix_they_promise() {
        // Weights 1, 1/2, 1/4, 1/4.
        let of = || Candidates::new(&[4.0_f32.ln(), 2.0_f32.ln(), 0.0, 0.0], 1.0, 0);
        for (top_p, expected) in [(0.4, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (1.0, 4)] {
            assert_eq!(ids(&of().keep_top_p(top_p)).len(), expected, "top_p {top_p}");
        }
        for (min_p, expected) in [(0.0, 4), (0.24, 4), (0.26, 2), (0.51, 1), (1.0, 1)] {
            assert_eq!(ids(&of().keep_min_p(min_p)).len(), expected, "min_p {min_p}");
        }
    }

    #[test]
    fn the_inverse_of_the_cumulative_distribution_is_half_open() {
        let candidates = Candidates::new(&[0.0, 0.0, 0.0, 0.0], 1.0, 0);
        let drawn = [0.0, 0.24, 0.25, 0.5, 0.75, 0.999_999_9].map(|u| candidates.at(u));
        assert_eq!(drawn, [0, 0, 1, 2, 3, 3]);
    }
}
