//! A roofline model of decoding: how many tokens per second a group makes, and what its devices cost.
//!
//! docs/planner.md derives every formula and names the source of every constant. Predicts, never measures; ignores
//! prefill, sampling and what overlaps.

use super::bytes::{self, ShardLoad, Sizes, bytes_of_32, dense_bytes_of_32, kv_bytes, own_sequences};
use crate::controller::validate::Validated;
use crate::crd::{Backend, ModelShape, Strategy};
use crate::inventory::{Speed, quantity};

/// Bytes per second between two shards: 25 Gbit/s Ethernet.
pub const NETWORK_BYTES: f64 = 3.125e9;
/// One exchange of one layer beside its bytes, in seconds: there and back within one zone.
pub const EXCHANGE_SECONDS: f64 = 200e-6;
/// Memory bandwidth of one core that its neighbours use too: eight channels of DDR4-3200 for 24 cores.
const CORE_BANDWIDTH: u64 = 8_500_000_000;
/// Operations of one core: eight lanes, one multiplication and one addition a cycle, 2.5 GHz.
const CORE_FLOPS: u64 = 40_000_000_000;
/// Rates for ranking devices of which nothing is known.
const NOMINAL: Speed = Speed { bandwidth: 1_000_000_000_000, flops: 100_000_000_000_000 };
/// What cost is counted in: one TB/s of memory bandwidth.
const COST_UNIT: f64 = 1e12;

/// What a group is expected to do while all its sequences decode.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Tokens of the whole group per second.
    pub tokens_per_second: f64,
    /// Rows of one step; of a pipeline, on average, as many steps are under way as it has stages.
    pub rows: f64,
    /// Experts of one layer that a step touches on the largest shard.
    pub touched: f64,
    /// Weights and cache that the largest shard reads in a step, in bytes.
    pub bytes: f64,
    /// Operations of the largest shard in a step.
    pub flops: f64,
    /// Peers to which one row goes in one layer.
    pub peers: f64,
    /// Seconds of a step for reading or computing, whichever is longer.
    pub local: f64,
    /// Seconds of a step for exchange.
    pub exchange: f64,
    /// The slowest device of the group.
    pub device: Speed,
}

/// How good a layout is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    /// `None` when a device's speed is unknown.
    pub(super) prediction: Option<Prediction>,
    /// Tokens per second for each TB/s of memory bandwidth that the group takes.
    pub(super) per_cost: f64,
}

impl Score {
    /// Rates `devices`: the speed of each sort and how many shards have it.
    pub(super) fn of(shape: &ModelShape, spec: &Validated, load: ShardLoad, devices: &[(Option<Speed>, u64)]) -> Self {
        let known = !devices.is_empty() && devices.iter().all(|(speed, _)| speed.is_some());
        let speeds = devices.iter().map(|(speed, count)| (speed.unwrap_or(NOMINAL), *count));
        let slowest = speeds.clone().map(|(speed, _)| speed).min_by_key(|speed| speed.bandwidth).unwrap_or(NOMINAL);
        let bandwidth: f64 = speeds.map(|(speed, count)| speed.bandwidth as f64 * count as f64).sum();
        let predicted = Prediction::of(shape, spec, load, slowest);
        let per_cost = predicted.tokens_per_second / (bandwidth / COST_UNIT).max(f64::MIN_POSITIVE);
        Self { prediction: known.then_some(predicted), per_cost }
    }

    /// Known before unknown, then by cost.
    pub(super) fn better_than(&self, other: &Self, times: f64) -> bool {
        match (&self.prediction, &other.prediction) {
            (Some(_), None) => true,
            (None, Some(_)) => false,
            _ => self.per_cost >= other.per_cost * times,
        }
    }
}

impl Prediction {
    /// One step of `spec.max_concurrent_sequences` rows on shards like the largest, all on `device`.
    #[must_use]
    pub fn of(shape: &ModelShape, spec: &Validated, load: ShardLoad, device: Speed) -> Self {
        match load.strategy {
            Strategy::Experts => Self::of_experts(shape, spec, load, device),
            Strategy::Pipeline => Self::of_pipeline(shape, spec, load, device),
        }
    }

