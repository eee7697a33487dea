//! The conditions of an object that this version cannot read.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::conditions::stamped;
use crate::controller::apply::keep_unknown;
use crate::controller::dereference::Unread;

/// Reason of the conditions.
pub const NOT_UNDERSTOOD: &str = "NotUnderstood";

/// The status of such an object: what it is not understood by, and nothing else changed. Whether its groups are available
/// nobody looks any more.
#[must_use]
pub fn not_understood(unread: &Unread, now: Timestamp) -> Value {
    let said = |kind| match kind {
        "Accepted" | "Ready" => ("False", NOT_UNDERSTOOD, unread.problem.as_str()),
        "Stalled" => ("True", NOT_UNDERSTOOD, unread.problem.as_str()),
        "Reconciling" => ("False", "Stalled", ""),
        _ => ("Unknown", NOT_UNDERSTOOD, "this operator touches nothing of an object that it does not understand"),
    };
    let before: Vec<Condition> = unread.status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|condition| serde_json::from_value(condition.clone()).ok())
        .collect();
    let kinds = ["Accepted", "Available", "Ready", "Reconciling", "Stalled"];
    let ours = kinds.map(|kind| stamped((kind, said(kind)), &before, unread.meta.generation, now));
    let others = before.iter().filter(|condition| !kinds.contains(&condition.type_.as_str())).cloned();
    let conditions: Vec<Condition> = ours.into_iter().chain(others).collect();
    let mut status = unread.status.clone();
    if status.is_null() {
        status = json!({});
    }
    status["observedGeneration"] = json!(unread.meta.generation);
    status["conditions"] = json!(conditions);
    keep_unknown(&unread.status, status)
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn only_the_conditions_say_what_is_not_understood_and_a_second_look_changes_nothing() {
        let then = "2026-01-01T00:00:00Z";
        let condition = |kind: &str, reason: &str| {
            json!({"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": then,
                "observedGeneration": 1})
        };
        let mut costly = condition("Costly", "Night");
        costly["watts"] = json!(700);
        let status = json!({
            "observedGeneration": 1, "joules": 5, "groups": [{"index": 0, "epoch": 1, "phase": "Warm"}],
            "conditions": [costly, condition("Planned", "Verified"), condition("Available", "GroupsAvailable")],
        });
        let meta = ObjectMeta { generation: Some(2), ..ObjectMeta::default() };
        let mut unread = Unread { meta, problem: "spec.x: TPU".into(), status: status.clone() };
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let after = not_understood(&unread, now);
        let said = after["conditions"].as_array().unwrap().iter();
        let said: Vec<_> =
            said.map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]).replace('"', "")).collect();
        assert_eq!(
            said,
            [
                "Accepted=False NotUnderstood",
                "Available=Unknown NotUnderstood",
                "Ready=False NotUnderstood",
                "Reconciling=False Stalled",
                "Stalled=True NotUnderstood",
                "Costly=True Night",
                "Planned=True Verified",
            ]
        );
        assert_eq!(after["conditions"][5], status["conditions"][0], "as it was, with what we do not know");
        assert_eq!((&after["joules"], &after["groups"]), (&status["joules"], &status["groups"]));
        unread.status = after.clone();
        assert_eq!(not_understood(&unread, "2026-01-03T00:00:00Z".parse().unwrap()), after);
    }
}
