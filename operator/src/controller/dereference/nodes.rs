//! The nodes: what each could hold, and which are lost.
//!
//! A node is lost when the control plane says that its pods shall leave because it cannot be reached (the NoExecute
//! taint, which the control plane holds back while it cannot tell the nodes from its own network), or when it was there
//! and is deleted. A node that was never seen is not lost: it may be newer than our watch.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;

use crate::inventory::{Catalogue, Inventory, NodeCapacity};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NO_EXECUTE: &str = "NoExecute";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    catalogue: Catalogue,
    known: BTreeMap<String, NodeCapacity>,
    listing: BTreeMap<String, NodeCapacity>,
    gone: BTreeSet<String>,
}

impl Nodes {
    /// None yet; their GPUs are looked up in `catalogue`.
    pub(super) fn new(catalogue: Catalogue) -> Self {
        Self { catalogue, ..Self::default() }
    }

    /// Takes in what a watch says; returns the nodes of which something that matters has changed.
    pub(super) fn take(&mut self, event: Event<Node>) -> BTreeSet<String> {
        match event {
            Event::Apply(node) => self.put(NodeCapacity::of(&node, &self.catalogue)).into_iter().collect(),
            Event::Delete(node) => self.remove(node.metadata.name.unwrap_or_default()).into_iter().collect(),
            Event::Init => {
                self.listing.clear();
                BTreeSet::new()
            }
            Event::InitApply(node) => {
                let capacity = NodeCapacity::of(&node, &self.catalogue);
                self.listing.insert(capacity.name.clone(), capacity);
                BTreeSet::new()
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let missing: Vec<String> =
                    self.known.keys().filter(|name| !listed.contains_key(*name)).cloned().collect();
                let removed: Vec<String> = missing.into_iter().filter_map(|name| self.remove(name)).collect();
                let changed = listed.into_values().filter_map(|capacity| self.put(capacity));
                removed.into_iter().chain(changed.collect::<Vec<_>>()).collect()
            }
        }
    }

    /// Whether what runs on `name` is lost.
    pub(super) fn lost(&self, name: &str) -> bool {
        let unreachable = |capacity: &NodeCapacity| {
            capacity.taints.iter().any(|(key, _, effect)| key == UNREACHABLE && effect == NO_EXECUTE)
        };
        self.gone.contains(name) || self.known.get(name).is_some_and(unreachable)
    }

    /// Forgets the deleted nodes that `needed` does not name: nothing of ours was on them.
    pub(super) fn forget_gone(&mut self, needed: impl Fn(&str) -> bool) {
        self.gone.retain(|name| needed(name));
    }

    /// All nodes, in order of name.
    pub(super) fn inventory(&self) -> Inventory {
        Inventory::Nodes(self.known.values().cloned().collect())
    }

    fn put(&mut self, capacity: NodeCapacity) -> Option<String> {
        let name = capacity.name.clone();
        let back = self.gone.remove(&name);
        let same = self.known.get(&name) == Some(&capacity);
        self.known.insert(name.clone(), capacity);
        (back || !same).then_some(name)
    }

    fn remove(&mut self, name: String) -> Option<String> {
        self.known.remove(&name)?;
        self.gone.insert(name.clone());
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, taints: &Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).unwrap()
    }

    fn silent(effect: &str) -> Value {
        json!([{"key": UNREACHABLE, "effect": effect}])
    }

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn a_node_is_lost_while_its_pods_are_told_to_leave_it_because_it_cannot_be_reached() {
        let mut nodes = Nodes::default();
        assert_eq!(nodes.take(Event::Apply(node("a", &json!([])))), names(["a"]));
        assert_eq!(nodes.take(Event::Apply(node("a", &json!([])))), names([]));
        let shown = ["NoSchedule", "NoExecute"].map(|effect| {
            nodes.take(Event::Apply(node("a", &silent(effect))));
            nodes.lost("a")
        });
        assert_eq!(shown, [false, true]);
        assert_eq!(nodes.take(Event::Apply(node("a", &json!([])))), names(["a"]));
        assert!(!nodes.lost("a"));
    }

    #[test]
    fn a_node_that_was_there_and_is_deleted_is_lost_and_one_that_was_never_seen_is_not() {
        let mut nodes = Nodes::default();
        for name in ["a", "b", "c"] {
            nodes.take(Event::Apply(node(name, &json!([]))));
        }
        assert_eq!(nodes.take(Event::Delete(node("a", &json!([])))), names(["a"]));
        nodes.take(Event::Init);
        nodes.take(Event::InitApply(node("c", &silent("NoExecute"))));
        nodes.take(Event::InitApply(node("d", &json!([]))));
        assert_eq!(nodes.take(Event::InitDone), names(["b", "c", "d"]));
        let lost: Vec<bool> = ["a", "b", "c", "d", "new"].map(|name| nodes.lost(name)).into();
        assert_eq!(lost, [true, true, true, false, false]);
        nodes.forget_gone(|name| name == "b");
        assert_eq!((nodes.lost("a"), nodes.lost("b")), (false, true));
        assert_eq!(nodes.take(Event::Apply(node("b", &json!([])))), names(["b"]));
        assert!(!nodes.lost("b"), "it is back");
    }
}
