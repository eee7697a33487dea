//! What is spoilt next: the corpus, and inputs that reached something new.

use super::mutate::{Random, change};
use super::texts;

const MOST_BYTES: usize = 1 << 16;
/// One of so many draws of a dear input counts.
const DEAR: usize = 8;

/// An input.
pub(crate) struct Made {
    /// Its bytes.
    pub(crate) input: Vec<u8>,
    /// As it stands in the corpus.
    seed: Option<usize>,
}

impl Made {
    pub(crate) fn is_seed(&self) -> bool {
        self.seed.is_some()
    }
}

struct Known {
    input: Vec<u8>,
    dear: bool,
}

/// Inputs to spoil, and the chance that does it.
pub(crate) struct Pool {
    known: Vec<Known>,
    /// The first of `known`, which come from the corpus.
    seeds: usize,
    /// Texts of the corpus, to be put in the place of others.
    words: Vec<Vec<u8>>,
    random: Random,
}

impl Pool {
    /// The corpus alone.
    pub(crate) fn new(seeds: Vec<Vec<u8>>, seed: u64, name: &str) -> Self {
        let words = texts::all(&seeds);
        let known: Vec<Known> = seeds.into_iter().map(|input| Known { input, dear: false }).collect();
        Self { seeds: known.len(), known, words, random: Random::new(seed, name) }
    }

    /// Inputs of the corpus.
    pub(crate) fn seeds(&self) -> usize {
        self.seeds
    }

    /// Inputs kept beside them.
    pub(crate) fn kept(&self) -> usize {
        self.known.len() - self.seeds
    }

    /// An input of the corpus as it is.
    pub(crate) fn seed(&self, number: usize) -> Made {
        Made { input: self.known[number].input.clone(), seed: Some(number) }
    }

    /// Keeps an input that reached something new, or notes what one of the corpus costs.
    pub(crate) fn keep(&mut self, made: &Made, dear: bool) {
        match made.seed {
            Some(number) => self.known[number].dear = dear,
            None => self.known.push(Known { input: made.input.clone(), dear }),
        }
    }

    /// Half of the time one of the corpus, half of the time one that was kept.
    fn draw(&mut self) -> usize {
        loop {
            let end = if self.kept() == 0 || self.random.below(2) == 0 {
                0..self.seeds
            } else {
                self.seeds..self.known.len()
            };
            let drawn = end.start + self.random.below(end.len());
            if !self.known[drawn].dear || self.random.below(DEAR) == 0 {
                return drawn;
            }
        }
    }

    /// One input with one to eight things changed.
    pub(crate) fn make(&mut self) -> Made {
        let drawn = self.draw();
        let mut input = self.known[drawn].input.clone();
        for _ in 0..1 + self.random.below(8) {
            let other = self.random.below(self.known.len());
            change(&mut input, &self.known[other].input, &self.words, &mut self.random);
            if self.random.below(3) == 0 {
                break;
            }
        }
        input.truncate(MOST_BYTES);
        Made { input, seed: None }
    }
}
