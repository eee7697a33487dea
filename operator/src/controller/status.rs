//! What a pass knows, as the object's status. Pure: never writes, never reads a clock.

mod conditions;
mod degraded;
mod progress;
mod unread;

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::apply::Problem;
use super::build;
use super::dereference::PodView;
use super::plan::{Plan, Verdict};
use super::recover::{MAX_MESSAGE, Recovery};
use super::revisions::Revisions;
use super::rollout::{Budget, Decision, Group, Known, Observed, Shard, Standing, Step, Why};
use super::validate::{Owner, Rejection};
use crate::crd::{GroupPhase, GroupStatus, ModelDeployment, ModelDeploymentStatus, RecoveryStatus};

pub use self::progress::deadline;
pub use self::unread::{NOT_UNDERSTOOD, not_understood};

/// What a pass found out.
pub struct Facts<'a> {
    /// The object.
    pub model: &'a ModelDeployment,
    /// Whose objects these are; `None`: the name is refused.
    pub owner: Option<&'a Owner>,
    /// Why the spec is not accepted.
    pub rejection: Option<&'a Rejection>,
    /// What would run where.
    pub plan: Option<&'a Plan>,
    /// What groups are formed from.
    pub revisions: &'a Revisions,
    /// What existed before the pass.
    pub observed: &'a Observed,
    /// What was decided.
    pub decision: &'a Decision,
    /// Shards of the decision, as (index, epoch, rank), that were not made yet.
    pub unmade: &'a BTreeSet<(u32, u64, u32)>,
    /// Pods of groups to be removed are still to be told to end.
    pub leaving: bool,
    /// Pods that somebody has taken from the object.
    pub taken: &'a [Arc<PodView>],
    /// Fields of the spec that this version does not know.
    pub unknown: &'a [String],
    /// What kept the pass from being carried out.
    pub problem: Option<&'a Problem>,
    /// What the rollout may spend.
    pub budget: &'a Budget,
    /// Now.
    pub now: Timestamp,
}

impl Facts<'_> {
    fn wished(&self) -> u32 {
        u32::try_from(self.model.spec.replicas).unwrap_or(0)
    }

    fn available(&self) -> u32 {
        count(self.decision.groups.iter().filter(|group| group.available(self.budget.min_ready, self.now)))
    }

    fn updated(&self) -> u32 {
        count(self.decision.groups.iter().filter(|group| self.is_target(group)))
    }

    fn is_target(&self, group: &Group) -> bool {
        self.revisions.target.as_ref().is_some_and(|target| target.hash.as_str() == group.revision)
    }

    /// A rollout is wanted and paused.
    fn is_held(&self) -> bool {
        let (target, serving) = (self.revisions.target.as_ref(), self.revisions.serving.as_ref());
        let settled = serving.map(|serving| &serving.hash) == target.map(|target| &target.hash);
        self.budget.paused && target.is_some() && !settled
    }

    /// What the rollout waits for.
    fn why(&self) -> Option<Why> {
        self.decision.steps.iter().find_map(|step| match step {
            Step::Wait { why, .. } => Some(*why),
            _ => None,
        })
    }

    fn of_groups(&self) -> String {
        format!("{} of {} groups are available", self.available(), self.wished())
    }

    /// Every group is an available one of the target, and nothing else is left.
    fn whole(&self) -> bool {
        let groups = count(self.decision.groups.iter());
        let all = self.wished() == groups && self.updated() == groups && self.available() == groups;
        all && self.revisions.target.is_some() && self.problem.is_none() && !self.leaving
    }

    fn verdict(&self) -> Option<&Verdict> {
        self.plan.map(|plan| &plan.verdict)
    }
}

