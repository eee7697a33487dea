//! Whether what exists comes nearer to what is asked, and since when it does not.

use jiff::Timestamp;

use super::Facts;
use crate::controller::recover::later;
use crate::controller::rollout::{Shard, Why};
use crate::crd::{GroupPhase, GroupStatus, ModelDeploymentStatus};

/// When the rollout last came nearer to what is asked: a group became ready, one of an older revision went, or
/// something else was asked. `None` when nothing is left to do, or nothing may be done.
pub(super) fn progressed_at(facts: &Facts<'_>, groups: &[GroupStatus]) -> Option<Timestamp> {
    let target = facts.revisions.target.as_ref()?.hash.as_str();
    let gated = facts.decision.groups.iter().any(|group| group.shards.contains(&Shard::Gated));
    if facts.whole() || facts.is_held() || gated {
        return None;
    }
    let nothing = ModelDeploymentStatus::default();
    let before = facts.model.status.as_ref().unwrap_or(&nothing);
    let last = before.progressed_at.as_ref().map(|time| time.0);
    let asked = before.observed_generation != facts.model.metadata.generation
        || before.revisions.iter().any(|revision| revision.target && revision.hash != target);
    let ready = |groups: &[GroupStatus], key| {
        groups.iter().any(|group| (group.index, group.epoch) == key && group.phase == GroupPhase::Ready)
    };
    let newly_ready = groups.iter().map(|group| (group.index, group.epoch));
    let newly_ready = newly_ready.filter(|&key| ready(groups, key) && !ready(&before.groups, key)).count() > 0;
    let older = |groups: &[GroupStatus]| {
        groups.iter().filter(|group| group.phase != GroupPhase::Draining && group.revision != target).count()
    };
    let progressed = asked || newly_ready || older(groups) < older(&before.groups);
    let now = Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now);
    last.filter(|_| !progressed).or(Some(now))
}

/// When a rollout that does not progress from now on is Degraded; `None`: it is already, or nothing is left to do.
#[must_use]
pub fn deadline(status: &ModelDeploymentStatus, progress: std::time::Duration, now: Timestamp) -> Option<Timestamp> {
    let since = status.progressed_at.as_ref()?.0;
    Some(later(since, progress)).filter(|deadline| *deadline > now)
}

/// The deadline has passed.
pub(super) fn is_overdue(facts: &Facts<'_>, progressed_at: Option<Timestamp>) -> bool {
    progressed_at.is_some_and(|since| later(since, facts.budget.progress) <= facts.now)
}

/// A rollout is under way, in one word, and how far it is.
pub(super) fn progress(facts: &Facts<'_>) -> (String, String) {
    let old = facts.decision.groups.len() > facts.updated() as usize;
    let reason = match facts.why() {
        _ if facts.is_held() => "Paused",
        Some(Why::GivenUp) => "RestartBudgetExhausted",
        Some(Why::Accelerators) => "AcceleratorCap",
        Some(Why::Queue) => "Queued",
        Some(Why::Room) => "Unschedulable",
        Some(Why::BackOff) => "BackOff",
        _ if old => "RollingOut",
        _ if super::degraded::lost(facts).is_some() => "Recovering",
        Some(Why::Gates) => "SchedulingGated",
        Some(Why::MinReady) => "MinReadySeconds",
        _ if facts.leaving => "RemovingGroups",
        _ => "Starting",
    };
    (reason.to_owned(), format!("{}; {} of the target revision", facts.of_groups(), facts.updated()))
}
