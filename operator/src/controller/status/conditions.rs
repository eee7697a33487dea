//! The conditions: Accepted, Planned, Available, Ready, Reconciling, Stalled, Degraded.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Facts;
use super::degraded::degraded;
use super::progress::progress;

/// The longest message, in characters; the schema allows four times as many bytes.
const MESSAGE: usize = 1024;

/// One condition before it is compared with what was there.
pub(super) struct Claim {
    kind: &'static str,
    holds: bool,
    reason: String,
    message: String,
}

/// All conditions; the time of the last transition is kept while the status stays.
pub(super) fn conditions(facts: &Facts<'_>, progressed_at: Option<Timestamp>) -> Vec<Condition> {
    let before = facts.model.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let claims = [
        accepted(facts),
        planned(facts),
        available(facts),
        ready(facts),
        reconciling(facts),
        stalled(facts),
        degraded(facts, progressed_at),
    ];
    // Those of a newer version stay as it left them.
    let others = before.iter().filter(|old| claims.iter().all(|claim| claim.kind != old.type_)).cloned();
    let generation = facts.model.metadata.generation;
    let ours = claims.iter().map(|claim| {
        let status = if claim.holds { "True" } else { "False" };
        stamped((claim.kind, (status, &claim.reason, &claim.message)), before, generation, facts.now)
    });
    ours.chain(others).collect()
}

/// A condition of that kind, with status, reason and message; its time is kept while the status stays.
pub(super) fn stamped(
    (kind, (status, reason, message)): (&str, (&str, &str, &str)),
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let same = before.iter().find(|old| old.type_ == kind && old.status == status);
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(MESSAGE).collect(),
        last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
        observed_generation: generation,
    }
}

pub(super) fn claim(kind: &'static str, holds: bool, reason: &str, message: impl Into<String>) -> Claim {
    Claim { kind, holds, reason: reason.to_owned(), message: message.into() }
}

fn accepted(facts: &Facts<'_>) -> Claim {
    match facts.rejection {
        Some(rejection) => claim("Accepted", false, rejection.reason(), rejection.to_string()),
        None if !facts.unknown.is_empty() => {
            let fields = facts.unknown.join(", ");
            claim(
                "Accepted",
                true,
                "UnknownFields",
                format!("this operator does not know and does not act on {fields}"),
            )
        }
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

fn available(facts: &Facts<'_>) -> Claim {
    if facts.wished() == 0 {
        return claim("Available", false, "ScaledToZero", "replicas is 0");
    }
    let missing = u32::try_from(facts.model.spec.rollout.max_unavailable).unwrap_or(0);
    let floor = facts.wished().saturating_sub(missing).max(1);
    let holds = facts.available() >= floor;
    claim("Available", holds, if holds { "GroupsAvailable" } else { "GroupsNotAvailable" }, facts.of_groups())
}

fn ready(facts: &Facts<'_>) -> Claim {
    if facts.whole() {
        let zero = facts.wished() == 0;
        return claim("Ready", true, if zero { "ScaledToZero" } else { "AllGroupsAvailable" }, facts.of_groups());
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
    if let Some(too_small) = cap_below_a_group(facts) {
        return Some(("AcceleratorCapTooSmall".to_owned(), too_small));
    }
    let verdict = facts.verdict().filter(|_| facts.revisions.target.is_none())?;
    Some((verdict.reason.as_str().to_owned(), verdict.message.clone()))
}

/// The planner chose a group that `maxAccelerators` never admits; shards that the spec gives are checked by its schema.
fn cap_below_a_group(facts: &Facts<'_>) -> Option<String> {
    let shards = facts.revisions.target.as_ref()?.shards;
    let most = facts.budget.max_accelerators.filter(|most| *most < shards)?;
    Some(format!("a group of this plan has {shards} shards; rollout.maxAccelerators is {most}"))
}
