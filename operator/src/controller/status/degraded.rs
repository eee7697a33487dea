//! What is wrong though the model may well serve: the condition Degraded.

use jiff::Timestamp;

use super::conditions::{Claim, claim};
use super::{Facts, progress};
use crate::controller::plan::Plan;
use crate::controller::recover::Recovery;
use crate::controller::rollout::{Shard, Standing, Why};

/// See the module.
pub(super) fn degraded(facts: &Facts<'_>, progressed_at: Option<Timestamp>) -> Claim {
    if let Some(error) = &facts.revisions.unreadable {
        return claim("Degraded", true, "RevisionUnreadable", error.to_string());
    }
    if let Some(problem) = facts.problem {
        return claim("Degraded", true, problem.reason(), problem.to_string());
    }
    if let Some(message) = given_up(facts) {
        return claim("Degraded", true, "RestartBudgetExhausted", message);
    }
    if progress::is_overdue(facts, progressed_at) {
        return overdue(facts);
    }
    match lost(facts) {
        Some(memory) if memory.reason.is_withdrawal() => {
            claim("Degraded", true, memory.reason.as_str(), withdrawn(facts, memory))
        }
        Some(memory) => {
            let Recovery { index, failures, epoch, .. } = memory;
            let why = cause(memory);
            let message =
                format!("group {index} lost a shard ({why}) {failures} times; it forms again as epoch {epoch}");
            claim("Degraded", true, "ShardLost", message)
        }
        None => taken(facts).unwrap_or_else(|| claim("Degraded", false, "AsExpected", "")),
    }
}

/// What somebody has taken from us is replaced and left alone: nobody but they can say what is to become of it.
fn taken(facts: &Facts<'_>) -> Option<Claim> {
    let names: Vec<&str> = facts.taken.iter().filter_map(|pod| pod.meta.name.as_deref()).collect();
    let words =
        "not controlled by this object any more: replaced, left alone, and whoever took them has to delete them";
    (!names.is_empty()).then(|| claim("Degraded", true, "PodsTaken", format!("{}: {words}", names.join(", "))))
}

/// The slot that has been lost most often and is not ready again.
pub(super) fn lost<'a>(facts: &Facts<'a>) -> Option<&'a Recovery> {
    let unready = |memory: &&Recovery| {
        let mut groups = facts.decision.groups.iter().filter(|group| group.index == memory.index);
        groups.any(|group| !matches!(group.standing(), Standing::Ready(_)))
    };
    facts.decision.recovery.iter().filter(unready).max_by_key(|memory| memory.streak)
}

/// The last words, after the reason.
fn cause(memory: &Recovery) -> String {
    let reason = memory.reason.as_str();
    if memory.message.is_empty() { reason.to_owned() } else { format!("{reason}: {}", memory.message) }
}

fn given_up(facts: &Facts<'_>) -> Option<String> {
    let restarts = &facts.budget.restarts;
    let memory = facts.decision.recovery.iter().find(|memory| restarts.given_up(memory, facts.now))?;
    Some(format!(
        "group {} was lost {} times within spec.recovery.window ({}); it is left alone until {}",
        memory.index,
        memory.failures,
        cause(memory),
        memory.next_retry
    ))
}

fn withdrawn(facts: &Facts<'_>, memory: &Recovery) -> String {
    let needs = facts.plan.map(|plan| format!("; a group needs {}", Plan::to_status(plan).summary));
    format!(
        "group {} was withdrawn ({}){}; it is tried again from {} as epoch {}",
        memory.index,
        cause(memory),
        needs.unwrap_or_default(),
        memory.next_retry,
        memory.epoch
    )
}

fn overdue(facts: &Facts<'_>) -> Claim {
    let limit = facts.budget.progress.as_secs();
    let capped = facts.why() == Some(Why::Accelerators);
    let words = if capped {
        let most = facts.budget.max_accelerators.unwrap_or_default();
        Some(format!("rollout.maxAccelerators is {most}"))
    } else {
        let withdrawn = lost(facts).filter(|memory| memory.reason.is_withdrawal());
        withdrawn.map(withdrawn_words).or_else(|| unplaced(facts))
    };
    let old = facts.decision.groups.len() > facts.updated() as usize;
    if let Some(words) = words.as_ref().filter(|_| old && facts.budget.max_unavailable == 0) {
        let message = format!(
            "no room for another group within {limit} s: {words}; free some, or set rollout.maxUnavailable: 1 and \
             rollout.maxSurge: 0, so that an old group goes first"
        );
        return claim("Degraded", true, "NoRoomToSurge", message);
    }
    let words = words.or_else(|| said(facts)).unwrap_or_else(|| facts.of_groups());
    let message = format!("nothing has come nearer to what is asked within {limit} s: {words}");
    claim("Degraded", true, "ProgressDeadlineExceeded", message)
}

fn withdrawn_words(memory: &Recovery) -> String {
    format!("group {} was withdrawn ({})", memory.index, cause(memory))
}

/// A group for which the scheduler has no room at this moment.
fn unplaced(facts: &Facts<'_>) -> Option<String> {
    let unplaced = |shard: &Shard| matches!(shard, Shard::Unschedulable(_));
    let group = facts.decision.groups.iter().find(|group| group.shards.iter().any(unplaced))?;
    Some(format!("group {}: {}", group.index, group.note.as_deref().unwrap_or("Unschedulable")))
}

/// The words of the first group of the target that is not ready.
fn said(facts: &Facts<'_>) -> Option<String> {
    let unready = facts.decision.groups.iter().filter(|group| !matches!(group.standing(), Standing::Ready(_)));
    let words =
        unready.filter(|group| facts.is_target(group)).find_map(|group| Some((group.index, group.note.as_ref()?)));
    words.map(|(index, note)| format!("group {index}: {note}"))
}