/// The status after a pass.
#[must_use]
pub fn status(facts: &Facts<'_>) -> ModelDeploymentStatus {
    let mut groups: Vec<GroupStatus> = facts.decision.groups.iter().map(|group| one_group(facts, group)).collect();
    let kept = |group: &Group| facts.decision.groups.iter().any(|g| (g.index, g.epoch) == (group.index, group.epoch));
    groups.extend(facts.observed.groups.iter().filter(|group| !kept(group) && exists(group)).map(draining));
    groups.sort_by_key(|group| (group.index, group.epoch));
    let progressed_at = progress::progressed_at(facts, &groups);
    ModelDeploymentStatus {
        observed_generation: facts.model.metadata.generation,
        plan: facts.plan.map(Plan::to_status),
        progressed_at: progressed_at.map(Time),
        replicas: signed(count(facts.decision.groups.iter().filter(|group| has_head(facts, group)))),
        available_groups: signed(facts.available()),
        updated_groups: signed(facts.updated()),
        groups_ready: format!("{}/{}", facts.available(), facts.wished()),
        selector: facts.owner.map(build::scale_selector).unwrap_or_default(),
        groups,
        revisions: facts.revisions.to_status(facts.whole()),
        recovery: facts.decision.recovery.iter().map(remembered).collect(),
        conditions: conditions::conditions(facts, progressed_at),
    }
}

fn exists(group: &Group) -> bool {
    group.shards.iter().any(|shard| *shard != Shard::Missing)
}

/// Its first shard exists: the one pod of it that the scale subresource counts.
fn has_head(facts: &Facts<'_>, group: &Group) -> bool {
    let exists = group.shards.first().is_some_and(|shard| *shard != Shard::Missing && !shard.is_ending());
    exists && !facts.unmade.contains(&(group.index, group.epoch, 0))
}

fn one_group(facts: &Facts<'_>, group: &Group) -> GroupStatus {
    let (first, last) = ((group.index, group.epoch, 0), (group.index, group.epoch, u32::MAX));
    let unmade = facts.unmade.range(first..=last).next().is_some();
    let phase = match group.standing() {
        _ if unmade => GroupPhase::Pending,
        Standing::Incomplete => GroupPhase::Pending,
        Standing::Starting => GroupPhase::Starting,
        Standing::Ready(_) => GroupPhase::Ready,
        Standing::Lost(_) => GroupPhase::Lost,
    };
    let refused = facts.problem.filter(|_| unmade).map(ToString::to_string);
    let last = group.last_note.clone().filter(|_| matches!(phase, GroupPhase::Pending | GroupPhase::Lost));
    let message = refused.or_else(|| group.note.clone()).or(last).filter(|_| phase != GroupPhase::Ready);
    let message = message.map(|words| words.chars().take(MAX_MESSAGE).collect());
    GroupStatus { phase, message, ..plain(group) }
}

fn draining(group: &Group) -> GroupStatus {
    GroupStatus { phase: GroupPhase::Draining, ready_shards: 0, ..plain(group) }
}

fn plain(group: &Group) -> GroupStatus {
    GroupStatus {
        index: signed(group.index),
        epoch: i64::try_from(group.epoch).unwrap_or(i64::MAX),
        revision: group.revision.clone(),
        phase: GroupPhase::Pending,
        ready_shards: signed(count(group.shards.iter().filter(|shard| matches!(shard, Shard::Ready(_))))),
        shards: signed(count(group.shards.iter())),
        message: None,
    }
}

fn remembered(memory: &Recovery) -> RecoveryStatus {
    RecoveryStatus {
        group: signed(memory.index),
        epoch: i64::try_from(memory.epoch).unwrap_or(i64::MAX),
        failures: signed(memory.failures),
        streak: signed(memory.streak),
        window_start: Some(Time(memory.window_start)),
        next_retry: Some(Time(memory.next_retry)),
        reason: memory.reason.as_str().to_owned(),
        message: memory.message.clone(),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// True for a group that was told to end and of which something is left.
#[must_use]
pub fn is_leaving(group: &Group) -> bool {
    group.known == Known::Removed && exists(group)
}
