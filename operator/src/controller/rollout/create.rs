//! Which groups are made now: those that were decided on, then new ones while there is room.

use jiff::Timestamp;

use super::model::{Group, Known, Shard, Step, Turn, Why};
use super::standing::Standing;
use super::state::State;
use crate::controller::recover::{Recovery, later};

/// What a group waits for before it is made.
type Wait = (Why, Option<Timestamp>);

impl State<'_> {
    /// Unfinished groups, then new ones while there is room.
    pub(super) fn create_missing(&mut self) {
        // Formed again or not: the lowest slot comes first, today as in the next pass.
        self.groups.sort_by_key(|group| (group.index, group.epoch));
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            if group.known == Known::Removed || group.standing() != Standing::Incomplete {
                continue;
            }
            match self.may_form(group) {
                Ok(()) => self.create(at),
                Err(wait) => self.waits.push(wait),
            }
        }
        while let Some(group) = self.next_group() {
            if let Err(wait) = self.may_form(&group) {
                self.waits.push(wait);
                return;
            }
            self.groups.push(group);
            self.create(self.groups.len() - 1);
        }
    }

    /// The next new group, if there is room for one: of the target, or in a pause of what serves.
    fn next_group(&self) -> Option<Group> {
        let (wished, live) = (self.target.replicas as usize, self.live().count());
        let (room, revision, shards) = if self.is_held() {
            let serving = self.target.serving.as_ref()?;
            (live < wished, &serving.revision, serving.shards)
        } else {
            let updated = self.live().filter(|group| self.is_target(group)).count();
            let surge = self.budget.max_surge as usize;
            (live < wished + surge && updated < wished, &self.target.revision, self.target.shards)
        };
        let index = (0..).find(|&index| self.is_free(index)).filter(|_| room)?;
        Some(Group::new((index, 1), revision.clone(), shards))
    }

    /// Whether what is missing of a group may be made now.
    fn may_form(&self, group: &Group) -> Result<(), Wait> {
        let memory = self.memory(group.index);
        let early = |memory: &Recovery| self.budget.turn == Turn::Retry && memory.reason.is_withdrawal();
        if let Some(memory) = memory.filter(|memory| memory.next_retry > self.now && !early(memory)) {
            let given_up = self.budget.restarts.given_up(memory, self.now);
            return Err((if given_up { Why::GivenUp } else { Why::BackOff }, Some(memory.next_retry)));
        }
        if !group.is_half_made() {
            if let Turn::NotYet { until } = self.budget.turn {
                return Err((Why::Queue, until));
            }
            // One at a time: groups that were withdrawn for want of room must not take it from one another.
            let withdrawn = memory.is_some_and(|memory| memory.reason.is_withdrawal());
            if let Some(until) = self.placing_until().filter(|_| withdrawn) {
                return Err((Why::Queue, Some(until)));
            }
        }
        let Some(most) = self.budget.max_accelerators.map(|most| most as usize) else { return Ok(()) };
        let held: usize = self.groups.iter().map(Group::accelerators).sum();
        if held + self.promised(group, most) + group.missing() > most {
            return Err((Why::Accelerators, None));
        }
        Ok(())
    }

    /// Until when groups may still be looking for room. One that has not been refused by then has found it: it pulls its
    /// image, and one that never gets it must not hold up those that would.
    fn placing_until(&self) -> Option<Timestamp> {
        let placing = self.live().filter(|group| group.is_being_placed());
        let until = placing.map(|group| later(group.created.unwrap_or(self.now), self.budget.partial));
        until.filter(|until| *until > self.now).max()
    }

    /// What groups before this one still need: a new group must not take the place of one that comes back.
    fn promised(&self, group: &Group, most: usize) -> usize {
        let before = self.live().take_while(|other| (other.index, other.epoch) != (group.index, group.epoch));
        before.filter(|other| other.shards.len() <= most).map(Group::missing).sum()
    }

    fn create(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let (index, revision, epoch) = (group.index, group.revision.clone(), group.epoch);
        self.steps.push(Step::CreateGroup { index, revision, epoch });
        for shard in group.shards.iter_mut().filter(|shard| **shard == Shard::Missing) {
            *shard = Shard::Pending;
        }
    }

    /// A slot of which nothing is left, not even a pod that ends.
    fn is_free(&self, index: u32) -> bool {
        self.groups.iter().all(|group| group.index != index) && self.memory(index).is_none()
    }
}
