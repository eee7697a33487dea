//! The working copy of one decision: every step is applied to it at once, so that the next rule sees its effect.

use jiff::Timestamp;

use super::Decision;
use super::model::{Budget, Cause, Group, Known, Observed, Shard, Step, Target, Why};
use super::standing::Standing;
use crate::controller::recover::{self, Recovery, later};

/// See the module.
pub(super) struct State<'a> {
    groups: Vec<Group>,
    recovery: Vec<Recovery>,
    target: &'a Target,
    budget: &'a Budget,
    now: Timestamp,
    steps: Vec<Step>,
    waits: Vec<(Why, Option<Timestamp>)>,
}

impl<'a> State<'a> {
    pub(super) fn new(observed: &Observed, target: &'a Target, budget: &'a Budget, now: Timestamp) -> Self {
        let mut groups = observed.groups.clone();
        groups.sort_by_key(|group| (group.index, group.epoch));
        let recovery = observed.recovery.clone();
        Self { groups, recovery, target, budget, now, steps: Vec::new(), waits: Vec::new() }
    }

    /// Removals decided before are carried on.
    pub(super) fn finish_removals(&mut self) {
        let unfinished = self.groups.iter_mut().filter(|group| group.known == Known::Removed && !group.gone());
        self.steps.extend(unfinished.map(|group| {
            group.shards.fill(Shard::Terminating);
            remove(group, Cause::Unfinished)
        }));
    }

    /// Groups that are too many, or whose revision has been replaced.
    pub(super) fn remove_excess(&mut self) {
        while let Some((at, cause)) = self.next_excess() {
            let group = &mut self.groups[at];
            self.steps.push(remove(group, cause));
            group.known = Known::Removed;
            group.shards.fill(Shard::Terminating);
        }
    }

    /// The next group to remove: other revision not ready, target not ready, other revision, highest index.
    fn next_excess(&self) -> Option<(usize, Cause)> {
        let floor = self.target.replicas.saturating_sub(self.budget.max_unavailable) as usize;
        let available = self.live().filter(|group| self.available(group)).count();
        let spare = self.live().filter(|group| self.is_target(group)).count() > self.target.replicas as usize;
        let may_go = |group: &Group| {
            let others = available - usize::from(self.available(group));
            if self.is_target(group) {
                return spare && (!self.available(group) || others >= floor);
            }
            others >= floor || (!self.available(group) && !self.is_serving(group))
        };
        let candidates = self.groups.iter().enumerate().filter(|(_, g)| g.known != Known::Removed && may_go(g));
        let (at, group) = candidates
            .min_by_key(|(_, group)| (self.available(group), self.is_target(group), std::cmp::Reverse(group.index)))?;
        Some((at, if self.is_target(group) { Cause::Excess } else { Cause::Superseded }))
    }

