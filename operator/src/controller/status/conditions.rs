//! The conditions: Accepted, Planned, Available, Ready, Reconciling, Stalled, Degraded.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::super::rollout::{Standing, Step, Why};
use super::Facts;

/// The longest message, in characters; the schema allows four times as many bytes.
const MESSAGE: usize = 1024;

struct Claim {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

/// All conditions; the time of the last transition is kept while the status stays.
pub(super) fn conditions(facts: &Facts<'_>, before: &[Condition]) -> Vec<Condition> {
    let claims = [
        accepted(facts),
        planned(facts),
        available(facts),
        ready(facts),
        reconciling(facts),
        stalled(facts),
        degraded(facts),
    ];
    claims.into_iter().map(|claim| condition(facts, claim, before)).collect()
}

fn condition(facts: &Facts<'_>, claim: Claim, before: &[Condition]) -> Condition {
    let status = if claim.holds { "True" } else { "False" };
    let same = before.iter().find(|old| old.type_ == claim.kind && old.status == status);
    let now = Timestamp::from_second(facts.now.as_second()).unwrap_or(facts.now);
    Condition {
        type_: claim.kind.to_owned(),
        status: status.to_owned(),
        reason: claim.reason,
        message: claim.message.chars().take(MESSAGE).collect(),
        last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
        observed_generation: facts.model.metadata.generation,
    }
}

fn claim(kind: &'static str, holds: bool, reason: &str, message: impl Into<String>) -> Claim {
    Claim { kind, holds, reason: reason.to_owned(), message: message.into() }
}

fn accepted(facts: &Facts<'_>) -> Claim {
    match facts.rejection {
        Some(rejection) => claim("Accepted", false, rejection.reason(), rejection.to_string()),
        None => claim("Accepted", true, "Accepted", ""),
    }
}

fn planned(facts: &Facts<'_>) -> Claim {
    match facts.verdict() {
        Some(verdict) => {
            claim("Planned", verdict.reason.permits_pods(), verdict.reason.as_str(), verdict.message.clone())
        }
        None => claim("Planned", false, "NotAccepted", "only an accepted spec is planned"),
    }
}

fn of_groups(facts: &Facts<'_>) -> String {
    format!("{} of {} groups are available", facts.available(), facts.wished())
}

fn available(facts: &Facts<'_>) -> Claim {
    if facts.wished() == 0 {
        return claim("Available", false, "ScaledToZero", "replicas is 0");
    }
    let missing = u32::try_from(facts.model.spec.rollout.max_unavailable).unwrap_or(0);
    let floor = facts.wished().saturating_sub(missing).max(1);
    let holds = facts.available() >= floor;
    claim("Available", holds, if holds { "GroupsAvailable" } else { "GroupsNotAvailable" }, of_groups(facts))
}

fn ready(facts: &Facts<'_>) -> Claim {
    if facts.whole() {
        let zero = facts.wished() == 0;
        return claim("Ready", true, if zero { "ScaledToZero" } else { "AllGroupsAvailable" }, of_groups(facts));
    }
    let (reason, message) = blocker(facts).unwrap_or_else(|| progress(facts));
    Claim { kind: "Ready", holds: false, reason, message }
}

fn reconciling(facts: &Facts<'_>) -> Claim {
    if facts.whole() {
        return claim("Reconciling", false, "Settled", "");
    }
    if blocker(facts).is_some() {
        return claim("Reconciling", false, "Stalled", "");
    }
    let (reason, message) = progress(facts);
    Claim { kind: "Reconciling", holds: true, reason, message }
}

fn stalled(facts: &Facts<'_>) -> Claim {
    match blocker(facts) {
        Some((reason, message)) => Claim { kind: "Stalled", holds: true, reason, message },
        None => claim("Stalled", false, "NotStalled", ""),
    }
}

/// What only a change of the spec, the cluster or its rights can resolve.
fn blocker(facts: &Facts<'_>) -> Option<(String, String)> {
    if let Some(rejection) = facts.rejection {
        return Some((rejection.reason().to_owned(), rejection.to_string()));
    }
    if let Some(problem) = facts.problem {
        return Some((problem.reason().to_owned(), problem.to_string()));
    }
    let verdict = facts.verdict().filter(|_| facts.revisions.target.is_none())?;
    Some((verdict.reason.as_str().to_owned(), verdict.message.clone()))
}

fn progress(facts: &Facts<'_>) -> (String, String) {
    let why = facts.decision.steps.iter().find_map(|step| match step {
        Step::Wait { why, .. } => Some(*why),
        _ => None,
    });
    let old = facts.decision.groups.len() > facts.updated() as usize;
    let reason = match why {
        Some(Why::BackOff) => "BackOff",
        _ if old => "RollingOut",
        _ if !facts.decision.recovery.is_empty() && recovering(facts).is_some() => "Recovering",
        Some(Why::MinReady) => "MinReadySeconds",
        _ => "Starting",
    };
    (reason.to_owned(), format!("{}; {} of the target revision", of_groups(facts), facts.updated()))
}

/// The slot that has been lost most often and is not ready again.
fn recovering(facts: &Facts<'_>) -> Option<String> {
    let unready = |index: u32| {
        let mut groups = facts.decision.groups.iter().filter(move |group| group.index == index);
        groups.any(|group| !matches!(group.standing(), Standing::Ready(_)))
    };
    let worst = facts.decision.recovery.iter().filter(|memory| unready(memory.index)).max_by_key(|m| m.failures)?;
    Some(format!(
        "group {} lost a shard ({}) {} times; it forms again as epoch {}",
        worst.index,
        worst.reason.as_str(),
        worst.failures,
        worst.epoch
    ))
}

fn degraded(facts: &Facts<'_>) -> Claim {
    if let Some(error) = &facts.revisions.unreadable {
        return claim("Degraded", true, "RevisionUnreadable", error.to_string());
    }
    if let Some(problem) = facts.problem {
        return claim("Degraded", true, problem.reason(), problem.to_string());
    }
    match recovering(facts) {
        Some(message) => claim("Degraded", true, "ShardLost", message),
        None => claim("Degraded", false, "AsExpected", ""),
    }
}