    /// The rows are divided into as many steps as there are stages, each in another stage: a token needs every stage once.
    fn of_pipeline(shape: &ModelShape, spec: &Validated, load: ShardLoad, device: Speed) -> Self {
        let sizes = Sizes::of(shape);
        let (all_rows, stages) = (f64::from(spec.max_concurrent_sequences), load.shards as f64);
        let rows = all_rows / stages.min(all_rows).max(1.0);
        let (all, chosen, moe) = (sizes.experts as f64, sizes.chosen as f64, load.moe_layers(&sizes) as f64);
        let touched = all * (1.0 - (1.0 - chosen / all).powf(rows));
        let cached = rows * f64::from(spec.context_tokens) / 2.0 * (load.layers * sizes.kv * kv_bytes(spec)) as f64;
        let (dense, expert) = (bytes::dense(shape, &sizes, load) as f64, shape.expert_bytes as f64);
        let bytes = dense + moe * touched * expert + cached;
        let dense_weights = dense * 32.0 / dense_bytes_of_32(shape.weights) as f64;
        let expert_weights = expert * 32.0 / bytes_of_32(shape.weights) as f64;
        let flops = 2.0 * rows * (dense_weights + chosen * moe * expert_weights);
        let (peers, exchange) = if stages > 1.0 {
            (1.0, rows * 4.0 * sizes.hidden as f64 / NETWORK_BYTES + EXCHANGE_SECONDS / 2.0)
        } else {
            (0.0, 0.0)
        };
        let local = (bytes / device.bandwidth.max(1) as f64).max(flops / device.flops.max(1) as f64);
        let tokens_per_second = all_rows / (stages * (local + exchange));
        Self { tokens_per_second, rows, touched, bytes, flops, peers, local, exchange, device }
    }

    fn of_experts(shape: &ModelShape, spec: &Validated, load: ShardLoad, device: Speed) -> Self {
        let sizes = Sizes::of(shape);
        let rows = f64::from(spec.max_concurrent_sequences);
        let own = own_sequences(spec, load) as f64;
        let (all, chosen) = (sizes.experts as f64, sizes.chosen as f64);
        let (owned, moe) = (load.experts as f64, sizes.moe_layers as f64);
        let touched = owned * (1.0 - (1.0 - chosen / all).powf(rows));
        let cached = own * f64::from(spec.context_tokens) / 2.0 * (sizes.layers * sizes.kv * kv_bytes(spec)) as f64;
        let dense = shape.dense_bytes as f64;
        let expert = shape.expert_bytes as f64;
        let bytes = dense + moe * touched * expert + cached;
        let dense_weights = dense * 32.0 / dense_bytes_of_32(shape.weights) as f64;
        let expert_weights = expert * 32.0 / bytes_of_32(shape.weights) as f64;
        let flops = 2.0 * (own * dense_weights + rows * chosen * owned / all * moe * expert_weights);
        let others = (load.shards.saturating_sub(1)) as f64;
        let peers = others * (1.0 - (1.0 - owned / all).powf(chosen));
        let sent = own * peers * 2.0 * 4.0 * sizes.hidden as f64;
        let exchange = if others > 0.0 { moe * (sent / NETWORK_BYTES + EXCHANGE_SECONDS) } else { 0.0 };
        let local = (bytes / device.bandwidth.max(1) as f64).max(flops / device.flops.max(1) as f64);
        let tokens_per_second = rows / (local + exchange);
        Self { tokens_per_second, rows, touched, bytes, flops, peers, local, exchange, device }
    }
}

/// A CPU shard is as fast as the cores that its pod may use.
pub(super) fn of_cpu(spec: &Validated) -> Speed {
    let resources = &spec.pod.resources;
    let asked = resources.limits.get("cpu").or_else(|| resources.requests.get("cpu"));
    let millis = u128::from(asked.and_then(quantity::millis).unwrap_or(1000).max(1));
    let part = |rate: u64| u64::try_from(u128::from(rate) * millis / 1000).unwrap_or(u64::MAX).max(1);
    Speed { bandwidth: part(CORE_BANDWIDTH), flops: part(CORE_FLOPS) }
}

/// What is assumed where there is no node to look at: a CPU is known, a device is not.
pub(super) fn unseen(spec: &Validated) -> Option<Speed> {
    (spec.device.backend == Backend::CPU).then(|| of_cpu(spec))
}

#[cfg(test)]
mod tests;