    /// A lost group of a revision that still counts is replaced by its next epoch in the same slot.
    pub(super) fn recover_lost(&mut self) {
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            let Some(reason) = group.loss().filter(|_| group.known != Known::Removed) else { continue };
            if let Some(until) = self.peers_pending(group) {
                self.waits.push((Why::Peers, Some(until)));
                continue;
            }
            let (index, revision) = (group.index, group.revision.clone());
            let shards = vec![Shard::Missing; group.shards.len()];
            let epoch = self.next_epoch(index);
            let before = self.recovery.iter().find(|memory| memory.index == index);
            let memory = self.budget.backoff.after_loss(before, (index, epoch, reason), self.now);
            self.recovery.retain(|memory| memory.index != index);
            self.recovery.push(memory);
            let group = &mut self.groups[at];
            if !group.gone() {
                self.steps.push(remove(group, Cause::Lost(reason)));
            }
            group.known = Known::Removed;
            group.shards.fill(Shard::Terminating);
            self.groups.push(Group { index, epoch, revision, known: Known::Forming, shards, created: None });
        }
    }

    /// Until when a group with a lost shard is spared because its peers are still being scheduled or pulled.
    fn peers_pending(&self, group: &Group) -> Option<Timestamp> {
        let until = later(group.created?, self.budget.startup);
        (group.shards.contains(&Shard::Pending) && self.now < until).then_some(until)
    }

    /// Unfinished groups, then new ones of the target revision while there is room.
    pub(super) fn create_missing(&mut self) {
        for at in 0..self.groups.len() {
            let group = &self.groups[at];
            if group.known == Known::Removed || group.standing() != Standing::Incomplete {
                continue;
            }
            let retry = self.recovery.iter().find(|m| m.index == group.index && m.next_retry > self.now);
            match retry.map(|memory| memory.next_retry) {
                Some(until) => self.waits.push((Why::BackOff, Some(until))),
                None => self.create(at),
            }
        }
        let most = self.target.replicas as usize + self.budget.max_surge as usize;
        while self.live().count() < most
            && self.live().filter(|group| self.is_target(group)).count() < self.target.replicas as usize
        {
            let Some(index) = (0..).find(|&index| self.is_free(index)) else { return };
            let (revision, shards) = (self.target.revision.clone(), vec![Shard::Missing; self.target.shards]);
            self.groups.push(Group { index, epoch: 1, revision, known: Known::Forming, shards, created: None });
            self.create(self.groups.len() - 1);
        }
    }

    fn create(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let (index, revision, epoch) = (group.index, group.revision.clone(), group.epoch);
        self.steps.push(Step::CreateGroup { index, revision, epoch });
        for shard in group.shards.iter_mut().filter(|shard| **shard == Shard::Missing) {
            *shard = Shard::Pending;
        }
    }

    /// Adds what is waited for and hands the decision over.
    pub(super) fn finish(mut self) -> Decision {
        let min_ready = self.budget.min_ready;
        for group in self.groups.iter().filter(|group| group.known != Known::Removed) {
            match group.standing() {
                Standing::Starting => self.waits.push((Why::Starting, None)),
                Standing::Ready(since) if later(since, min_ready) > self.now => {
                    self.waits.push((Why::MinReady, Some(later(since, min_ready))));
                }
                _ => {}
            }
        }
        if let Some(&(why, _)) = self.waits.first() {
            let until = self.waits.iter().filter_map(|&(_, until)| until).min();
            self.steps.push(Step::Wait { why, until });
        }
        let mut groups = self.groups;
        groups.retain(|group| group.known != Known::Removed);
        groups.sort_by_key(|group| group.index);
        let mut recovery = self.recovery;
        recovery.retain(|memory| groups.iter().any(|group| group.index == memory.index));
        forget_oldest(&mut recovery);
        Decision { steps: self.steps, groups, recovery }
    }

    fn live(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.known != Known::Removed)
    }

    fn available(&self, group: &Group) -> bool {
        group.available(self.budget.min_ready, self.now)
    }

    fn is_target(&self, group: &Group) -> bool {
        group.revision == self.target.revision
    }

    fn is_serving(&self, group: &Group) -> bool {
        self.target.serving.as_ref() == Some(&group.revision)
    }

    /// A slot of which nothing is left, not even a pod that ends.
    fn is_free(&self, index: u32) -> bool {
        self.groups.iter().all(|group| group.index != index) && self.recovery.iter().all(|m| m.index != index)
    }

    fn next_epoch(&self, index: u32) -> u64 {
        let seen = self.groups.iter().filter(|group| group.index == index).map(|group| group.epoch);
        let told = self.recovery.iter().filter(|memory| memory.index == index).map(|memory| memory.epoch);
        seen.chain(told).max().unwrap_or(0) + 1
    }
}

fn remove(group: &Group, cause: Cause) -> Step {
    Step::RemoveGroup { index: group.index, revision: group.revision.clone(), epoch: group.epoch, cause }
}

/// A live group's labels tell its epoch too, so the memories that no longer delay anything may go first.
fn forget_oldest(recovery: &mut Vec<Recovery>) {
    recovery.sort_by_key(|memory| std::cmp::Reverse(memory.next_retry));
    recovery.truncate(recover::MAX_REMEMBERED);
    recovery.sort_by_key(|memory| memory.index);
}
