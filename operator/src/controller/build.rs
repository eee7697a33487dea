//! Makes the objects of a model out of what was decided. Cannot fail: its input cannot be wrong.
//!
//! Pure. Never looks at what exists.

mod args;
mod budget;
mod pod;
mod policy;
mod secret;
mod service;

pub use self::pod::SHARD_TLS_MOUNT;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;

use crate::controller::plan::Revision;
use crate::controller::rollout::Group;
use crate::controller::validate::Owner;
use crate::crd::ModelDeployment;
use crate::names::{GroupId, PodName, Rank, label};

/// The pods of one formation of one group, in order of rank.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPods {
    /// Which formation of which group.
    pub group: GroupId,
    /// Index = rank.
    pub pods: Vec<Pod>,
}

/// The Services of one model, independent of revisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Services {
    /// Named as the model: what clients dial.
    pub client: Service,
    /// Headless: gives every shard its DNS name, ready or not.
    pub shards: Service,
}

/// The pods of `group`, formed from `revision`.
#[must_use]
pub fn group(revision: &Revision, group: GroupId) -> GroupPods {
    GroupPods { group, pods: (0..revision.shards).map(|rank| pod::pod(revision, group, Rank(rank))).collect() }
}

/// What the shards of `revision` prove themselves with, still without its key pair; `None`: a lone shard has no peers.
#[must_use]
pub fn shard_tls(revision: &Revision) -> Option<Secret> {
    has_peers(revision).then(|| secret::shard_tls(revision))
}

fn has_peers(revision: &Revision) -> bool {
    revision.shards > 1
}

/// The Services of a model; `headless`: the client Service resolves to pods.
#[must_use]
pub fn services(owner: &Owner, headless: bool) -> Services {
    Services { client: service::client(owner, headless), shards: service::shards(owner) }
}

/// The PodDisruptionBudget of a model while `groups` exist and `wished` are to serve; `None`: it needs none.
#[must_use]
pub fn budget(owner: &Owner, groups: &[Group], wished: u32) -> Option<PodDisruptionBudget> {
    budget::budget(owner, groups, wished)
}

/// How many pods the budget of [`budget`] keeps; 0 without one.
#[must_use]
pub fn kept(groups: &[Group], wished: u32) -> i32 {
    budget::least(groups, wished).unwrap_or(0)
}

/// The NetworkPolicy of a model: who may reach which port of its shards.
#[must_use]
pub fn policy(owner: &Owner) -> NetworkPolicy {
    policy::policy(owner)
}

/// Selects exactly one pod per group: `status.selector` of the scale subresource.
#[must_use]
pub fn scale_selector(owner: &Owner) -> String {
    format!("{}={},{}=0", label::MODEL, owner.name, label::RANK)
}

/// What marks an object as ours.
#[must_use]
pub fn owner_reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: ModelDeployment::api_version(&()).into_owned(),
        kind: ModelDeployment::kind(&()).into_owned(),
        name: owner.name.to_string(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn pod_name(revision: &Revision, group: GroupId, rank: Rank) -> PodName {
    let owner = &revision.spec.owner;
    PodName::new(&owner.name, &owner.uid, &revision.hash, group, rank)
}

/// Metadata of an object of a model that is none of a group.
fn meta(owner: &Owner, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(owner.namespace.clone()),
        labels: Some(common_labels(owner)),
        owner_references: Some(vec![owner_reference(owner)]),
        ..Default::default()
    }
}

/// Labels of every object of a model.
fn common_labels(owner: &Owner) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "shoal-worker".to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "shoal".to_owned()),
        (label::MODEL.to_owned(), owner.name.to_string()),
    ])
}
