//! The engine's counters as metrics, read when somebody looks. Never writes one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::engine::stats::EngineStats;

/// Shows nothing until the engine runs.
#[derive(Debug)]
pub(super) struct EngineCollector {
    stats: Arc<OnceLock<Arc<EngineStats>>>,
}

impl EngineCollector {
    pub(super) fn new(stats: Arc<OnceLock<Arc<EngineStats>>>) -> Self {
        Self { stats }
    }
}

impl Collector for EngineCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(stats) = self.stats.get() else { return Ok(()) };
        let mut page = Page { encoder };
        page.counter("steps", "Steps run", &stats.steps)?;
        page.counter("prompt_rows", "Prompt rows computed", &stats.prompt_rows)?;
        let found = "Prompt tokens found in the cache, in whole blocks";
        page.counter("prompt_tokens_cached", found, &stats.prompt_tokens_cached)?;
        page.counter("generated_tokens", "Tokens sampled", &stats.generated_tokens)?;
        let read = "Experts whose weights were read, counted anew in each run and layer";
        page.counter("experts_read", read, &stats.experts_read)?;
        page.counter("preemptions", "Sequences put back for want of KV blocks", &stats.preemptions)?;
        page.counter("numeric_faults", "Requests failed by a number that is not finite", &stats.numeric_faults)?;
        page.counter("group_losses", "Times that the group was lost; at most one an epoch", &stats.peer_losses)?;
        page.family(
            ("expert_pairs", "(row, expert) pairs, by where and for whom they were computed"),
            MetricType::Counter,
            "place",
            &[
                ("local", &stats.expert_pairs_local),
                ("remote", &stats.expert_pairs_remote),
                ("served", &stats.expert_pairs_served),
            ],
        )?;
        page.counter("stage_rows", "Rows passed on to the next stage of a pipeline", &stats.stage_rows)?;
        page.family(
            ("micro_batches", "Steps on their way through a pipeline"),
            MetricType::Gauge,
            "state",
            &[("now", &stats.micro_batches), ("most", &stats.micro_batches_most)],
        )?;
        page.family(
            ("shard_refusals", "Connections refused on the shard port, by reason"),
            MetricType::Counter,
            "reason",
            &[
                ("plaintext", &stats.refused_plaintext),
                ("certificate", &stats.refused_certificate),
                ("expired", &stats.refused_expired),
                ("handshake", &stats.refused_handshake),
            ],
        )?;
        page.family(
            ("sequences", "Sequences, by what they do"),
            MetricType::Gauge,
            "state",
            &[("waiting", &stats.waiting), ("running", &stats.running)],
        )?;
        page.family(
            ("kv_blocks", "Blocks of the KV cache"),
            MetricType::Gauge,
            "state",
            &[("used", &stats.kv_blocks_used), ("idle", &stats.kv_blocks_idle), ("total", &stats.kv_blocks_total)],
        )
    }
}

struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        let encoder = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value.load(Ordering::Relaxed)).encode(encoder)
    }

    fn family(
        &mut self,
        (name, help): (&str, &str),
        kind: MetricType,
        label: &str,
        values: &[(&str, &AtomicU64)],
    ) -> fmt::Result {
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (value_of_label, value) in values {
            let labels = [(label, *value_of_label)];
            let one = encoder.encode_family(&labels)?;
            let value = value.load(Ordering::Relaxed);
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(one)?,
                _ => ConstGauge::new(value as i64).encode(one)?,
            }
        }
        Ok(())
    }
}
