//! What `/metrics` shows: what the front counts, and what the engine counts.
//!
//! Never waits: counting is an atomic addition, and a slow scraper holds nobody up.

mod engine;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::engine::stats::EngineStats;

/// How an answer that had started came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// `finished` was sent.
    Finished,
    /// `failed` was sent.
    Failed,
    /// Nobody was there to read it.
    ClientLeft,
}

impl Outcome {
    /// The value of the `outcome` label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::ClientLeft => "client_left",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: String,
}

/// The registry and what the front counts in it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    engine: Arc<OnceLock<Arc<EngineStats>>>,
    answers: Family<OutcomeLabel, Counter>,
    refusals: Family<CodeLabel, Counter>,
    prompt_tokens: Counter,
    completion_tokens: Counter,
    first_token: Histogram,
    duration: Histogram,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 20));
        let mut metrics = Self {
            registry: Registry::with_prefix("shoal"),
            engine: Arc::default(),
            answers: Family::default(),
            refusals: Family::default(),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            first_token: seconds(),
            duration: seconds(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("answers", "Answers that started, by how they ended", self.answers.clone());
        registry.register("refusals", "Requests that never started, by gRPC code", self.refusals.clone());
        registry.register("prompt_tokens", "Tokens of the prompts of ended answers", self.prompt_tokens.clone());
        registry.register("completion_tokens", "Tokens of ended answers", self.completion_tokens.clone());
        let first = ("first_token", "From the request to its first token", self.first_token.clone());
        registry.register_with_unit(first.0, first.1, Unit::Seconds, first.2);
        let whole = ("answer_duration", "From the request to the end of its answer", self.duration.clone());
        registry.register_with_unit(whole.0, whole.1, Unit::Seconds, whole.2);
        registry.register_collector(Box::new(engine::EngineCollector::new(Arc::clone(&self.engine))));
    }

    /// Shows what the engine counts from now on; only the first call matters.
    pub fn follow(&self, stats: Arc<EngineStats>) {
        // A second engine in one process does not exist; if it did, the first would stay visible.
        let _ = self.engine.set(stats);
    }

    /// Counts an answer that had started.
    pub fn answered(&self, outcome: Outcome, prompt_tokens: u32, completion_tokens: u32, duration: Duration) {
        self.answers.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
        self.prompt_tokens.inc_by(prompt_tokens.into());
        self.completion_tokens.inc_by(completion_tokens.into());
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts the wait for a first token.
    pub fn first_token(&self, wait: Duration) {
        self.first_token.observe(wait.as_secs_f64());
    }

    /// Counts a request that never started.
    pub fn refused(&self, code: tonic::Code) {
        self.refusals.get_or_create(&CodeLabel { code: format!("{code:?}") }).inc();
    }

    /// All values in OpenMetrics text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String should take all that is written to it");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_was_counted_is_shown() {
        let metrics = Metrics::new();
        metrics.answered(Outcome::Finished, 3, 5, Duration::from_millis(10));
        metrics.refused(tonic::Code::NotFound);
        let stats = Arc::new(EngineStats::default());
        stats.expert_pairs_remote.store(7, Ordering::Relaxed);
        metrics.follow(stats);
        let text = metrics.encode();
        for line in [
            "shoal_answers_total{outcome=\"finished\"} 1",
            "shoal_refusals_total{code=\"NotFound\"} 1",
            "shoal_completion_tokens_total 5",
            "shoal_expert_pairs_total{place=\"remote\"} 7",
            "shoal_kv_blocks{state=\"used\"} 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
