//! A pod as the rollout sees it.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::{ModelKey, View};
use crate::controller::rollout::{LossReason, Shard};
use crate::names::label;

/// The longest note that is kept, in characters.
const NOTE: usize = 200;

/// The few fields of a pod that decisions rest on.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(from = "Pod")]
pub struct PodView {
    /// Name, namespace, uid and resourceVersion only.
    pub meta: ObjectMeta,
    /// Value of the model label.
    pub model: Option<String>,
    /// UID of the controller.
    pub controller: Option<String>,
    /// Which formation of which group, by its labels; `None`: not one of ours.
    pub place: Option<Place>,
    /// What it is doing.
    pub shard: Shard,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Where it runs.
    pub node: Option<String>,
    /// Why it is not ready, in the words of whoever knows: scheduler, kubelet, or the process's last lines.
    pub note: Option<String>,
}

/// What the labels of a pod say, and its arguments of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its revision.
    pub revision: String,
    /// Its group.
    pub index: u32,
    /// The group's formation.
    pub epoch: u64,
    /// Its rank in the group.
    pub rank: u32,
    /// Shards of its group, as its worker was told.
    pub size: Option<u32>,
}

impl From<Pod> for PodView {
    fn from(pod: Pod) -> Self {
        let metadata = pod.metadata;
        let labels = metadata.labels.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid);
        let number = |key: &str| labels.get(key).and_then(|text| text.parse::<u64>().ok());
        let small = |key: &str| number(key).and_then(|number| u32::try_from(number).ok());
        let place = || {
            Some(Place {
                revision: labels.get(label::REVISION)?.clone(),
                index: small(label::GROUP)?,
                epoch: number(label::EPOCH)?,
                rank: small(label::RANK)?,
                size: pod.spec.as_ref().and_then(size),
            })
        };
        Self {
            model: labels.get(label::MODEL).cloned(),
            controller,
            place: place(),
            shard: if metadata.deletion_timestamp.is_some() { Shard::Terminating } else { shard(&status) },
            created: metadata.creation_timestamp.map(|time| time.0),
            node: pod.spec.and_then(|spec| spec.node_name),
            note: note(&status).map(|text| text.chars().take(NOTE).collect()),
            meta: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
        }
    }
}

/// The value after `--size`.
fn size(spec: &PodSpec) -> Option<u32> {
    let args = spec.containers.first()?.args.as_ref()?;
    args.iter().skip_while(|arg| *arg != "--size").nth(1)?.parse().ok()
}

/// restartPolicy is Never: a phase of Failed or Succeeded is final.
fn shard(status: &PodStatus) -> Shard {
    let ready = condition(status, "Ready").filter(|condition| condition.status == "True");
    match status.phase.as_deref() {
        Some("Failed" | "Succeeded") => Shard::Lost(loss(status)),
        Some("Running") => match ready {
            Some(ready) => {
                Shard::Ready(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
            }
            None => Shard::Running,
        },
        _ => Shard::Pending,
    }
}

fn loss(status: &PodStatus) -> LossReason {
    let disrupted = condition(status, "DisruptionTarget").and_then(|condition| condition.reason.as_deref());
    let ended = terminated(status).and_then(|end| end.reason.as_deref());
    match (disrupted, status.reason.as_deref(), ended) {
        (Some("PreemptionByScheduler"), ..) => LossReason::Preempted,
        (Some("DeletionByTaintManager" | "DeletionByPodGC"), ..) | (_, Some("NodeLost" | "NodeShutdown"), _) => {
            LossReason::NodeLost
        }
        (_, _, Some("OOMKilled")) => LossReason::OutOfMemory,
        (_, Some("Evicted"), _) | (Some("EvictionByEvictionAPI" | "TerminationByKubelet"), ..) => LossReason::Evicted,
        _ => LossReason::Exited,
    }
}

fn note(status: &PodStatus) -> Option<String> {
    if let Some(end) = terminated(status) {
        let last = end.message.as_deref().map(str::trim).unwrap_or_default();
        let reason = end.reason.as_deref().unwrap_or("Ended");
        return Some(format!("{reason} (exit code {}) {last}", end.exit_code).trim_end().to_owned());
    }
    if let Some(message) = status.message.clone().filter(|message| !message.is_empty()) {
        return Some(message);
    }
    let waiting = states(status).find_map(|state| state.waiting.as_ref());
    if let Some(reason) = waiting.and_then(|waiting| waiting.reason.clone()) {
        let said = waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default();
        return Some(if said.is_empty() { reason } else { format!("{reason}: {said}") });
    }
    let unscheduled = condition(status, "PodScheduled").filter(|condition| condition.status == "False")?;
    Some(format!(
        "{}: {}",
        unscheduled.reason.as_deref().unwrap_or("Unscheduled"),
        unscheduled.message.as_deref().unwrap_or_default()
    ))
}

fn states(status: &PodStatus) -> impl Iterator<Item = &ContainerState> {
    let init = status.init_container_statuses.iter().flatten();
    let containers = init.chain(status.container_statuses.iter().flatten());
    containers.filter_map(|container| container.state.as_ref())
}

fn terminated(status: &PodStatus) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    states(status).find_map(|state| state.terminated.as_ref())
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

impl View for PodView {
    fn model(&self) -> Option<ModelKey> {
        Some(ModelKey { namespace: self.meta.namespace.clone()?, name: self.model.clone()? })
    }

    /// A deletion is never taken back, and a note outlives the status that it came from.
    fn succeed(&mut self, older: &Self) -> bool {
        if older.shard == Shard::Terminating {
            self.shard = Shard::Terminating;
        }
        Self { meta: older.meta.clone(), ..self.clone() } != *older
    }
}

impl Resource for PodView {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn view(status: &Value) -> PodView {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[rstest]
    #[case(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/6 nodes"}]}),
        Shard::Pending, "Unschedulable: 0/6 nodes")]
    #[case(json!({"phase": "Pending", "containerStatuses": [{"name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]}), Shard::Pending, "ImagePullBackOff: not found")]
    #[case(json!({"phase": "Failed", "containerStatuses": [{"name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "last line\n"}}}]}),
        Shard::Lost(LossReason::OutOfMemory), "OOMKilled (exit code 137) last line")]
    #[case(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}), Shard::Lost(LossReason::Evicted), "low on memory")]
    #[case(json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]}),
        Shard::Lost(LossReason::Preempted), "")]
    #[case(json!({"phase": "Succeeded"}), Shard::Lost(LossReason::Exited), "")]
    #[case(json!({"phase": "Running"}), Shard::Running, "")]
    #[case(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}]}),
        Shard::Ready("2026-01-02T03:04:05Z".parse().unwrap()), "")]
    fn a_status_says_what_the_shard_does_and_why(#[case] status: Value, #[case] shard: Shard, #[case] note: &str) {
        let view = view(&status);
        assert_eq!((view.shard, view.note.unwrap_or_default().as_str()), (shard, note));
    }
}
