//! How many equal shards empty nodes can hold.
//!
//! Never counts free capacity: pods of others are unknown.

use std::collections::{BTreeMap, BTreeSet};

use super::{ShardBytes, speed, words};
use crate::controller::validate::Validated;
use crate::crd::{Backend, Toleration};
use crate::inventory::{NodeCapacity, Speed, quantity};

/// The product of nodes whose devices carry no label.
pub(super) const UNLABELLED: &str = "unlabelled";

/// The nodes that may run shards of this model at all: labels, taints, cordons.
pub(super) fn eligible<'a>(nodes: &'a [NodeCapacity], spec: &Validated) -> Vec<&'a NodeCapacity> {
    nodes.iter().filter(|node| turned_away(node, spec).is_none()).collect()
}

/// Why a node may not run shards of this model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Away {
    Cordoned,
    Label,
    Taint,
}

pub(super) fn turned_away(node: &NodeCapacity, spec: &Validated) -> Option<Away> {
    let repels = |effect: &str| effect == "NoSchedule" || effect == "NoExecute";
    let mut taints = node.taints.iter().filter(|(_, _, effect)| repels(effect));
    if node.unschedulable {
        Some(Away::Cordoned)
    } else if spec.pod.node_selector.iter().any(|(key, value)| node.labels.get(key) != Some(value)) {
        Some(Away::Label)
    } else if taints.any(|taint| !spec.pod.tolerations.iter().any(|toleration| bears(toleration, taint))) {
        Some(Away::Taint)
    } else {
        None
    }
}

fn bears(toleration: &Toleration, (key, value, effect): &(String, String, String)) -> bool {
    let same = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value_fits = exists || toleration.value.as_deref().unwrap_or_default() == value;
    same(&toleration.key, key) && same(&toleration.effect, effect) && value_fits && (exists || toleration.key.is_some())
}

/// What one shard's pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    host: u64,
    cpu_millis: u64,
    device: u64,
}

impl Ask {
    pub(super) fn of(bytes: &ShardBytes, spec: &Validated) -> Self {
        let resources = &spec.pod.resources;
        let memory = resources.requests.get("memory").or_else(|| resources.limits.get("memory"));
        let cpu = resources.requests.get("cpu").or_else(|| resources.limits.get("cpu"));
        Self {
            host: memory.and_then(quantity::units).unwrap_or_else(|| bytes.host()).max(1),
            cpu_millis: cpu.and_then(quantity::millis).unwrap_or(1000).max(1),
            device: bytes.device(),
        }
    }
}

/// Why no node holds a shard though its bytes might fit: its pod asks for more.
pub(super) fn too_much_asked(nodes: &[&NodeCapacity], spec: &Validated, bytes: &ShardBytes) -> Option<String> {
    let asked = Ask::of(bytes, spec).host;
    let largest = nodes.iter().map(|node| node.memory_bytes).max()?;
    let (words, most) = (words::size(asked), words::size(largest));
    (asked > bytes.host() && asked > largest)
        .then(|| format!("a shard asks for {words} of memory; the largest node has {most}"))
}

/// The limit that kills a shard which needs more; `None`: the plan sets it.
pub(super) fn host_limit(spec: &Validated) -> Option<u64> {
    let resources = &spec.pod.resources;
    let asked = resources.limits.get("memory").or_else(|| resources.requests.get("memory"));
    asked.and_then(quantity::units)
}

/// Nodes that are alike in everything that decides how many shards they hold, and how fast.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    /// Bandwidth, then operations, of one shard's device.
    pub(super) speed: Option<(u64, u64)>,
    pub(super) product: Option<String>,
    memory_bytes: u64,
    cpu_millis: u64,
    /// Devices that a shard may take; `u64::MAX` where it takes none.
    units: u64,
    /// A device of unknown size is given the benefit of the doubt.
    unit_bytes: Option<u64>,
}

impl Kind {
    fn of(node: &NodeCapacity, spec: &Validated) -> Self {
        let mut kind = Self {
            speed: None,
            product: None,
            memory_bytes: node.memory_bytes,
            cpu_millis: node.cpu_millis,
            units: 1,
            unit_bytes: None,
        };
        match &spec.device.resource {
            None if spec.device.backend == Backend::CPU => {
                let Speed { bandwidth, flops } = speed::of_cpu(spec);
                Self { units: u64::MAX, speed: Some((bandwidth, flops)), ..kind }
            }
            None => kind,
            Some(resource) => {
                let device = node.devices.get(resource).cloned().unwrap_or_default();
                kind.units = device.count;
                kind.unit_bytes = device.memory_bytes;
                kind.speed = device.speed.map(|Speed { bandwidth, flops }| (bandwidth, flops));
                kind.product = device.product;
                kind
            }
        }
    }

