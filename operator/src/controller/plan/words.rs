//! The plan in words: arithmetic, reasons, and its form in the status.

use std::collections::{BTreeMap, BTreeSet};

use super::bytes::{ShardLoad, Sizes, TOKEN_BUDGET, own_sequences};
use super::fit::Away;
use super::speed::{EXCHANGE_SECONDS, NETWORK_BYTES, Score};
use super::{Layout, Plan, Prediction, ShardBytes};
use crate::controller::validate::{Device, Validated};
use crate::crd::{LayoutStatus, ModelShape, PlanStatus, RejectedLayout, Strategy};
use crate::inventory::NodeCapacity;

/// Bytes in GiB with two decimals, or in MiB below one GiB.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    let (unit, name) = if bytes >= 1 << 30 { (1_u64 << 30, "GiB") } else { (1 << 20, "MiB") };
    let hundredths = (u128::from(bytes) * 100).div_ceil(u128::from(unit));
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

/// What a shard runs on, e.g. `CPU` or `nvidia.com/gpu`.
pub(super) fn device(device: &Device) -> String {
    device.resource.clone().unwrap_or_else(|| format!("{:?}", device.backend))
}

/// As [`device`], with the product where nodes offer several.
pub(super) fn device_of(device: &Device, product: Option<&str>) -> String {
    let name = self::device(device);
    product.map_or_else(|| name.clone(), |product| format!("{name} {product}"))
}

/// One line a term, and the sum.
pub(super) fn arithmetic(shape: &ModelShape, spec: &Validated, load: ShardLoad, bytes: &ShardBytes) -> Vec<String> {
    let sequences = own_sequences(spec, load);
    let cached = if bytes.on_device { "BF16" } else { "F32" };
    let sizes = Sizes::of(shape);
    let pipeline = load.strategy == Strategy::Pipeline;
    let dense = if pipeline {
        format!("dense part of {} of {} layers, and a table, at most: {}", load.layers, shape.layers, size(bytes.dense))
    } else {
        format!("dense part, on every shard: {}", size(bytes.dense))
    };
    let receive = if pipeline {
        let steps = if load.shards > 1 { load.shards + 2 } else { 0 };
        format!("rows in, out and of the steps under way: {steps} × {TOKEN_BUDGET} rows = {}", size(bytes.receive))
    } else {
        format!(
            "receive buffers: {} peers × {TOKEN_BUDGET} rows with {} sums each, and one frame = {}",
            load.shards - 1,
            shape.experts_per_token,
            size(bytes.receive)
        )
    };
    let mut lines = vec![
        dense,
        format!(
            "experts: {} layers × {} of {} × {} {:?} bytes = {}",
            load.moe_layers(&sizes),
            load.experts,
            shape.experts,
            shape.expert_bytes,
            shape.weights,
            size(bytes.experts)
        ),
        format!(
            "KV: {sequences} sequences × {} tokens × {} layers × {} {cached} = {}",
            spec.context_tokens,
            load.layers,
            shape.kv_elements,
            size(bytes.kv)
        ),
        receive,
        format!("activations: {TOKEN_BUDGET} rows and {sequences} rows of logits = {}", size(bytes.activations)),
        format!("margin: {}", size(bytes.margin)),
        format!("sum: {} bytes = {} a shard", bytes.total(), size(bytes.total())),
    ];
    if bytes.on_device {
        lines.push(format!("host memory: {} a shard", size(bytes.host())));
    }
    lines
}

