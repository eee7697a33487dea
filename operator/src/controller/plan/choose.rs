//! Every layout that could be made on some nodes, and the best of them.
//!
//! Knows nothing of words and of what was shown before.

use super::ShardBytes;
use super::bytes::ShardLoad;
use super::fit::{self, Ask, Pool};
use super::speed::Score;
use super::stages;
use crate::controller::validate::Validated;
use crate::crd::{ModelShape, Strategy};
use shoal_proto::placement::{MAX_SHARDS, Placement};

/// A layout that nodes hold when empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) shards: u32,
    /// The product to which it is confined.
    pub(super) product: Option<String>,
    pub(super) score: Score,
}

/// A model on some nodes.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) shape: &'a ModelShape,
    pub(super) spec: &'a Validated,
    /// Single products first, all nodes last; never empty.
    pub(super) pools: &'a [Pool],
}

impl Choice<'_> {
    /// As many as there are experts, or layers, to divide.
    pub(super) fn most(&self) -> u32 {
        let limit = u32::try_from(MAX_SHARDS).unwrap_or(u32::MAX);
        self.parts().clamp(1, limit)
    }

    /// What there is to divide.
    pub(super) fn parts(&self) -> u32 {
        let parts = match self.spec.strategy {
            Strategy::Experts => self.shape.experts,
            Strategy::Pipeline => self.shape.layers,
        };
        parts.unsigned_abs()
    }

    /// Who has which part; `None` when there are more shards than parts.
    pub(super) fn placement(&self, shards: u32) -> Option<Placement> {
        let count = usize::try_from(shards).ok()?;
        match self.spec.strategy {
            Strategy::Experts => Placement::even(self.parts(), count).ok(),
            Strategy::Pipeline => stages::placement(self.shape, self.spec, shards),
        }
    }

    pub(super) fn load(&self, shards: u32) -> ShardLoad {
        ShardLoad::largest(self.shape, self.spec, shards)
    }

    pub(super) fn bytes(&self, shards: u32) -> ShardBytes {
        ShardBytes::of(self.shape, self.spec, self.load(shards))
    }

    /// The fewest shards of which each fits in `memory`.
    pub(super) fn fewest(&self, memory: u64) -> Option<u32> {
        (1..=self.most()).find(|shards| self.bytes(*shards).total() <= memory)
    }

    /// Equal shards that all eligible nodes hold when empty.
    pub(super) fn room(&self, shards: u32) -> u64 {
        let ask = Ask::of(&self.bytes(shards), self.spec);
        self.pools.last().map_or(0, |pool| pool.room(&ask))
    }

    /// Every layout of `shards` shards that fits; products are mixed only where no single one holds the group.
    fn with(&self, shards: u32) -> Vec<Candidate> {
        let bytes = self.bytes(shards);
        if fit::host_limit(self.spec).is_some_and(|limit| limit < bytes.host()) {
            return vec![];
        }
        let ask = Ask::of(&bytes, self.spec);
        let fitting = self.pools.iter().filter(|pool| pool.room(&ask) >= u64::from(shards));
        let candidate = |pool: &Pool| {
            let devices = pool.fastest(&ask, u64::from(shards));
            let score = Score::of(self.shape, self.spec, self.load(shards), &devices);
            Candidate { shards, product: pool.product.clone(), score }
        };
        let mut found: Vec<_> = fitting.map(candidate).collect();
        if found.len() > 1 {
            found.retain(|candidate| candidate.product.is_some());
        }
        found
    }

    /// Every layout that fits, fewer shards first; of the wished number of shards only, if one is wished.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        match self.spec.shards {
            Some(shards) => self.with(shards),
            None => (1..=self.most()).flat_map(|shards| self.with(shards)).collect(),
        }
    }

    /// The most sequences below the wished ones, then the longest context of a single one, with which a layout fits.
    pub(super) fn less(&self) -> Option<(&'static str, u32)> {
        let fits = |spec: &Validated| !Choice { spec, ..*self }.candidates().is_empty();
        let with = |sequences: u32, context: u32| {
            let mut spec = self.spec.clone();
            (spec.max_concurrent_sequences, spec.context_tokens) = (sequences, context);
            fits(&spec)
        };
        let (sequences, context) = (self.spec.max_concurrent_sequences, self.spec.context_tokens);
        let fewer = largest(sequences.saturating_sub(1), |sequences| with(sequences, context));
        let shorter = || largest(context.saturating_sub(1), |context| with(sequences, context));
        let fewer = fewer.map(|sequences| ("maxConcurrentSequences", sequences));
        fewer.or_else(|| shorter().filter(|tokens| *tokens >= 64).map(|tokens| ("contextTokens", tokens)))
    }
}

/// The best candidate; of equal ones the first.
pub(super) fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().reduce(|best, other| if best.score.better_than(&other.score, 1.0) { best } else { other })
}

/// The largest number from 1 to `most` that fits, if fitting is monotone.
fn largest(most: u32, fits: impl Fn(u32) -> bool) -> Option<u32> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    (low > 0).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::largest;

    #[test]
    fn the_largest_that_fits_is_found_by_halving() {
        for limit in 0..20 {
            assert_eq!(largest(16, |n| n <= limit), (limit > 0).then_some(limit.min(16)), "{limit}");
        }
        assert_eq!(largest(0, |_| true), None);
    }
}
