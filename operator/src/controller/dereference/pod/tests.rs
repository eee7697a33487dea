use pretty_assertions::assert_eq;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn view(status: &Value) -> PodView {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
}

/// A status whose worker has `state`.
fn worker(phase: &str, state: &Value) -> Value {
    json!({"phase": phase, "containerStatuses": [
        {"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
    ]})
}

fn waiting(reason: &str, message: &str) -> Value {
    worker("Pending", &json!({"waiting": {"reason": reason, "message": message}}))
}

fn ended(reason: &str, code: i32, message: &str) -> Value {
    worker("Failed", &json!({"terminated": {"exitCode": code, "reason": reason, "message": message}}))
}

fn with(mut status: Value, kind: &str, value: &str, reason: &str) -> Value {
    let at = "2026-01-02T03:04:05Z";
    let condition =
        json!({"type": kind, "status": value, "reason": reason, "message": "why", "lastTransitionTime": at});
    status["conditions"] = json!([condition]);
    status
}

fn phase(word: &str) -> Value {
    json!({"phase": word})
}

fn lost(reason: LossReason) -> Shard {
    Shard::Lost(reason)
}

fn then() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

#[rstest]
#[case(
    with(phase("Pending"), "PodScheduled", "False", "Unschedulable"),
    Shard::Unschedulable(then()),
    "Unschedulable: why"
)]
#[case(with(phase("Pending"), "PodScheduled", "False", "SchedulingGated"), Shard::Gated, "SchedulingGated: why")]
#[case(with(phase("Pending"), "PodScheduled", "False", "SchedulerError"), Shard::Pending, "SchedulerError: why")]
#[case(with(phase("Pending"), "PodScheduled", "True", ""), Shard::Pending, "")]
#[case(waiting("ContainerCreating", ""), Shard::Pending, "ContainerCreating")]
#[case(waiting("ErrImagePull", "not found"), lost(LossReason::ImagePull), "ErrImagePull: not found")]
#[case(waiting("ImagePullBackOff", "again"), lost(LossReason::ImagePull), "ImagePullBackOff: again")]
#[case(waiting("InvalidImageName", ""), lost(LossReason::ImagePull), "InvalidImageName")]
#[case(ended("OOMKilled", 137, "last line\n"), lost(LossReason::OutOfMemory), "OOMKilled (exit code 137) last line")]
#[case(ended("Error", 1, ""), lost(LossReason::Exited), "Error (exit code 1)")]
#[case(worker("Running", &json!({"terminated": {"exitCode": 2}})), lost(LossReason::Exited), "Ended (exit code 2)")]
#[case(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}), lost(LossReason::Evicted), "low on memory")]
#[case(json!({"phase": "Failed", "reason": "OutOfcpu", "message": "no cpu"}), lost(LossReason::Evicted), "no cpu")]
#[case(json!({"phase": "Failed", "reason": "NodeShutdown"}), lost(LossReason::NodeLost), "")]
#[case(
    with(phase("Failed"), "DisruptionTarget", "True", "PreemptionByScheduler"),
    lost(LossReason::Preempted),
    "PreemptionByScheduler: why"
)]
#[case(
    with(ended("Error", 143, "bye"), "DisruptionTarget", "True", "TerminationByKubelet"),
    lost(LossReason::Evicted),
    "TerminationByKubelet: why; Error (exit code 143) bye"
)]
#[case(with(phase("Failed"), "DisruptionTarget", "False", "PreemptionByScheduler"), lost(LossReason::Exited), "")]
#[case(phase("Succeeded"), lost(LossReason::Exited), "")]
#[case(phase("Running"), Shard::Running, "")]
#[case(with(phase("Running"), "Ready", "False", ""), Shard::Running, "")]
#[case(with(phase("Running"), "Ready", "True", ""), Shard::Ready(then()), "")]
fn a_status_says_what_the_shard_does_and_why(#[case] status: Value, #[case] shard: Shard, #[case] note: &str) {
    let view = view(&status);
    assert_eq!((view.shard, view.note.unwrap_or_default().as_str()), (shard, note));
}

#[rstest]
#[case(phase("Running"), None)]
#[case(ended("Error", 143, ""), None)]
#[case(ended("OOMKilled", 137, ""), Some(LossReason::OutOfMemory))]
#[case(with(phase("Running"), "DisruptionTarget", "True", "EvictionByEvictionAPI"), Some(LossReason::Evicted))]
#[case(with(phase("Running"), "DisruptionTarget", "True", "DeletionByTaintManager"), Some(LossReason::NodeLost))]
#[case(with(phase("Running"), "DisruptionTarget", "True", "DeletionByPodGC"), Some(LossReason::NodeLost))]
#[case(with(phase("Running"), "DisruptionTarget", "True", "PreemptionByScheduler"), Some(LossReason::Preempted))]
fn a_pod_that_was_told_to_end_says_who_told_it_unless_it_was_a_plain_deletion(
    #[case] status: Value,
    #[case] cause: Option<LossReason>,
) {
    let metadata = json!({"name": "p", "deletionTimestamp": "2026-01-02T03:04:05Z"});
    let view: PodView = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
    assert_eq!((view.shard, view.cause), (Shard::Terminating, cause));
}

