//! The plan in words: arithmetic, reasons, and its form in the status.

use std::collections::BTreeSet;

use super::bytes::{ShardLoad, TOKEN_BUDGET};
use super::{Layout, Plan, ShardBytes, fit};
use crate::controller::validate::{Device, Validated};
use crate::crd::{LayoutStatus, ModelShape, PlanStatus, RejectedLayout};
use crate::inventory::NodeCapacity;

/// Bytes in GiB with two decimals, or in MiB below one GiB.
#[must_use]
pub(super) fn size(bytes: u64) -> String {
    let (unit, name) = if bytes >= 1 << 30 { (1_u64 << 30, "GiB") } else { (1 << 20, "MiB") };
    let hundredths = (u128::from(bytes) * 100).div_ceil(u128::from(unit));
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

/// What a shard runs on, e.g. `CPU` or `nvidia.com/gpu`.
pub(super) fn device(device: &Device) -> String {
    device.resource.clone().unwrap_or_else(|| format!("{:?}", device.backend))
}

/// One line a term, and the sum.
pub(super) fn arithmetic(shape: &ModelShape, spec: &Validated, load: ShardLoad, bytes: &ShardBytes) -> Vec<String> {
    let sequences = u64::from(spec.max_concurrent_sequences).div_ceil(load.shards);
    let cached = if bytes.on_device { "BF16" } else { "F32" };
    let mut lines = vec![
        format!("dense part, on every shard: {}", size(bytes.dense)),
        format!(
            "experts: {} layers × {} of {} × {} {:?} bytes = {}",
            shape.moe_layers,
            load.experts,
            shape.experts,
            shape.expert_bytes,
            shape.weights,
            size(bytes.experts)
        ),
        format!(
            "KV: {sequences} sequences × {} tokens × {} layers × {} {cached} = {}",
            spec.context_tokens,
            shape.layers,
            shape.kv_elements,
            size(bytes.kv)
        ),
        format!("receive buffers: {} peers × {TOKEN_BUDGET} rows = {}", load.shards - 1, size(bytes.receive)),
        format!("activations: {TOKEN_BUDGET} rows and {sequences} rows of logits = {}", size(bytes.activations)),
        format!("margin: {}", size(bytes.margin)),
        format!("sum: {} bytes = {} a shard", bytes.total(), size(bytes.total())),
    ];
    if bytes.on_device {
        lines.push(format!("host memory: {} a shard", size(bytes.host())));
    }
    lines
}

/// `needs 3 × 80.00 GiB or 5 × 48.00 GiB; the largest node has 2 × 80.00 GiB`.
///
/// `fewest(memory)` is the smallest number of shards of which each fits in `memory`.
pub(super) fn needs(nodes: &[&NodeCapacity], spec: &Validated, fewest: impl Fn(u64) -> Option<u64>) -> String {
    let memories: Vec<_> = nodes.iter().filter_map(|node| fit::memories(node, spec)).collect();
    let Some(largest) =
        memories.iter().max_by_key(|(count, memory)| (u128::from(*count) * u128::from(*memory), *memory))
    else {
        return format!("no node has {} with known memory", device(&spec.device));
    };
    let sizes: BTreeSet<u64> = memories.iter().map(|(_, memory)| *memory).collect();
    let ways =
        sizes.iter().rev().take(3).filter_map(|memory| Some(format!("{} × {}", fewest(*memory)?, size(*memory))));
    let ways: Vec<_> = ways.collect();
    let (count, memory) = largest;
    let has = format!("the largest node has {count} × {}", size(*memory));
    if ways.is_empty() {
        format!("no number of shards fits; {has}")
    } else {
        format!("needs {}; {has}", ways.join(" or "))
    }
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
            Some(bytes) => write!(f, ", {} experts each, {}", self.experts(), size(bytes.total())),
            None => f.write_str(", shape unknown"),
        }
    }
}

impl Layout {
    /// Experts of one layer on the largest shard; 0 without a shape.
    #[must_use]
    pub fn experts(&self) -> u32 {
        let first = self.placement.as_ref().map(|placement| placement.ranges(0));
        first.into_iter().flatten().map(|range| range.end - range.start).sum()
    }

    fn to_status(&self) -> LayoutStatus {
        LayoutStatus {
            shards: i32::try_from(self.shards).unwrap_or(i32::MAX),
            device: cut(&self.device, 64),
            experts_per_shard: i32::try_from(self.experts()).unwrap_or(i32::MAX),
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
