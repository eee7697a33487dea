//! What a pod's status says: what the shard does, why it ends, and in whose words.
//!
//! Pure. Reads conditions and container states, never a log.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, PodCondition, PodStatus};

use crate::controller::rollout::{LossReason, Shard};
use crate::names::WORKER;

/// The longest note that is kept, in characters.
const NOTE: usize = 200;
/// What kubelet says when an image cannot be had. It tries again by itself, but only on this node.
const NO_IMAGE: [&str; 4] = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];

/// What the shard of a pod does that nobody told to end.
///
/// restartPolicy is Never: a phase of Failed or Succeeded is final, and so is the end of the worker, even while a
/// container that somebody added still runs.
pub(super) fn shard(status: &PodStatus) -> Shard {
    if ended(status) || no_image(status) {
        return Shard::Lost(cause(status).unwrap_or(LossReason::Exited));
    }
    let ready = condition(status, "Ready").filter(|condition| condition.status == "True");
    match (status.phase.as_deref(), ready, unscheduled(status)) {
        (Some("Running"), Some(ready), _) => Shard::Ready(since(ready)),
        (Some("Running"), None, _) => Shard::Running,
        (_, _, Some(why)) if why.reason.as_deref() == Some("SchedulingGated") => Shard::Gated,
        (_, _, Some(why)) if why.reason.as_deref() == Some("Unschedulable") => Shard::Unschedulable(since(why)),
        _ => Shard::Pending,
    }
}

/// Why the shard ends or has ended; `None`: it does not, or nothing but a deletion tells.
pub(super) fn cause(status: &PodStatus) -> Option<LossReason> {
    let exited = || ended(status).then_some(LossReason::Exited);
    let pulled = || no_image(status).then_some(LossReason::ImagePull);
    disruption(status).or_else(exited).or_else(pulled)
}

/// What was done to the pod by others, as the condition, the pod's reason or the kernel says.
pub(super) fn disruption(status: &PodStatus) -> Option<LossReason> {
    let target = disrupted(status).and_then(|condition| condition.reason.as_deref());
    let ended = terminated(status).and_then(|end| end.reason.as_deref());
    match (target, status.reason.as_deref(), ended) {
        (Some("PreemptionByScheduler"), ..) | (_, Some("Preempting"), _) => Some(LossReason::Preempted),
        (Some("DeletionByTaintManager" | "DeletionByPodGC"), ..)
        | (_, Some("NodeLost" | "NodeShutdown" | "Terminated"), _) => Some(LossReason::NodeLost),
        (_, _, Some("OOMKilled")) => Some(LossReason::OutOfMemory),
        (Some("EvictionByEvictionAPI" | "TerminationByKubelet"), ..) => Some(LossReason::Evicted),
        // Kubelet had no room after all: OutOfcpu, OutOfmemory, OutOfnvidia.com/gpu.
        (_, Some(reason), _) if reason == "Evicted" || reason.starts_with("OutOf") => Some(LossReason::Evicted),
        _ => None,
    }
}

/// Why a shard is not ready, in the words of whoever knows: who disrupted it, the process, kubelet, or the scheduler.
pub(super) fn note(status: &PodStatus) -> Option<String> {
    let message = status.message.clone().filter(|message| !message.is_empty());
    let others = message.or_else(|| disrupted(status).map(told));
    let own = terminated(status).map(last_words);
    let over = [others, own].into_iter().flatten().collect::<Vec<_>>().join("; ");
    let waiting = || {
        let waiting = states(status).find_map(|state| state.waiting.as_ref())?;
        Some(said(waiting.reason.as_deref()?, waiting.message.as_deref()))
    };
    let text = Some(over).filter(|text| !text.is_empty()).or_else(waiting).or_else(|| unscheduled(status).map(told))?;
    Some(text.chars().take(NOTE).collect())
}

fn told(condition: &PodCondition) -> String {
    said(condition.reason.as_deref().unwrap_or(&condition.type_), condition.message.as_deref())
}

fn said(reason: &str, message: Option<&str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    }
}

/// How the process ended and as many of its last lines as fit: the very last says most.
fn last_words(end: &ContainerStateTerminated) -> String {
    let mut words = format!("{} (exit code {})", end.reason.as_deref().unwrap_or("Ended"), end.exit_code);
    let mut room = NOTE.saturating_sub(words.chars().count() + 1);
    let lines = end.message.iter().flat_map(|message| message.lines().rev()).map(str::trim);
    let mut last = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let length = line.chars().count() + 3;
        if length > room && !last.is_empty() {
            break;
        }
        last.push(line);
        room = room.saturating_sub(length);
    }
    last.reverse();
    if !last.is_empty() {
        words.push(' ');
    }
    words + &last.join(" | ")
}

fn ended(status: &PodStatus) -> bool {
    let worker = status.container_statuses.iter().flatten().find(|container| container.name == WORKER);
    let gone = worker.and_then(|worker| worker.state.as_ref()?.terminated.as_ref()).is_some();
    gone || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))
}

fn terminated(status: &PodStatus) -> Option<&ContainerStateTerminated> {
    states(status).find_map(|state| state.terminated.as_ref())
}

fn no_image(status: &PodStatus) -> bool {
    let reasons = states(status).filter_map(|state| state.waiting.as_ref()?.reason.as_deref());
    reasons.into_iter().any(|reason| NO_IMAGE.contains(&reason))
}

/// Why no node has been found; a pod that waits for its gates was not even tried.
fn unscheduled(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "PodScheduled").filter(|condition| condition.status == "False")
}

fn disrupted(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "DisruptionTarget").filter(|condition| condition.status == "True")
}

fn since(condition: &PodCondition) -> Timestamp {
    condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The worker first: what else runs beside it says less.
fn states(status: &PodStatus) -> impl Iterator<Item = &ContainerState> {
    let all = || status.container_statuses.iter().flatten();
    let others = all().filter(|container| container.name != WORKER);
    let ordered = all().filter(|container| container.name == WORKER).chain(others);
    ordered.chain(status.init_container_statuses.iter().flatten()).filter_map(|container| container.state.as_ref())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}
