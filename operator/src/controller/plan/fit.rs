//! How many shards empty nodes can hold.
//!
//! Never counts free capacity: pods of others are unknown.

use super::ShardBytes;
use crate::controller::validate::Validated;
use crate::crd::{Backend, Toleration};
use crate::inventory::{NodeCapacity, quantity};

/// The nodes that may run shards of this model at all: labels, taints, cordons.
pub(super) fn eligible<'a>(nodes: &'a [NodeCapacity], spec: &Validated) -> Vec<&'a NodeCapacity> {
    let selected = |node: &&NodeCapacity| {
        let wanted = &spec.pod.node_selector;
        !node.unschedulable && wanted.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    };
    let borne = |node: &&NodeCapacity| {
        let repels = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
        let taints = node.taints.iter().filter(|(_, _, effect)| repels(effect));
        taints.clone().all(|taint| spec.pod.tolerations.iter().any(|toleration| bears(toleration, taint)))
    };
    nodes.iter().filter(selected).filter(borne).collect()
}

fn bears(toleration: &Toleration, (key, value, effect): &(String, String, String)) -> bool {
    let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value_fits = exists || toleration.value.as_deref().unwrap_or_default() == value;
    same(&toleration.key, key) && same(&toleration.effect, effect) && value_fits && (exists || toleration.key.is_some())
}

/// Shards that `node` could hold when empty.
pub(super) fn capacity(node: &NodeCapacity, bytes: &ShardBytes, spec: &Validated) -> u64 {
    let by_memory = node.memory_bytes / host_request(bytes, spec).max(1);
    let by_cpu = node.cpu_millis / cpu_request(spec).max(1);
    by_memory.min(by_cpu).min(devices(node, bytes, spec))
}

/// Devices of `node` that could hold a shard; a device of unknown size is given the benefit of the doubt.
fn devices(node: &NodeCapacity, bytes: &ShardBytes, spec: &Validated) -> u64 {
    match &spec.device.resource {
        None if spec.device.backend == Backend::CPU => u64::MAX,
        None => 1,
        Some(_) if node.gpu_memory_bytes.is_some_and(|memory| memory < bytes.device()) => 0,
        Some(resource) => node.devices.get(resource).copied().unwrap_or(0),
    }
}

/// What a shard's pod asks of the host's memory.
pub(super) fn host_request(bytes: &ShardBytes, spec: &Validated) -> u64 {
    let resources = &spec.pod.resources;
    let asked = resources.requests.get("memory").or_else(|| resources.limits.get("memory"));
    asked.and_then(quantity::units).unwrap_or_else(|| bytes.host())
}

/// The limit that kills a shard which needs more; `None`: the plan sets it.
pub(super) fn host_limit(spec: &Validated) -> Option<u64> {
    let resources = &spec.pod.resources;
    let asked = resources.limits.get("memory").or_else(|| resources.requests.get("memory"));
    asked.and_then(quantity::units)
}

fn cpu_request(spec: &Validated) -> u64 {
    let resources = &spec.pod.resources;
    let asked = resources.requests.get("cpu").or_else(|| resources.limits.get("cpu"));
    asked.and_then(quantity::millis).unwrap_or(1000)
}

/// The memory that holds the tensors of one shard on `node`, and how many such memories it has.
pub(super) fn memories(node: &NodeCapacity, spec: &Validated) -> Option<(u64, u64)> {
    if spec.device.backend == Backend::CPU {
        return Some((1, node.memory_bytes));
    }
    let resource = spec.device.resource.as_ref()?;
    let count = node.devices.get(resource).copied().filter(|count| *count > 0)?;
    Some((count, node.gpu_memory_bytes?))
}
