//! Seeds: whatever a test of a fault may choose freely, it draws from one, and runs with several.
//!
//! The same seed makes the same choices, whatever else runs.

use std::ops::RangeInclusive;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// How many seeds a run takes; `SHOAL_SEEDS` asks for more or fewer.
pub const SEEDS: u64 = 3;

/// From 1 on.
///
/// # Panics
/// When `SHOAL_SEEDS` is set and no number from 1 on.
#[must_use]
pub fn seeds() -> RangeInclusive<u64> {
    let asked = std::env::var("SHOAL_SEEDS").ok();
    let last = asked.map_or(SEEDS, |text| text.parse().expect("SHOAL_SEEDS should be a number"));
    assert!(last > 0, "SHOAL_SEEDS should be at least 1");
    1..=last
}

/// The choices of one seed, in order.
#[derive(Debug)]
pub struct Draw {
    /// The seed, for messages.
    pub seed: u64,
    rng: StdRng,
}

impl Draw {
    /// Of `seed`.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, rng: StdRng::seed_from_u64(seed) }
    }

    /// A number from `range`.
    pub fn number(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.rng.random_range(range)
    }

    /// One of `choices`, which are not none.
    pub fn one<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.rng.random_range(0..choices.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_choices_again_and_another_seed_others() {
        let choices = |seed| {
            let mut draw = Draw::of(seed);
            (0..8).map(|_| (draw.number(1..=1000), *draw.one(&["a", "b", "c"]))).collect::<Vec<_>>()
        };
        assert_eq!(choices(1), choices(1));
        assert_ne!(choices(1), choices(2));
    }
}