    /// Shards that one such node could hold when empty.
    pub(super) fn capacity(&self, ask: &Ask) -> u64 {
        if self.unit_bytes.is_some_and(|memory| memory < ask.device) {
            return 0;
        }
        (self.memory_bytes / ask.host).min(self.cpu_millis / ask.cpu_millis).min(self.units)
    }

    /// The memory that holds the tensors of one shard, and how many such memories a node has.
    pub(super) fn memories(&self) -> Option<(u64, u64)> {
        if self.units == u64::MAX {
            return Some((1, self.memory_bytes));
        }
        Some((self.units, self.unit_bytes?)).filter(|(units, _)| *units > 0)
    }
}

/// Nodes among which a group may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pool {
    /// The one product of its devices; `None`: any.
    pub(super) product: Option<String>,
    /// How many nodes there are of each kind, the fastest last.
    pub(super) kinds: BTreeMap<Kind, u64>,
}

impl Pool {
    /// All nodes.
    pub(super) fn all(nodes: &[&NodeCapacity], spec: &Validated) -> Self {
        let mut kinds = BTreeMap::new();
        for node in nodes {
            *kinds.entry(Kind::of(node, spec)).or_default() += 1;
        }
        Self { product: None, kinds }
    }

    /// One pool for each product, in order of name, then all nodes; just all nodes when there are not several products.
    pub(super) fn split(self) -> Vec<Self> {
        let offered = self.kinds.keys().filter(|kind| kind.units > 0);
        let products: BTreeSet<_> = offered.map(|kind| kind.product.clone()).collect();
        if products.len() < 2 {
            return vec![self];
        }
        let of = |product: &Option<String>| {
            let kinds = self.kinds.iter().filter(|(kind, _)| kind.product == *product);
            let name = product.clone().unwrap_or_else(|| UNLABELLED.to_owned());
            Self { product: Some(name), kinds: kinds.map(|(kind, count)| (kind.clone(), *count)).collect() }
        };
        let mut pools: Vec<_> = products.iter().map(of).collect();
        pools.push(self);
        pools
    }

    /// Equal shards that the pool holds when empty.
    pub(super) fn room(&self, ask: &Ask) -> u64 {
        let of = |(kind, nodes): (&Kind, &u64)| kind.capacity(ask).saturating_mul(*nodes);
        self.kinds.iter().map(of).fold(0, u64::saturating_add)
    }

    /// The devices that `shards` shards take when the fastest are filled first: speed and number of each sort.
    pub(super) fn fastest(&self, ask: &Ask, shards: u64) -> Vec<(Option<Speed>, u64)> {
        let mut left = shards;
        let mut taken = Vec::new();
        for (kind, nodes) in self.kinds.iter().rev() {
            let here = kind.capacity(ask).saturating_mul(*nodes).min(left);
            if here > 0 {
                let speed = kind.speed.map(|(bandwidth, flops)| Speed { bandwidth, flops });
                taken.push((speed, here));
                left -= here;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_bears_the_taints_that_kubernetes_says_it_does() {
        let taint = ("gpu".to_owned(), "yes".to_owned(), "NoSchedule".to_owned());
        let cases = [
            (serde_json::json!({"key": "gpu", "value": "yes"}), true),
            (serde_json::json!({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}), true),
            (serde_json::json!({"key": "gpu", "operator": "Exists"}), true),
            (serde_json::json!({"operator": "Exists"}), true),
            (serde_json::json!({"key": "gpu"}), false),
            (serde_json::json!({"key": "gpu", "value": "no"}), false),
            (serde_json::json!({"key": "other", "value": "yes"}), false),
            (serde_json::json!({"key": "other", "operator": "Exists"}), false),
            (serde_json::json!({"value": "yes"}), false),
            (serde_json::json!({"key": "gpu", "value": "yes", "effect": "NoExecute"}), false),
            (serde_json::json!({"operator": "Exists", "effect": "NoExecute"}), false),
        ];
        for (toleration, expected) in cases {
            let toleration: Toleration = serde_json::from_value(toleration).unwrap();
            assert_eq!(bears(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
