//! The tiny models under `tests/fixtures`, what transformers says of them, and spoiled copies.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use super::ask::Answer;

/// All fixtures.
pub const FIXTURES: [&str; 15] = include!("../../fixtures/names.rs");
/// Positions whose router was this undecided are left out of comparisons.
const UNDECIDED: f32 = 1e-5;
/// Most mean |Δ log-probability| over the top 20.
pub const MEAN_BOUND: f64 = 5e-5;
/// Most |Δ log-probability| over the top 20.
pub const MAX_BOUND: f64 = 1e-3;

/// What transformers generated, greedily, in F32.
#[derive(Debug, Clone, Deserialize)]
pub struct Expected {
    /// One per prompt.
    pub cases: Vec<Case>,
}

/// One prompt and its answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    /// Ids.
    pub prompt: Vec<u32>,
    /// The answer.
    pub tokens: Vec<u32>,
    /// Most likely ids and their log-probabilities, of each position of the answer.
    pub top: Vec<Vec<(u32, f32)>>,
    /// Smallest distance of any router to another choice, of each position.
    pub margin: Vec<f32>,
}

/// Where a fixture lies.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// What transformers says of a fixture.
///
/// # Errors
/// When the file is missing or malformed.
pub fn expected(name: &str) -> Result<Expected> {
    let file = path(name).join("expected.json");
    let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| file.display().to_string())
}

/// How many routed experts a fixture has.
///
/// # Errors
/// When its config is missing or malformed.
pub fn experts(name: &str) -> Result<u32> {
    let config: Value = serde_json::from_slice(&std::fs::read(path(name).join("config.json"))?)?;
    let spellings = ["n_routed_experts", "num_experts", "num_local_experts"];
    let experts = spellings.iter().find_map(|field| config[field].as_u64());
    Ok(u32::try_from(experts.context("n_routed_experts, num_experts or num_local_experts")?)?)
}

/// How many layers a fixture has.
///
/// # Errors
/// When its config is missing or malformed.
pub fn layers(name: &str) -> Result<u32> {
    let config: Value = serde_json::from_slice(&std::fs::read(path(name).join("config.json"))?)?;
    Ok(u32::try_from(config["num_hidden_layers"].as_u64().context("num_hidden_layers")?)?)
}

/// The distance of answers from what transformers says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Distance {
    /// Mean |Δ log-probability|.
    pub mean: f64,
    /// Largest |Δ log-probability|.
    pub max: f64,
    /// Positions compared.
    pub positions: usize,
    /// Positions left out.
    pub undecided: usize,
    /// Positions whose token is another one.
    pub other_tokens: usize,
}

impl Distance {
    /// Whether the bounds of exact numerics hold; at most 1 % of the positions may be left out.
    #[must_use]
    pub fn is_within_bounds(&self) -> bool {
        let decided = self.undecided * 100 <= self.positions + self.undecided;
        self.other_tokens == 0 && self.mean <= MEAN_BOUND && self.max <= MAX_BOUND && decided
    }
}

/// Compares answers with the cases they belong to. Past the first other token nothing can be compared.
#[must_use]
pub fn distance(cases: &[Case], answers: &[Answer]) -> Distance {
    let mut distance = Distance::default();
    let mut deltas = Vec::new();
    for (case, answer) in cases.iter().zip(answers) {
        let missing = case.tokens.len().saturating_sub(answer.tokens.len());
        distance.other_tokens += missing;
        for (position, token) in answer.tokens.iter().enumerate().take(case.tokens.len()) {
            if case.margin[position] < UNDECIDED {
                distance.undecided += 1;
            } else {
                distance.positions += 1;
                deltas.extend(case.top[position].iter().map(|&(id, logprob)| {
                    // An id beyond our top 20 is at most as likely as our last one.
                    let found = token.top.iter().find(|top| top.id == id).or(token.top.last());
                    found.map_or(f64::INFINITY, |top| f64::from((top.logprob - logprob).abs()))
                }));
            }
            if token.id != case.tokens[position] {
                distance.other_tokens += 1;
                break;
            }
        }
    }
    distance.max = deltas.iter().copied().fold(0.0, f64::max);
    distance.mean = deltas.iter().sum::<f64>() / deltas.len().max(1) as f64;
    distance
}

/// A copy of a fixture that a test may spoil.
pub struct Copy {
    directory: TempDir,
}

impl Copy {
    /// Copies config and weights.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn of(name: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(path(name).join(file), directory.path().join(file)).context(file)?;
        }
        Ok(Self { directory })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Changes `config.json`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn with_config(self, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let file = self.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        change(&mut config);
        std::fs::write(&file, serde_json::to_vec(&config)?)?;
        Ok(self)
    }

    /// Writes zeros over every tensor whose name ends with `suffix`.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read or written.
    pub fn with_zeros(self, suffix: &str) -> Result<Self> {
        self.filled(suffix, 0)
    }

    /// Writes NaN over every tensor whose name ends with `suffix`: all bits set, in any float format.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read or written.
    pub fn with_nan(self, suffix: &str) -> Result<Self> {
        self.filled(suffix, 0xff)
    }

    /// Writes the largest numbers over every tensor whose name ends with `suffix`: sums of them overflow.
    ///
    /// # Errors
    /// When there is none, or the file cannot be read or written.
    pub fn with_huge(self, suffix: &str) -> Result<Self> {
        self.filled(suffix, 0x7f)
    }

    fn filled(self, suffix: &str, byte: u8) -> Result<Self> {
        let file = self.path().join("model.safetensors");
        let mut bytes = std::fs::read(&file)?;
        let length = u64::from_le_bytes(bytes[..8].try_into()?) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length])?;
        let tensors = header.as_object().context("the header")?.iter().filter(|(name, _)| name.ends_with(suffix));
        let mut count = 0;
        for (_, tensor) in tensors {
            let offset = |index: usize| tensor["data_offsets"][index].as_u64().context("data_offsets");
            bytes[8 + length + offset(0)? as usize..8 + length + offset(1)? as usize].fill(byte);
            count += 1;
        }
        anyhow::ensure!(count > 0, "no tensor ends with {suffix}");
        std::fs::write(&file, bytes)?;
        Ok(self)
    }
}
