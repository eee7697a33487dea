//! The decision: the wished number of shards, else the fewest that fit.
//!
//! Choosing among layouts by predicted speed and cost has its place in [`choose`].

use shoal_proto::placement::{MAX_SHARDS, Placement};

use super::bytes::ShardLoad;
use super::{Layout, Plan, PlanReason, ShardBytes, Verdict, fit, words};
use crate::controller::validate::Validated;
use crate::crd::ModelShape;
use crate::inventory::{Inventory, NodeCapacity};

/// How many rejected layouts are told.
const TOLD: usize = 4;

/// Decides how the model is cut.
#[must_use]
pub fn plan(spec: &Validated, inventory: &Inventory) -> Plan {
    match &spec.shape {
        Some(shape) => Question { shape, spec, inventory }.answer(),
        None => without_shape(spec),
    }
}

fn without_shape(spec: &Validated) -> Plan {
    let device = words::device(&spec.device);
    let (reason, message, layout) = match spec.shards {
        Some(shards) => (
            PlanReason::Unverified,
            format!(
                "the shape of {} is unknown: {shards} shards are taken as given, nothing was compared",
                spec.source
            ),
            Some(Layout { shards, device, placement: Placement::undecided(shards as usize).ok(), bytes: None }),
        ),
        None => (
            PlanReason::ShapeUnknown,
            format!(
                "the shape of {} is unknown: give spec.model.shape (shoal plan --write makes it from the files), \
                 or spec.sharding.shards, or a published hf:// source",
                spec.source
            ),
            None,
        ),
    };
    Plan { verdict: Verdict { reason, message }, layout, arithmetic: vec![], rejected: vec![], better: None }
}

struct Question<'a> {
    shape: &'a ModelShape,
    spec: &'a Validated,
    inventory: &'a Inventory,
}

impl Question<'_> {
    fn answer(&self) -> Plan {
        let Inventory::Nodes(nodes) = self.inventory else {
            let message = "inventory: unknown; nothing was compared with nodes".to_owned();
            return self.show(self.spec.shards.unwrap_or(1), PlanReason::InventoryUnknown, message, vec![]);
        };
        let nodes = fit::eligible(nodes, self.spec);
        let (shards, rejected) = self.choose(&nodes);
        match self.problem(shards, &nodes) {
            None => {
                let groups = self.room(shards, &nodes) / u64::from(shards);
                let message = format!("groups of {shards} shards that the nodes hold when empty: {groups}");
                self.show(shards, PlanReason::Fits, message, rejected)
            }
            Some(problem) => self.show(shards, PlanReason::DoesNotFit, problem, rejected),
        }
    }

    /// The wished number, else the fewest shards that fit, else the most that could be made; with what was rejected.
    fn choose(&self, nodes: &[&NodeCapacity]) -> (u32, Vec<(String, String)>) {
        if let Some(shards) = self.spec.shards {
            return (shards, vec![]);
        }
        let mut rejected = Vec::new();
        for shards in 1..=self.most() {
            let Some(problem) = self.problem(shards, nodes) else { return (shards, rejected) };
            if rejected.len() < TOLD {
                rejected.push((format!("{shards} × {}", words::device(&self.spec.device)), problem));
            }
        }
        (self.most(), rejected)
    }

    /// As many as there are experts to divide.
    fn most(&self) -> u32 {
        let limit = u32::try_from(MAX_SHARDS).unwrap_or(u32::MAX);
        u32::try_from(self.shape.experts).unwrap_or(1).clamp(1, limit)
    }

    fn bytes(&self, shards: u32) -> (ShardLoad, ShardBytes) {
        let shards = u64::from(shards);
        let load = ShardLoad { shards, experts: u64::from(self.shape.experts.unsigned_abs()).div_ceil(shards) };
        (load, ShardBytes::of(self.shape, self.spec, load))
    }

    fn room(&self, shards: u32, nodes: &[&NodeCapacity]) -> u64 {
        let (_, bytes) = self.bytes(shards);
        nodes.iter().map(|node| fit::capacity(node, &bytes, self.spec)).fold(0, u64::saturating_add)
    }

    fn problem(&self, shards: u32, nodes: &[&NodeCapacity]) -> Option<String> {
        let (_, bytes) = self.bytes(shards);
        let each = words::size(bytes.total());
        if let Some(limit) = fit::host_limit(self.spec).filter(|limit| *limit < bytes.host()) {
            let needed = words::size(bytes.host());
            return Some(format!("a shard needs {needed} of memory; spec.pod.resources allows {}", words::size(limit)));
        }
        if nodes.is_empty() {
            return Some("no node matches spec.pod.nodeSelector and tolerations".to_owned());
        }
        let room = self.room(shards, nodes);
        if room >= u64::from(shards) {
            return None;
        }
        let fewest = |memory: u64| {
            let fits = |shards: &u32| self.bytes(*shards).1.total() <= memory;
            (1..=self.most()).find(fits).map(u64::from)
        };
        let needs = words::needs(nodes, self.spec, fewest);
        Some(format!("shards of {each} that the nodes hold when empty: {room} of {shards}; {needs}"))
    }

    fn show(&self, shards: u32, reason: PlanReason, message: String, rejected: Vec<(String, String)>) -> Plan {
        let (load, bytes) = self.bytes(shards);
        let experts = self.shape.experts.unsigned_abs();
        let count = usize::try_from(shards).unwrap_or(usize::MAX);
        let placement = Placement::even(experts, count).ok();
        let arithmetic = words::arithmetic(self.shape, self.spec, load, &bytes);
        let device = words::device(&self.spec.device);
        let layout = Layout { shards, device, placement, bytes: Some(bytes) };
        Plan { verdict: Verdict { reason, message }, layout: Some(layout), arithmetic, rejected, better: None }
    }
}
