//! What a pass knows, as the object's status. Pure: never writes, never reads a clock.

mod conditions;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::apply::Problem;
use super::build;
use super::observe::Members;
use super::plan::{Plan, Verdict};
use super::recover::Recovery;
use super::revisions::Revisions;
use super::rollout::{Decision, Group, Known, Observed, Shard, Standing};
use super::validate::{Owner, Rejection};
use crate::crd::{GroupPhase, GroupStatus, ModelDeployment, ModelDeploymentStatus, RecoveryStatus};

/// The longest message of a group, in characters.
const MESSAGE: usize = 256;

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
    /// The pods that existed before the pass.
    pub members: &'a Members<'a>,
    /// What was decided.
    pub decision: &'a Decision,
    /// Groups of the decision, as (index, epoch), of which a shard was not made yet.
    pub unmade: &'a BTreeSet<(u32, u64)>,
    /// What kept the pass from being carried out.
    pub problem: Option<&'a Problem>,
    /// How long a group must be ready to count.
    pub min_ready: Duration,
    /// Now.
    pub now: Timestamp,
}

impl Facts<'_> {
    fn wished(&self) -> u32 {
        u32::try_from(self.model.spec.replicas).unwrap_or(0)
    }

    fn available(&self) -> u32 {
        count(self.decision.groups.iter().filter(|group| group.available(self.min_ready, self.now)))
    }

    fn updated(&self) -> u32 {
        let target = self.revisions.target.as_ref().map(|target| target.hash.as_str());
        count(self.decision.groups.iter().filter(|group| Some(group.revision.as_str()) == target))
    }

    /// Every group is an available one of the target, and nothing else is left.
    fn whole(&self) -> bool {
        let groups = count(self.decision.groups.iter());
        let all = self.wished() == groups && self.updated() == groups && self.available() == groups;
        all && self.revisions.target.is_some() && self.problem.is_none()
    }

    fn verdict(&self) -> Option<&Verdict> {
        self.plan.map(|plan| &plan.verdict)
    }
}

/// The status after a pass.
#[must_use]
pub fn status(facts: &Facts<'_>) -> ModelDeploymentStatus {
    let before = facts.model.status.clone().unwrap_or_default();
    let mut groups: Vec<GroupStatus> = facts.decision.groups.iter().map(|group| one_group(facts, group)).collect();
    let kept = |group: &Group| facts.decision.groups.iter().any(|g| (g.index, g.epoch) == (group.index, group.epoch));
    groups.extend(facts.observed.groups.iter().filter(|group| !kept(group) && exists(group)).map(draining));
    groups.sort_by_key(|group| (group.index, group.epoch));
    ModelDeploymentStatus {
        observed_generation: facts.model.metadata.generation,
        plan: facts.plan.map(Plan::to_status),
        progressed_at: None,
        replicas: signed(count(facts.decision.groups.iter())),
        available_groups: signed(facts.available()),
        updated_groups: signed(facts.updated()),
        groups_ready: format!("{}/{}", facts.available(), facts.wished()),
        selector: facts.owner.map(build::scale_selector).unwrap_or_default(),
        groups,
        revisions: facts.revisions.to_status(facts.whole()),
        recovery: facts.decision.recovery.iter().map(remembered).collect(),
        conditions: conditions::conditions(facts, &before.conditions),
    }
}

fn exists(group: &Group) -> bool {
    group.shards.iter().any(|shard| *shard != Shard::Missing)
}

fn one_group(facts: &Facts<'_>, group: &Group) -> GroupStatus {
    let key = (group.index, group.epoch);
    let phase = match group.standing() {
        _ if facts.unmade.contains(&key) => GroupPhase::Pending,
        Standing::Incomplete => GroupPhase::Pending,
        Standing::Starting => GroupPhase::Starting,
        Standing::Ready(_) => GroupPhase::Ready,
        Standing::Lost(_) => GroupPhase::Lost,
    };
    GroupStatus { phase, message: message(facts, key, phase), ..plain(group) }
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

/// Why a group is not ready, in the words of the first shard that has any.
fn message(facts: &Facts<'_>, key: (u32, u64), phase: GroupPhase) -> Option<String> {
    if phase == GroupPhase::Ready {
        return None;
    }
    let pods = facts.members.get(&key)?;
    let (rank, note) = pods.iter().find_map(|(rank, pod)| Some((rank, pod.note.as_ref()?)))?;
    Some(format!("shard {rank}: {note}").chars().take(MESSAGE).collect())
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
