//! A pod as the rollout sees it.

mod state;

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use shoal_proto::placement::Placement;
use shoal_proto::shard::Strategy;

use super::{ModelKey, View};
use crate::controller::rollout::{LossReason, Shard};
use crate::names::{PodName, label};

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
    /// Which formation of which group; `None`: not one of ours.
    pub place: Option<Place>,
    /// What it is doing.
    pub shard: Shard,
    /// Why it ends or has ended, as far as its status tells: a pod that was told to end no longer shows it otherwise.
    pub cause: Option<LossReason>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Where it runs.
    pub node: Option<String>,
    /// Why it is not ready, in the words of whoever knows: scheduler, kubelet, or the process's last lines.
    pub note: Option<String>,
}

/// Which shard a pod is: by its name, which nobody can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its revision, by its label alone; empty without one.
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
        let ending = metadata.deletion_timestamp.is_some();
        let place = metadata.name.as_deref().and_then(|name| place(name, &labels, pod.spec.as_ref()));
        let accepts = place.as_ref().is_none_or(|place| place.rank == 0) || !pod.spec.as_ref().is_some_and(is_stage);
        let altered = place.as_ref().and_then(|place| altered(place, accepts, &labels)).filter(|_| !ending);
        let view = Self {
            model: labels.get(label::MODEL).cloned(),
            controller,
            place,
            shard: if ending { Shard::Terminating } else { state::shard(&status) },
            cause: if ending { state::disruption(&status) } else { state::cause(&status) },
            created: metadata.creation_timestamp.map(|time| time.0),
            node: pod.spec.and_then(|spec| spec.node_name),
            note: state::note(&status),
            meta: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                ..ObjectMeta::default()
            },
        };
        match altered {
            Some(how) => view.altered(how),
            None => view,
        }
    }
}

fn place(name: &str, labels: &BTreeMap<String, String>, spec: Option<&PodSpec>) -> Option<Place> {
    let (group, rank) = PodName::place(name)?;
    let revision = labels.get(label::REVISION).cloned().unwrap_or_default();
    let (index, epoch) = (group.index.0, group.epoch.0);
    Some(Place { revision, index, epoch, rank: rank.0, size: spec.and_then(size) })
}

/// How the labels differ from those that a pod of that place was made with. Whether the revision does, only its group knows.
fn altered(place: &Place, accepts: bool, labels: &BTreeMap<String, String>) -> Option<String> {
    let Place { index, epoch, rank, .. } = place;
    let made = [
        (label::GROUP, index.to_string()),
        (label::EPOCH, epoch.to_string()),
        (label::RANK, rank.to_string()),
        (label::ACCEPTS, accepts.to_string()),
    ];
    let (key, was) = made.into_iter().find(|(key, was)| labels.get(*key) != Some(was))?;
    Some(match labels.get(key) {
        Some(now) => format!("somebody changed its label {key} from {was} to {now}"),
        None => format!("somebody removed its label {key}"),
    })
}

/// The value after `--size`.
fn size(spec: &PodSpec) -> Option<u32> {
    value_after(spec, "--size")?.parse().ok()
}

/// Whether the pod is one stage of a pipeline: of those only the first takes requests.
fn is_stage(spec: &PodSpec) -> bool {
    let placement = value_after(spec, "--placement").and_then(|text| Placement::from_base64(text).ok());
    placement.is_some_and(|placement| placement.strategy() == Strategy::Pipeline)
}

fn value_after<'a>(spec: &'a PodSpec, flag: &str) -> Option<&'a str> {
    let args = spec.containers.first()?.args.as_ref()?;
    args.iter().skip_while(|arg| *arg != flag).nth(1).map(String::as_str)
}

impl PodView {
    /// The same pod after somebody changed what it is known by: lost, unless it has ended by itself.
    #[must_use]
    pub fn altered(mut self, how: String) -> Self {
        if !matches!(self.shard, Shard::Lost(_)) && !self.shard.is_ending() {
            self.shard = Shard::Lost(LossReason::Altered);
            self.cause = Some(LossReason::Altered);
            self.note = Some(how);
        }
        self
    }

    /// The same pod on a node that is lost: its shard is lost too, whatever it last said, and nobody can say when it ends.
    #[must_use]
    pub fn stranded(mut self) -> Self {
        if self.shard.is_ending() {
            self.shard = Shard::Stranded;
        } else if !matches!(self.shard, Shard::Lost(_)) {
            self.shard = Shard::Lost(LossReason::NodeLost);
            let node = self.node.as_deref().unwrap_or_default();
            self.note = Some(format!("node {node} is unreachable or gone"));
        }
        self.cause.get_or_insert(LossReason::NodeLost);
        self
    }
}

impl View for PodView {
    fn model(&self) -> Option<ModelKey> {
        Some(ModelKey { namespace: self.meta.namespace.clone()?, name: self.model.clone()? })
    }

    /// A deletion is never taken back, and the note of a pod that ends outlives the status that it came from.
    fn succeed(&mut self, older: &Self) -> bool {
        if older.shard.is_ending() && !self.shard.is_ending() {
            self.shard = older.shard;
        }
        if self.shard.is_ending() {
            self.cause = self.cause.or(older.cause);
            self.note = self.note.take().or_else(|| older.note.clone());
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
mod tests;
