//! An API server with one model, a scheduler, kubelets and a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::super::*;
use super::rules::RESTART_BUDGET;
use crate::controller::recover::later;
use crate::controller::rollout::{LossReason, Shard};

/// What must occur in at least 5 % of all histories.
pub(super) const KINDS: [&str; 29] = [
    "edit",
    "edit in mid-rollout",
    "revert",
    "scale",
    "pause",
    "pause in mid-rollout",
    "budgets changed",
    "accelerator cap",
    "cap waited for",
    "queue waited for",
    "lost: exited",
    "lost: out of memory",
    "lost: evicted",
    "lost: preempted",
    "lost: image pull",
    "lost: node",
    "lost: deleted",
    "pods left on a dead node",
    "slow pull",
    "gated",
    "withdrawn: unschedulable",
    "withdrawn: half made",
    "given up",
    "crash before remembering",
    "crash after remembering",
    "crash between writes",
    "crash before the status",
    "stale view",
    "conflict",
];
/// How long a pod takes to end, in seconds.
const GRACE: u64 = 7;

/// One pod beside what the operator sees of it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) view: Arc<PodView>,
    pub(super) image: String,
    gated: bool,
    node: Option<u8>,
    pulled: Option<Timestamp>,
    pub(super) gone: Option<Timestamp>,
}

impl Machine {
    pub(super) fn set(&mut self, shard: Shard) {
        if self.view.shard != shard {
            Arc::make_mut(&mut self.view).shard = shard;
        }
    }
}

/// What a pass depends on, beside time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight(u64, Turn, Vec<(Option<String>, Shard)>);

/// See the module.
pub(super) struct World {
    pub(super) model: ModelDeployment,
    pub(super) version: u64,
    pub(super) pods: BTreeMap<String, Machine>,
    pub(super) now: Timestamp,
    pub(super) turn: Turn,
    pub(super) quota: Option<usize>,
    pub(super) room: usize,
    pub(super) pull: u64,
    pub(super) gated: bool,
    pub(super) dead: BTreeSet<u8>,
    /// What was to be seen before the last event.
    pub(super) before: Option<(ModelDeployment, u64, Found)>,
    /// When the last pass wanted to be repeated.
    pub(super) wake: Option<Timestamp>,
    /// What the last whole pass left.
    pub(super) left: Option<Sight>,
    /// The highest epoch that each slot ever had while anything of it was left.
    pub(super) highest: BTreeMap<u32, u64>,
    /// When each epoch of a slot was first formed after a loss that counts.
    pub(super) formed: BTreeMap<u32, BTreeMap<u64, Timestamp>>,
    pub(super) seen: BTreeSet<&'static str>,
    pub(super) lines: Vec<String>,
    /// The last pass met a refusal.
    pub(super) refused: bool,
    uid: u64,
}

/// Shards of a group of that image.
pub(super) fn size(image: &str) -> usize {
    if image == "c" { 3 } else { 2 }
}

impl World {
    pub(super) fn new() -> Self {
        let model = serde_json::from_value(json!({
            "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "n", "uid": "u", "generation": 1},
            "spec": {"model": {"source": "file:///m"}, "replicas": 2, "sharding": {"shards": 2}, "pod": {"image": "a"},
                "recovery": {"restartBudget": RESTART_BUDGET}},
        }));
        Self {
            model: model.unwrap(),
            version: 1,
            pods: BTreeMap::new(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            turn: Turn::May,
            quota: None,
            room: usize::MAX,
            pull: 0,
            gated: false,
            dead: BTreeSet::new(),
            before: None,
            wake: None,
            left: None,
            highest: BTreeMap::new(),
            formed: BTreeMap::new(),
            seen: BTreeSet::new(),
            lines: Vec::new(),
            refused: false,
            uid: 0,
        }
    }

    pub(super) fn saw(&mut self, kind: &'static str) {
        self.seen.insert(kind);
    }

    pub(super) fn status(&self) -> ModelDeploymentStatus {
        self.model.status.clone().unwrap_or_default()
    }

    pub(super) fn found(&self) -> Found {
        let pods = self.pods.values().map(|machine| Arc::clone(&machine.view)).collect();
        Found { pods, ..Found::default() }
    }

    pub(super) fn sight(&self) -> Sight {
        let pods = self.pods.values().map(|machine| (machine.view.meta.uid.clone(), machine.view.shard));
        Sight(self.version, self.turn, pods.collect())
    }

    /// A change of the spec by its user.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut crate::crd::ModelDeploymentSpec)) -> bool {
        let before = self.model.spec.clone();
        change(&mut self.model.spec);
        let changed = self.model.spec != before;
        if changed {
            *self.model.metadata.generation.as_mut().unwrap() += 1;
            self.version += 1;
        }
        changed
    }

