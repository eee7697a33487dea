//! The tokens of a measurement: drawn by seed, other ones for every batch, sequence and step.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Bench;

/// Prompts and answers of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Of every sequence.
    pub prompts: Vec<Vec<u32>>,
    /// What every sequence sees in the place of what the model chose.
    pub answers: Vec<Arc<[u32]>>,
}

impl Drawn {
    /// The tokens for `batch` sequences, all below `vocabulary`; the same for the same seed.
    #[must_use]
    pub fn new(bench: &Bench, batch: u32, vocabulary: u32) -> Self {
        let mut random = StdRng::seed_from_u64(bench.seed ^ u64::from(batch).rotate_left(32));
        let mut ids = |count| -> Vec<u32> { (0..count).map(|_| random.random_range(0..vocabulary.max(1))).collect() };
        let prompts = (0..batch).map(|_| ids(bench.prefill)).collect();
        let answers = (0..batch).map(|_| ids(bench.decode).into()).collect();
        Self { prompts, answers }
    }
}
