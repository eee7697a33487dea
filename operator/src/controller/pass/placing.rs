//! What a pass tells the queue across models.

use super::Pass;
use crate::controller::queue::{Case, Refused};
use crate::controller::rollout::{Group, LossReason, Shard, Step};
use crate::controller::validate::Device;

/// The queue of shards that need no accelerator.
const CPU: &str = "cpu";

impl Pass<'_> {
    /// Which queue the groups of the model stand in.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.revisions.wanted().map_or(CPU, |revision| resource(&revision.spec.device))
    }

    /// Whether anything is to be made.
    #[must_use]
    pub fn makes_groups(&self) -> bool {
        self.decision.steps.iter().any(|step| matches!(step, Step::CreateGroup { .. }))
    }

    /// How the model stands once the pass is carried out.
    #[must_use]
    pub fn case(&self) -> Case {
        let groups = &self.decision.groups;
        let placed = |index: u32| groups.iter().any(|group| group.index == index && self.is_placed(group));
        let withdrawn = |reason: LossReason| reason == LossReason::Unschedulable;
        let waiting = self.decision.recovery.iter().filter(|memory| withdrawn(memory.reason) && !placed(memory.index));
        let refused = waiting.map(|memory| Refused { since: memory.window_start, retry: memory.next_retry });
        let refused = refused.reduce(|a, b| Refused { since: a.since.min(b.since), retry: a.retry.min(b.retry) });
        Case { refused, placing: groups.iter().any(|group| self.is_being_placed(group)) }
    }

    /// All its pods have nodes.
    fn is_placed(&self, group: &Group) -> bool {
        (0..group.shards.len()).all(|rank| self.has_node(group, rank))
    }

    /// Some pod of it exists or is being made, and has no node yet. One that waits for its gates asks for none.
    fn is_being_placed(&self, group: &Group) -> bool {
        let made = group.shards.iter().any(|shard| *shard != Shard::Missing);
        let seeks = |(rank, shard): (usize, &Shard)| match shard {
            Shard::Missing => made,
            Shard::Pending | Shard::Unschedulable(_) => !self.has_node(group, rank),
            _ => false,
        };
        group.shards.iter().enumerate().any(seeks)
    }

    fn has_node(&self, group: &Group, rank: usize) -> bool {
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        let pod = self.members.get(&(group.index, group.epoch)).and_then(|ranks| ranks.get(&rank));
        pod.is_some_and(|pod| pod.node.is_some())
    }
}

/// Which queue a shard stands in.
#[must_use]
pub fn resource(device: &Device) -> &str {
    device.resource.as_deref().unwrap_or(CPU)
}