    /// The API server makes a pod.
    pub(super) fn admit(&mut self, pod: k8s_openapi::api::core::v1::Pod) -> PodView {
        let image = pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
        let mut view = PodView::from(pod);
        self.uid += 1;
        view.meta.uid = Some(self.uid.to_string());
        view.created = Some(self.now);
        let gated = self.gated;
        let machine = Machine { view: Arc::new(view.clone()), image, gated, node: None, pulled: None, gone: None };
        self.pods.insert(view.meta.name.clone().unwrap(), machine);
        view
    }

    /// The API server tells a pod to end; one that runs nowhere is gone in the next moment.
    pub(super) fn end(&mut self, name: &str) {
        let Some(machine) = self.pods.get_mut(name).filter(|machine| !machine.view.shard.is_ending()) else { return };
        let unreachable = machine.node.is_some_and(|node| self.dead.contains(&node));
        machine.set(if unreachable { Shard::Stranded } else { Shard::Terminating });
        let grace = if machine.node.is_some() { GRACE } else { 0 };
        machine.gone = Some(later(self.now, Duration::from_secs(grace)));
    }

    /// What scheduler and kubelets do at this moment.
    pub(super) fn live(&mut self) {
        let (now, dead) = (self.now, self.dead.clone());
        self.pods.retain(|_, pod| {
            pod.node.is_some_and(|node| dead.contains(&node)) || pod.gone.is_none_or(|gone| gone > now)
        });
        let mut placed = self.pods.values().filter(|pod| pod.node.is_some()).count();
        let pulled = later(now, Duration::from_secs(self.pull));
        for (at, pod) in self.pods.values_mut().enumerate() {
            let (shard, image) = (pod.view.shard, pod.image.as_str());
            match shard {
                Shard::Gated if !self.gated => {
                    pod.gated = false;
                    pod.set(Shard::Pending);
                }
                Shard::Pending if pod.gated => pod.set(Shard::Gated),
                Shard::Pending | Shard::Unschedulable(_) if pod.node.is_none() => {
                    let free = (0..4).map(|n| (n + at as u8) % 4).find(|node| !dead.contains(node));
                    if let Some(node) = free.filter(|_| placed < self.room) {
                        (pod.node, pod.pulled) = (Some(node), Some(pulled));
                        pod.set(Shard::Pending);
                        Arc::make_mut(&mut pod.view).note = None;
                        placed += 1;
                    } else if shard == Shard::Pending {
                        pod.set(Shard::Unschedulable(now));
                        Arc::make_mut(&mut pod.view).note = Some("0/4 nodes".into());
                    }
                }
                Shard::Pending if image != "d" && pod.pulled.is_some_and(|pulled| pulled <= now) => {
                    pod.set(Shard::Running);
                }
                Shard::Running if image == "e" => pod.set(Shard::Lost(LossReason::Exited)),
                _ => {}
            }
        }
        self.answer();
    }

    /// A shard is ready once all shards of its group run.
    fn answer(&mut self) {
        let mut running: BTreeMap<(u32, u64), usize> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| matches!(pod.view.shard, Shard::Running | Shard::Ready(_))) {
            *running.entry(place(&pod.view)).or_default() += 1;
        }
        let now = self.now;
        for pod in self.pods.values_mut() {
            let whole = running.get(&place(&pod.view)) == Some(&size(&pod.image));
            match pod.view.shard {
                Shard::Running if whole => pod.set(Shard::Ready(now)),
                Shard::Ready(_) if !whole => pod.set(Shard::Running),
                _ => {}
            }
        }
    }

    /// A node becomes unreachable, or all come back.
    pub(super) fn node(&mut self, down: Option<u8>) -> usize {
        match down {
            Some(node) => _ = self.dead.insert(node),
            None => self.dead.clear(),
        }
        let mut lost = 0;
        for pod in self.pods.values_mut() {
            let unreachable = pod.node.is_some_and(|node| self.dead.contains(&node));
            let shard = match pod.view.shard {
                Shard::Terminating if unreachable => Shard::Stranded,
                Shard::Stranded if !unreachable => Shard::Terminating,
                Shard::Pending | Shard::Running | Shard::Ready(_) | Shard::Lost(_) if unreachable => {
                    lost += 1;
                    Shard::Lost(LossReason::NodeLost)
                }
                Shard::Lost(LossReason::NodeLost) if !unreachable => Shard::Running,
                other => other,
            };
            pod.set(shard);
        }
        lost
    }
}

/// Slot and epoch of a pod of ours.
pub(super) fn place(view: &PodView) -> (u32, u64) {
    view.place.as_ref().map(|place| (place.index, place.epoch)).unwrap()
}
