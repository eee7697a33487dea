//! What the operator counts, in Prometheus' text format.
//!
//! Label values come from closed sets, never from object names: the number of series is bounded.

mod calls;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use self::calls::CountCalls;
pub(crate) use self::calls::verb;

/// Labels of [`Metrics::reconciles`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// `applied`, `waiting`, `skipped` or the reason of a failure.
    pub result: &'static str,
}

/// Labels of [`Metrics::api_calls`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// `get`, `watch`, `create`, `update`, `patch`, `apply`, `delete`; lists count as `get`.
    pub verb: &'static str,
    /// HTTP status; 0 when there was no answer.
    pub code: u16,
}

/// Labels of [`Metrics::groups`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabel {
    /// As in `status.groups[].phase`.
    pub phase: &'static str,
}

/// Labels of [`Metrics::models`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    /// `available`, `unavailable` or `scaled_to_zero`.
    pub state: &'static str,
}

/// Labels of [`Metrics::restarts`] and [`Metrics::rejections`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// A word from a closed set.
    pub reason: &'static str,
}

/// All metrics of one operator. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    /// Passes by result.
    pub reconciles: Family<ResultLabel, Counter>,
    /// Seconds of a pass.
    pub reconcile_seconds: Histogram,
    /// Requests to the API server.
    pub api_calls: Family<CallLabels, Counter>,
    /// Objects by whether enough of their groups are available.
    pub models: Family<StateLabel, Gauge>,
    /// Groups by phase, of all objects.
    pub groups: Family<PhaseLabel, Gauge>,
    /// Groups formed again, by reason of the loss.
    pub restarts: Family<ReasonLabel, Counter>,
    /// Specs or plans refused, by reason.
    pub rejections: Family<ReasonLabel, Counter>,
    /// Objects that wait for a pass.
    pub queue_depth: Gauge,
    /// 1 while this process leads.
    pub leader: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Fresh metrics, and the registry that prints them.
    #[must_use]
    pub fn new() -> (Self, Registry) {
        let buckets = [0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0];
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(buckets),
            api_calls: Family::default(),
            models: Family::default(),
            groups: Family::default(),
            restarts: Family::default(),
            rejections: Family::default(),
            queue_depth: Gauge::default(),
            leader: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("shoal_operator");
        registry.register("reconciles", "Passes by result", metrics.reconciles.clone());
        let seconds = metrics.reconcile_seconds.clone();
        registry.register_with_unit("reconcile", "Duration of a pass", Unit::Seconds, seconds);
        registry.register("api_calls", "Requests to the API server", metrics.api_calls.clone());
        registry.register("models", "Objects by whether enough groups are available", metrics.models.clone());
        registry.register("groups", "Groups by phase", metrics.groups.clone());
        registry.register("group_restarts", "Groups formed again", metrics.restarts.clone());
        registry.register("rejections", "Specs or plans refused", metrics.rejections.clone());
        registry.register("queue_depth", "Objects that wait for a pass", metrics.queue_depth.clone());
        registry.register("leader", "1 while this process leads", metrics.leader.clone());
        (metrics, registry)
    }

    /// Counts one pass.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }
}
