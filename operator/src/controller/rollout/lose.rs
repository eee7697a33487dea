//! Which groups have lost a shard, find no room or stay half made: each is replaced whole, by its next epoch.

use jiff::Timestamp;

use super::model::{Cause, Group, Known, LossReason, Shard, Why};
use super::state::State;
use crate::controller::recover::{Loss, later};

/// What is to become of a group.
enum Fate {
    /// Nothing is wrong with it.
    Stays,
    /// Something is, but it has until then.
    Spared(Why, Timestamp),
    /// It is half made, and is to be completed before then.
    Completed(Timestamp),
    /// It is replaced.
    Replaced(LossReason),
}

impl State<'_> {
    /// A group that is lost or withdrawn is replaced by its next epoch in the same slot, as it was.
    pub(super) fn recover_lost(&mut self) {
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            if group.known == Known::Removed {
                continue;
            }
            match self.fate(group) {
                Fate::Stays => {}
                Fate::Spared(why, until) => self.waits.push((why, Some(until))),
                Fate::Completed(until) => self.again = self.again.into_iter().chain([until]).min(),
                Fate::Replaced(reason) => self.replace(at, reason),
            }
        }
    }

    fn fate(&self, group: &Group) -> Fate {
        let spared = |why, until| (self.now < until).then_some(Fate::Spared(why, until));
        // Before a loss: what fell over while it waited for peers that find no room has not crashed.
        if let Some(since) = group.unschedulable_since() {
            let until = later(since, self.budget.unschedulable);
            return spared(Why::Room, until).unwrap_or(Fate::Replaced(LossReason::Unschedulable));
        }
        if let Some(reason) = group.loss() {
            // A shard that fell over while others were still pulled proves nothing; one that was taken away will not come.
            let coming = group.shards.iter().any(|shard| matches!(shard, Shard::Pending | Shard::Gated));
            let until =
                group.created.filter(|_| coming && reason.is_own()).map(|created| later(created, self.budget.startup));
            return until.and_then(|until| spared(Why::Peers, until)).unwrap_or(Fate::Replaced(reason));
        }
        let half_since = group.created.filter(|_| group.is_half_made());
        half_since.map_or(Fate::Stays, |created| {
            let until = later(created, self.budget.partial);
            if self.now < until { Fate::Completed(until) } else { Fate::Replaced(LossReason::Incomplete) }
        })
    }

    fn replace(&mut self, at: usize, reason: LossReason) {
        let group = &self.groups[at];
        if !self.is_target(group) && !self.is_serving(group) {
            // Nothing is known any more from which it could be made again.
            return self.remove(at, Cause::Lost(reason));
        }
        let (index, revision, size) = (group.index, group.revision.clone(), group.shards.len());
        let words = group.note.as_ref().or(group.last_note.as_ref());
        let (epoch, message) = (self.next_epoch(index), words.cloned().unwrap_or_default());
        let loss = Loss { index, epoch, reason, message };
        let memory = self.budget.restarts.after_loss(self.memory(index), loss, self.now);
        self.recovery.retain(|memory| memory.index != index);
        self.recovery.push(memory);
        self.remove(at, Cause::Lost(reason));
        self.groups.push(Group::new((index, epoch), revision, size));
    }

    fn next_epoch(&self, index: u32) -> u64 {
        let seen = self.groups.iter().filter(|group| group.index == index).map(|group| group.epoch);
        seen.chain(self.memory(index).map(|memory| memory.epoch)).max().unwrap_or(0) + 1
    }
}
