//! `shoal-worker bench`: how fast a prompt is read and an answer written here, on the scheduler, the programs and the
//! shard protocol that serve.
//!
//! The tokens of prompts and answers are drawn: what a model chooses repeats itself, and with it the experts that a step
//! reads. Every generated row goes through the head like any other. Never holds a kernel or a schedule of its own.

mod args;
mod bandwidth;
mod draw;
mod group;
mod measure;
mod report;

use std::time::Instant;

use crate::config::ConfigError;
use crate::engine::request::SampledToken;
use crate::launch::LaunchError;
use report::Measured;

pub use args::{Bench, BenchArgs, Strategy};
pub use draw::Drawn;
pub use report::{Figures, json, table};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A flag is out of its limits or does not fit the others.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be loaded or the engine cannot start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The system refused a port, a thread or memory.
    #[error("cannot get {what}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// A shard or a request ended before its time.
    #[error("{0}")]
    Failed(String),
}

/// What one batch gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Speeds and bytes.
    pub figures: Figures,
    /// What the model said after each token of each answer; `top` has as many ids as were asked for.
    pub answers: Vec<Vec<SampledToken>>,
}

/// Loads the model once and measures every batch. `started` is when the process was.
///
/// # Errors
/// [`BenchError`].
pub async fn run(bench: &Bench, started: Instant) -> Result<Vec<Run>, BenchError> {
    let group = group::start(bench).await?;
    let first_token = started.elapsed();
    let mut runs = Vec::new();
    for &batch in &bench.batches {
        let drawn = Drawn::new(bench, batch, group.vocabulary());
        let before = bandwidth::read(bench.threads)?;
        let prefill = measure::prefill(&group, bench, &drawn).await?;
        let decode = measure::decode(&group, bench, &drawn).await?;
        let read_gbps = [before, bandwidth::read(bench.threads)?];
        let measured = Measured { batch, prefill, decode, read_gbps };
        let figures = report::figures(bench, &group, &measured, first_token);
        runs.push(Run { figures, answers: measured.decode.answers });
    }
    Ok(runs)
}

#[cfg(test)]
mod tests;
