//! What nodes could hold when empty: the planner's picture of a cluster or of this machine.
//!
//! Never counts free capacity: pods of others are unknown.

mod machine;
pub mod quantity;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

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
    /// Allocatable extended resources (name with a `/`) by count.
    pub devices: BTreeMap<String, u64>,
    /// GPU product, from the node's labels.
    pub gpu_product: Option<String>,
    /// Memory of one GPU in bytes, from the node's labels or the catalogue.
    pub gpu_memory_bytes: Option<u64>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints that keep pods away, as (key, value, effect).
    pub taints: Vec<(String, String, String)>,
    /// Cordoned.
    pub unschedulable: bool,
}

impl From<&Node> for NodeCapacity {
    fn from(node: &Node) -> Self {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
        let spec = node.spec.clone().unwrap_or_default();
        let whole = |key: &str| allocatable.get(key).and_then(quantity::units).unwrap_or(0);
        let devices = allocatable.iter().filter(|(key, _)| key.contains('/'));
        let taints = spec.taints.unwrap_or_default().into_iter();
        let gpu_product = labels.get("nvidia.com/gpu.product").cloned();
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            memory_bytes: whole("memory"),
            cpu_millis: allocatable.get("cpu").and_then(quantity::millis).unwrap_or(0),
            devices: devices.filter_map(|(key, amount)| Some((key.clone(), quantity::units(amount)?))).collect(),
            gpu_memory_bytes: gpu_memory(&labels),
            gpu_product,
            taints: taints.map(|taint| (taint.key, taint.value.unwrap_or_default(), taint.effect)).collect(),
            labels,
            unschedulable: spec.unschedulable.unwrap_or(false),
        }
    }
}

/// The label of GPU feature discovery counts MiB.
fn gpu_memory(labels: &BTreeMap<String, String>) -> Option<u64> {
    let label = labels.get("nvidia.com/gpu.memory").and_then(|text| text.parse::<u64>().ok());
    let product = labels.get("nvidia.com/gpu.product");
    label.and_then(|mib| mib.checked_mul(1 << 20)).or_else(|| product.and_then(|name| catalogue(name)))
}

/// Memory of known products, by the words in their names; the most specific word first.
fn catalogue(product: &str) -> Option<u64> {
    const GIB: u64 = 1 << 30;
    const PRODUCTS: [(&str, u64); 15] = [
        ("B200", 180),
        ("H200", 141),
        ("H20", 96),
        ("H100-NVL", 94),
        ("GH200", 96),
        ("H100", 80),
        ("A100-SXM4-40GB", 40),
        ("A100-PCIE-40GB", 40),
        ("A100", 80),
        ("L40S", 48),
        ("L40", 48),
        ("A40", 48),
        ("L4", 24),
        ("A10", 24),
        ("T4", 16),
    ];
    PRODUCTS.iter().find(|(word, _)| product.contains(word)).map(|(_, gib)| gib * GIB)
}