#[test]
fn of_a_long_message_the_last_lines_are_kept() {
    let long = format!("{}\nloading\n\nthread 'main' panicked\nno such expert\n", "x".repeat(300));
    let note = view(&ended("Error", 101, &long)).note.unwrap();
    assert_eq!(note, "Error (exit code 101) loading | thread 'main' panicked | no such expert");
    let one = view(&ended("Error", 101, &"y".repeat(300))).note.unwrap();
    assert_eq!(one, format!("Error (exit code 101) {}", "y".repeat(178)));
}

#[test]
fn what_a_pod_said_before_it_was_told_to_end_is_remembered() {
    let older = view(&ended("Error", 1, "bye"));
    let metadata = json!({"name": "p", "deletionTimestamp": "2026-01-02T03:04:05Z"});
    let mut newer: PodView = serde_json::from_value(json!({"metadata": metadata, "status": {}})).unwrap();
    assert!(newer.succeed(&older));
    assert_eq!((newer.cause, newer.note.as_deref()), (Some(LossReason::Exited), Some("Error (exit code 1) bye")));
}

/// A pod that runs, with the labels that it was made with, then changed by `change`.
fn labelled(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> PodView {
    let mut labels = json!({
        label::MODEL: "m", label::REVISION: "0123456789", label::GROUP: "2", label::EPOCH: "3", label::RANK: "1",
        label::ACCEPTS: "true", "team": "x",
    });
    change(labels.as_object_mut().unwrap());
    let metadata = json!({"name": "m-abcdef-g2-e3-r1", "labels": labels});
    serde_json::from_value(json!({"metadata": metadata, "status": {"phase": "Running"}})).unwrap()
}

#[rstest]
#[case(label::GROUP, "7")]
#[case(label::EPOCH, "18446744073709551615")]
#[case(label::RANK, "0")]
#[case(label::ACCEPTS, "false")]
fn a_pod_whose_labels_were_changed_is_a_lost_shard_of_the_group_that_its_name_tells(
    #[case] key: &str,
    #[case] value: &str,
) {
    let right = labelled(|_| {});
    assert_eq!(right.shard, Shard::Running);
    let changed = labelled(|labels| _ = labels.insert(key.to_owned(), json!(value)));
    let removed = labelled(|labels| _ = labels.remove(key));
    for (view, how) in [(changed, format!(" to {value}")), (removed, format!("removed its label {key}"))] {
        assert_eq!((&view.place, view.shard), (&right.place, Shard::Lost(LossReason::Altered)));
        assert!(view.note.as_ref().unwrap().ends_with(&how), "{:?}", view.note);
    }
    let revision = labelled(|labels| _ = labels.remove(label::REVISION)).place.unwrap();
    assert_eq!((revision.revision.as_str(), revision.index, revision.epoch, revision.rank), ("", 2, 3, 1));
}

/// The same pod as a stage of `placement`, with that label of who takes requests.
fn stage(name: &str, accepts: &str, placement: &Placement) -> PodView {
    let rank = &name[name.len() - 1..];
    let labels = json!({
        label::MODEL: "m", label::REVISION: "0123456789", label::GROUP: "2", label::EPOCH: "3", label::RANK: rank,
        label::ACCEPTS: accepts,
    });
    let container = json!({"name": "worker", "args": ["--size", "2", "--placement", placement.to_base64()]});
    let metadata = json!({"name": name, "labels": labels});
    let pod = json!({"metadata": metadata, "spec": {"containers": [container]}, "status": {"phase": "Running"}});
    serde_json::from_value(pod).unwrap()
}

#[test]
fn of_a_pipeline_only_the_first_stage_is_made_to_take_requests() {
    let (pipeline, experts) = (Placement::even_pipeline(4, 2).unwrap(), Placement::even(4, 2).unwrap());
    let (first, second) = ("m-abcdef-g2-e3-r0", "m-abcdef-g2-e3-r1");
    for (name, accepts, placement) in [
        (first, "true", &pipeline),
        (second, "false", &pipeline),
        (first, "true", &experts),
        (second, "true", &experts),
    ] {
        assert_eq!(stage(name, accepts, placement).shard, Shard::Running, "{name} {accepts}");
        let other = if accepts == "true" { "false" } else { "true" };
        assert_eq!(stage(name, other, placement).shard, Shard::Lost(LossReason::Altered), "{name} {other}");
    }
}
