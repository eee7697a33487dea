//! The working copy of one decision: every step is applied to it at once, so that the next rule sees its effect.

use jiff::Timestamp;

use super::Decision;
use super::model::{Budget, Cause, Group, Known, Observed, Shard, Step, Target, Why};
use super::standing::Standing;
use crate::controller::recover::{self, Recovery, later};

/// See the module.
pub(super) struct State<'a> {
    pub(super) groups: Vec<Group>,
    pub(super) recovery: Vec<Recovery>,
    pub(super) target: &'a Target,
    pub(super) budget: &'a Budget,
    pub(super) now: Timestamp,
    pub(super) steps: Vec<Step>,
    pub(super) waits: Vec<(Why, Option<Timestamp>)>,
    pub(super) again: Option<Timestamp>,
}

impl<'a> State<'a> {
    pub(super) fn new(observed: &Observed, target: &'a Target, budget: &'a Budget, now: Timestamp) -> Self {
        let mut groups = observed.groups.clone();
        groups.sort_by_key(|group| (group.index, group.epoch));
        let recovery = observed.recovery.clone();
        Self { groups, recovery, target, budget, now, steps: Vec::new(), waits: Vec::new(), again: None }
    }

    /// Removals decided before are carried on.
    pub(super) fn finish_removals(&mut self) {
        for at in 0..self.groups.len() {
            if self.groups[at].known == Known::Removed && !self.groups[at].gone() {
                self.remove(at, Cause::Unfinished);
            }
        }
    }

    /// Tells a group to end, if anything of it is left to be told.
    pub(super) fn remove(&mut self, at: usize, cause: Cause) {
        let group = &mut self.groups[at];
        if !group.gone() || matches!(cause, Cause::Excess | Cause::Superseded) {
            let (index, revision, epoch) = (group.index, group.revision.clone(), group.epoch);
            self.steps.push(Step::RemoveGroup { index, revision, epoch, cause });
        }
        group.known = Known::Removed;
        group.tell_to_end();
    }

    /// A slot that has been ready for long enough is as good as one that was never lost.
    pub(super) fn forget_healthy(&mut self) {
        let healthy = self.budget.restarts.backoff.healthy;
        let since = |memory: &Recovery| {
            let group = self.live().find(|group| group.index == memory.index)?;
            match group.standing() {
                Standing::Ready(since) => Some(later(since, healthy)),
                _ => None,
            }
        };
        let when: Vec<Option<Timestamp>> = self.recovery.iter().map(since).collect();
        let now = self.now;
        let mut each = when.iter();
        self.recovery.retain(|_| each.next().is_some_and(|at| at.is_none_or(|at| at > now)));
        self.again = when.into_iter().flatten().filter(|at| *at > now).min();
    }

    /// Adds what is waited for and hands the decision over.
    pub(super) fn finish(mut self) -> Decision {
        let min_ready = self.budget.min_ready;
        for group in self.groups.iter().filter(|group| group.known != Known::Removed) {
            match group.standing() {
                Standing::Starting if group.shards.contains(&Shard::Gated) => self.waits.push((Why::Gates, None)),
                Standing::Starting => self.waits.push((Why::Starting, None)),
                Standing::Ready(since) if later(since, min_ready) > self.now => {
                    self.waits.push((Why::MinReady, Some(later(since, min_ready))));
                }
                _ => {}
            }
        }
        if let Some(why) = self.waits.iter().map(|&(why, _)| why).min() {
            let until = self.waits.iter().filter_map(|&(_, until)| until).min();
            self.steps.push(Step::Wait { why, until });
        }
        let mut groups = self.groups;
        groups.retain(|group| group.known != Known::Removed);
        groups.sort_by_key(|group| group.index);
        let mut recovery = self.recovery;
        recovery.retain(|memory| groups.iter().any(|group| group.index == memory.index));
        forget_oldest(&mut recovery);
        Decision { steps: self.steps, groups, recovery, again: self.again }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.known != Known::Removed)
    }

    pub(super) fn available(&self, group: &Group) -> bool {
        group.available(self.budget.min_ready, self.now)
    }

    pub(super) fn is_target(&self, group: &Group) -> bool {
        group.revision == self.target.revision
    }

    pub(super) fn is_serving(&self, group: &Group) -> bool {
        self.target.serving.as_ref().is_some_and(|serving| serving.revision == group.revision)
    }

    /// A rollout is under way or about to begin, and must not go on.
    pub(super) fn is_held(&self) -> bool {
        let settled = self.target.serving.as_ref().is_some_and(|serving| serving.revision == self.target.revision);
        self.budget.paused && !settled
    }

    pub(super) fn memory(&self, index: u32) -> Option<&Recovery> {
        self.recovery.iter().find(|memory| memory.index == index)
    }
}

/// A live group's labels tell its epoch too, so the memories that no longer delay anything may go first.
fn forget_oldest(recovery: &mut Vec<Recovery>) {
    recovery.sort_by_key(|memory| std::cmp::Reverse(memory.next_retry));
    recovery.truncate(recover::MAX_REMEMBERED);
    recovery.sort_by_key(|memory| memory.index);
}
