//! What nodes could hold when empty: the planner's picture of a cluster or of this machine.
//!
//! Never counts free capacity: pods of others are unknown.

mod accelerator;
pub mod catalogue;
mod machine;
pub mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

pub use self::accelerator::{Accelerator, Speed, label_of};
pub use self::catalogue::Catalogue;
pub use self::machine::this_machine;

/// Nodes that might run shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inventory {
    /// The operator may not read nodes: everything is planned, nothing is compared.
    Unknown,
    /// All nodes, in order of name.
    Nodes(Vec<NodeCapacity>),
}

/// One node, empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCapacity {
    /// Its name.
    pub name: String,
    /// Allocatable memory in bytes.
    pub memory_bytes: u64,
    /// Allocatable CPU in thousandths.
    pub cpu_millis: u64,
    /// Allocatable extended resources (name with a `/`), with what is known of one unit.
    pub devices: BTreeMap<String, Accelerator>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints that keep pods away, as (key, value, effect).
    pub taints: Vec<(String, String, String)>,
    /// Cordoned.
    pub unschedulable: bool,
}

impl NodeCapacity {
    /// Reads a node; what its labels do not say of a device comes from the catalogue.
    #[must_use]
    pub fn of(node: &Node, catalogue: &Catalogue) -> Self {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let whole = |key: &str| allocatable.get(key).and_then(quantity::units).unwrap_or(0);
        let devices = allocatable.iter().filter(|(key, _)| key.contains('/'));
        let device = |(key, amount)| Some((String::clone(key), quantity::units(amount)?));
        let devices = devices.filter_map(device).map(|(key, count)| {
            let accelerator = Accelerator::of((&key, count), &labels, catalogue);
            (key, accelerator)
        });
        let taints = spec.taints.unwrap_or_default().into_iter();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            memory_bytes: whole("memory"),
            cpu_millis: allocatable.get("cpu").and_then(quantity::millis).unwrap_or(0),
            devices: devices.collect(),
            taints: taints.map(|taint| (taint.key, taint.value.unwrap_or_default(), taint.effect)).collect(),
            labels,
            unschedulable: spec.unschedulable.unwrap_or(false),
        }
    }
}