/// How a step's time comes about, and the tokens that follow.
pub(super) fn speed(
    shape: &ModelShape,
    spec: &Validated,
    load: ShardLoad,
    prediction: Option<&Prediction>,
) -> Vec<String> {
    let Some(found) = prediction else {
        let device = device(&spec.device);
        return vec![format!("decoding: not predicted; a {device} of unknown speed is not in the GPU catalogue")];
    };
    let rows = count(found.rows);
    let (read, bandwidth) = (metric(found.bytes, "B"), metric(found.device.bandwidth as f64, "B/s"));
    let (work, peak) = (metric(found.flops, "FLOP"), metric(found.device.flops as f64, "FLOP/s"));
    let mut lines = vec![format!(
        "a step of {rows} rows reads {:.2} of {} experts a layer: {read} ÷ {bandwidth}, {work} ÷ {peak} = {}",
        found.touched,
        load.experts,
        time(found.local),
    )];
    let step = time(found.local + found.exchange);
    if load.strategy == Strategy::Pipeline {
        lines.push(format!(
            "a hop: {rows} rows × {} bytes ÷ {} + {} = {}",
            4 * shape.hidden_size,
            metric(NETWORK_BYTES, "B/s"),
            time(EXCHANGE_SECONDS / 2.0),
            time(found.exchange),
        ));
        let (all, stages) = (spec.max_concurrent_sequences, load.shards);
        lines.push(format!(
            "decoding: {all} rows ÷ ({stages} stages × {step}) = {} tokens/s a group, predicted",
            rate(found)
        ));
        return lines;
    }
    if load.shards > 1 {
        let own = own_sequences(spec, load);
        lines.push(format!(
            "exchange: {} layers × ({own} rows × {:.2} peers × {} bytes ÷ {} + {}) = {}",
            shape.moe_layers,
            found.peers,
            8 * shape.hidden_size,
            metric(NETWORK_BYTES, "B/s"),
            time(EXCHANGE_SECONDS),
            time(found.exchange),
        ));
    }
    lines.push(format!("decoding: {rows} rows ÷ {step} = {} tokens/s a group, predicted", rate(found)));
    lines
}

/// A number of rows; a fraction is an average.
fn count(rows: f64) -> String {
    if rows.fract() == 0.0 { rows.to_string() } else { format!("{rows:.1}") }
}

/// Two decimals of the largest of the units M, G and T that leaves at least 1.
fn metric(amount: f64, unit: &str) -> String {
    let prefixes = [(1e12, "T"), (1e9, "G"), (1e6, "M")];
    let (size, prefix) = prefixes.into_iter().find(|(size, _)| amount >= *size).unwrap_or((1e6, "M"));
    format!("{:.2} {prefix}{unit}", amount / size)
}

/// Seconds in ms with two decimals.
fn time(seconds: f64) -> String {
    format!("{:.2} ms", seconds * 1e3)
}

/// Tokens per second with at most one decimal.
fn rate(prediction: &Prediction) -> String {
    let tokens = prediction.tokens_per_second;
    if tokens < 100.0 { format!("{tokens:.1}") } else { format!("{tokens:.0}") }
}

/// `, predicted 123 tokens/s a group`.
pub(super) fn tokens(prediction: &Prediction) -> String {
    format!(", predicted {} tokens/s a group", rate(prediction))
}

/// Why a layout that fits was not chosen.
pub(super) fn worse(score: &Score, chosen: &Score) -> String {
    let Some(prediction) = &score.prediction else {
        return "fits; its speed is unknown".to_owned();
    };
    let times = score.per_cost / chosen.per_cost;
    format!("fits{}: {times:.2} times the tokens for its cost", tokens(prediction))
}

/// `needs 3 × 80.00 GiB or 5 × 48.00 GiB; the largest node has 2 × 80.00 GiB`; `None` where no memory is known.
///
/// `memories` are (devices of a node, memory of each); `fewest(memory)` is the smallest number of shards of which each
/// fits in `memory`.
pub(super) fn needs(memories: &[(u64, u64)], fewest: impl Fn(u64) -> Option<u32>) -> Option<String> {
    let size_of = |(count, memory): &&(u64, u64)| (u128::from(*count) * u128::from(*memory), *memory);
    let (count, memory) = memories.iter().max_by_key(size_of)?;
    let sizes: BTreeSet<u64> = memories.iter().map(|(_, memory)| *memory).collect();
    let ways =
        sizes.iter().rev().take(3).filter_map(|memory| Some(format!("{} × {}", fewest(*memory)?, size(*memory))));
    let ways: Vec<_> = ways.collect();
    let has = format!("the largest node has {count} × {}", size(*memory));
    Some(if ways.is_empty() {
        format!("no number of shards fits; {has}")
    } else {
        format!("needs {}; {has}", ways.join(" or "))
    })
}

