//! Which groups are too many, and in which order they go.

use std::cmp::Reverse;

use super::model::{Cause, Group, Known, LossReason, Shard};
use super::standing::Standing;
use super::state::State;

impl State<'_> {
    /// Groups that are too many, or whose revision has been replaced.
    pub(super) fn remove_excess(&mut self) {
        while let Some((at, cause)) = self.next_excess() {
            self.remove(at, cause);
        }
    }

    /// The next group to remove: other revision not ready, target not ready, other revision, highest index. Of other
    /// revisions those first that do not serve: only what serves can come back.
    fn next_excess(&self) -> Option<(usize, Cause)> {
        let may_go = |group: &Group| if self.is_held() { self.may_shrink(group) } else { self.may_go(group) };
        let live = self.groups.iter().enumerate().filter(|(_, group)| group.known != Known::Removed);
        let (at, group) = live.filter(|(_, group)| may_go(group)).min_by_key(|(_, group)| {
            (self.available(group), self.is_target(group), self.is_serving(group), Reverse(group.index))
        })?;
        let excess = self.is_target(group) || self.is_held();
        Some((at, if excess { Cause::Excess } else { Cause::Superseded }))
    }

    /// Whether the budget permits that `group` goes, because there are more of its kind than wanted.
    fn may_go(&self, group: &Group) -> bool {
        if self.is_target(group) {
            let spare = self.live().filter(|group| self.is_target(group)).count() > self.target.replicas as usize;
            return spare && (!self.available(group) || self.enough_available_without(group));
        }
        // One that serves and is lost comes back as it was: it gives way only to groups that have shown that they work,
        // or to its own kind where the budget lets one be missing.
        let counted = || self.live().filter(|other| self.available(other) || self.is_serving(other)).count();
        match (self.available(group), self.is_serving(group)) {
            (true, _) => self.enough_available_without(group),
            (false, true) => counted() > self.floor(),
            (false, false) => true,
        }
    }

    /// In a pause only the number of groups follows the spec: those that do not serve stay beside the others as surge,
    /// and the last one that serves stays.
    fn may_shrink(&self, group: &Group) -> bool {
        let (wished, surge) = (self.target.replicas as usize, self.budget.max_surge as usize);
        let serving = self.live().filter(|group| self.is_serving(group)).count();
        let others = self.live().count() - serving;
        let beside = if serving > 0 { others.min(surge) } else { 0 };
        let last = self.is_serving(group) && serving == 1 && others > 0 && wished > 0;
        let free = !self.available(group) || self.enough_available_without(group);
        (serving + others > wished + beside && free && !last) || self.is_beyond_repair(group)
    }

    /// Nothing is known any more from which it could be made whole.
    fn is_beyond_repair(&self, group: &Group) -> bool {
        let broken = matches!(group.standing(), Standing::Lost(_) | Standing::Incomplete);
        broken && !self.is_target(group) && !self.is_serving(group)
    }

    fn enough_available_without(&self, group: &Group) -> bool {
        let available = self.live().filter(|group| self.available(group)).count();
        available - usize::from(self.available(group)) >= self.floor()
    }

    /// Groups that must stay available.
    fn floor(&self) -> usize {
        self.target.replicas.saturating_sub(self.budget.max_unavailable) as usize
    }
}

impl Group {
    /// Every shard that exists is told to end.
    pub(super) fn tell_to_end(&mut self) {
        for shard in &mut self.shards {
            *shard = match *shard {
                Shard::Missing => Shard::Missing,
                Shard::Lost(LossReason::NodeLost) | Shard::Stranded => Shard::Stranded,
                _ => Shard::Terminating,
            };
        }
    }
}
