//! What the engine counts while it runs. Plain atomics: writing one never waits.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters only rise; gauges are set. All are read without order between them.
#[derive(Debug, Default)]
pub struct EngineStats {
    /// Counter: steps run.
    pub steps: AtomicU64,
    /// Counter: prompt rows computed.
    pub prompt_rows: AtomicU64,
    /// Counter: prompt tokens that were found in the cache.
    pub prompt_tokens_cached: AtomicU64,
    /// Counter: tokens sampled.
    pub generated_tokens: AtomicU64,
    /// Counter: (row, expert) pairs computed here for this worker's own rows.
    pub expert_pairs_local: AtomicU64,
    /// Counter: (row, expert) pairs that peers computed for this worker's rows.
    pub expert_pairs_remote: AtomicU64,
    /// Counter: (row, expert) pairs computed here for peers.
    pub expert_pairs_served: AtomicU64,
    /// Counter: experts whose weights were read here, counted anew in each run and layer.
    pub experts_read: AtomicU64,
    /// Counter: rows passed on to the next stage of a pipeline.
    pub stage_rows: AtomicU64,
    /// Gauge: steps on their way through a pipeline.
    pub micro_batches: AtomicU64,
    /// Gauge: the most of them that there were.
    pub micro_batches_most: AtomicU64,
    /// Counter: sequences put back to the queue for want of KV blocks.
    pub preemptions: AtomicU64,
    /// Counter: requests failed by a number that is not finite.
    pub numeric_faults: AtomicU64,
    /// Counter: times that the group was lost; at most one an epoch.
    pub peer_losses: AtomicU64,
    /// Counter: connections to the shard port refused because they were plaintext.
    pub refused_plaintext: AtomicU64,
    /// Counter: the same, for another certificate or none.
    pub refused_certificate: AtomicU64,
    /// Counter: the same, for a certificate that is not valid now.
    pub refused_expired: AtomicU64,
    /// Counter: the same, for any other failed handshake.
    pub refused_handshake: AtomicU64,
    /// Gauge: requests waiting.
    pub waiting: AtomicU64,
    /// Gauge: requests running.
    pub running: AtomicU64,
    /// Gauge: KV blocks in use.
    pub kv_blocks_used: AtomicU64,
    /// Gauge: KV blocks in use by nobody that keep a beginning.
    pub kv_blocks_idle: AtomicU64,
    /// Gauge: KV blocks in all.
    pub kv_blocks_total: AtomicU64,
}

impl EngineStats {
    /// Raises a counter.
    pub fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(gauge: &AtomicU64, to: u64) {
        gauge.store(to, Ordering::Relaxed);
    }

    /// Sets a gauge unless it is higher.
    pub fn raise(gauge: &AtomicU64, to: u64) {
        gauge.fetch_max(to, Ordering::Relaxed);
    }

    /// Reads either.
    #[must_use]
    pub fn get(value: &AtomicU64) -> u64 {
        value.load(Ordering::Relaxed)
    }
}