/// Why there is no memory to compare with, and what the nodes offer instead.
pub(super) fn no_device(device: &Device, nodes: &[&NodeCapacity]) -> String {
    let offered = nodes.iter().flat_map(|node| &node.devices).filter(|(_, device)| device.count > 0);
    let offered: BTreeSet<&str> = offered.map(|(name, _)| name.as_str()).take(64).collect();
    let wanted = self::device(device);
    let offered: Vec<&str> = offered.into_iter().filter(|name| *name != wanted).take(4).collect();
    let instead = if offered.is_empty() {
        String::new()
    } else {
        format!("; hardware.resourceName may be one of those that they have: {}", offered.join(", "))
    };
    format!("no node has {wanted} with known memory{instead}")
}

/// Why no node may run a shard.
pub(super) fn no_node(away: impl Iterator<Item = Away>) -> String {
    let mut counts = BTreeMap::new();
    away.for_each(|why| *counts.entry(why).or_insert(0_usize) += 1);
    if counts.is_empty() {
        return "there are no nodes".to_owned();
    }
    let reasons = counts.iter().map(|(why, count)| match why {
        Away::Cordoned => format!("{count} cordoned"),
        Away::Label => format!("{count} without a label of the selector"),
        Away::Taint => format!("{count} with a taint that is not tolerated"),
    });
    let reasons: Vec<_> = reasons.collect();
    format!("no node matches spec.pod.nodeSelector and tolerations: {}", reasons.join(", "))
}

impl Plan {
    /// The form that the status shows.
    #[must_use]
    pub fn to_status(&self) -> PlanStatus {
        let rejected =
            |(layout, reason): &(String, String)| RejectedLayout { layout: cut(layout, 64), reason: cut(reason, 256) };
        PlanStatus {
            summary: cut(&self.summary(), 256),
            layout: self.layout.as_ref().map(Layout::to_status),
            arithmetic: self.arithmetic.iter().map(|line| cut(line, 256)).collect(),
            rejected: self.rejected.iter().take(8).map(rejected).collect(),
            better: self.better.as_ref().map(|line| cut(line, 256)),
        }
    }

    /// One line: the layout, or why there is none.
    #[must_use]
    pub fn summary(&self) -> String {
        match &self.layout {
            Some(layout) if self.verdict.reason.permits_pods() => layout.to_string(),
            Some(layout) => format!("{}: {layout}", self.verdict.reason.as_str()),
            None => self.verdict.reason.as_str().to_owned(),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}", self.shards, self.device)?;
        match &self.bytes {
            Some(bytes) => write!(f, ", {}, {}", self.part(), size(bytes.total())),
            None => f.write_str(", shape unknown"),
        }
    }
}

impl Layout {
    /// Experts of one layer on the largest shard; 0 without a shape.
    #[must_use]
    pub fn experts(&self) -> u32 {
        self.load.map_or(0, |load| u32::try_from(load.experts).unwrap_or(u32::MAX))
    }

    fn part(&self) -> String {
        match self.load {
            Some(ShardLoad { strategy: Strategy::Pipeline, layers, .. }) => format!("{layers} layers each"),
            _ => format!("{} experts each", self.experts()),
        }
    }

    fn to_status(&self) -> LayoutStatus {
        LayoutStatus {
            shards: i32::try_from(self.shards).unwrap_or(i32::MAX),
            device: cut(&self.device, 64),
            experts_per_shard: i32::try_from(self.experts()).unwrap_or(i32::MAX),
            layers_per_shard: self.load.map_or(0, |load| i32::try_from(load.layers).unwrap_or(i32::MAX)),
            predicted_tokens_per_second: self.prediction.as_ref().map_or(0, |found| found.tokens_per_second as i64),
            shard_bytes: self.bytes.as_ref().map_or(0, |bytes| i64::try_from(bytes.total()).unwrap_or(i64::MAX)),
        }
    }
}

/// At most `max` characters, as the CRD bounds them.
fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max - 1).chain(['…']).collect()
}
