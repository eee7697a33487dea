//! One shard as a pod that passes Pod Security `restricted`.

mod container;
mod scheduling;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, ImageVolumeSource, LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod,
    PodSchedulingGate, PodSecurityContext, PodSpec, SeccompProfile, SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use super::{common_labels, has_peers, owner_reference, pod_name, secret};
use crate::controller::plan::Revision;
use crate::controller::validate::ModelSource;
use crate::crd::Strategy;
use crate::names::{GroupId, Rank, label};

const MODEL_VOLUME: &str = "model";
const TMP_VOLUME: &str = "tmp";
const SHARD_TLS_VOLUME: &str = "shard-tls";
/// Where a worker finds `tls.crt` and `tls.key`.
pub const SHARD_TLS_MOUNT: &str = "/etc/shoal/shard-tls";
/// The files belong to root; the worker reads them through the pod's fsGroup.
const SHARD_TLS_MODE: i32 = 0o440;
/// Uid and gid of the worker: nobody's, as in distroless images.
const NONROOT: i64 = 65532;
/// Longer than a drain (5 s of acceptance, 100 s of streams).
const GRACE_SECONDS: i64 = 120;

/// The pod of `rank`.
pub(super) fn pod(revision: &Revision, group: GroupId, rank: Rank) -> Pod {
    let asked = &revision.spec.pod;
    let owner = &revision.spec.owner;
    let name = pod_name(revision, group, rank).to_string();
    let secrets = asked.image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() });
    let gates = asked.scheduling_gates.iter().map(|gate| PodSchedulingGate { name: gate.name.clone() });
    let spec = PodSpec {
        hostname: Some(name.clone()),
        subdomain: Some(owner.name.shards_service()),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        service_account_name: Some(asked.service_account_name.clone().unwrap_or_else(|| "default".to_owned())),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(security()),
        containers: vec![container::worker(revision, group, rank)],
        volumes: Some(volumes(revision)),
        image_pull_secrets: filled(secrets.collect()),
        scheduling_gates: filled(gates.collect()),
        node_selector: (!asked.node_selector.is_empty()).then(|| asked.node_selector.clone()),
        tolerations: Some(scheduling::tolerations(asked)),
        affinity: scheduling::affinity(revision, group),
        topology_spread_constraints: scheduling::spread(revision, group),
        priority_class_name: asked.priority_class_name.clone(),
        runtime_class_name: asked.runtime_class_name.clone(),
        scheduler_name: asked.scheduler_name.clone(),
        ..Default::default()
    };
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(owner.namespace.clone()),
        labels: Some(labels(revision, group, rank)),
        annotations: Some(annotations(revision)),
        owner_references: Some(vec![owner_reference(owner)]),
        ..Default::default()
    };
    Pod { metadata, spec: Some(spec), status: None }
}

/// Labels of the user, then ours: ours win.
fn labels(revision: &Revision, group: GroupId, rank: Rank) -> BTreeMap<String, String> {
    // Of a pipeline the first stage alone takes requests.
    let accepts = revision.spec.strategy == Strategy::Experts || rank.0 == 0;
    let mut labels = revision.spec.pod.labels.clone();
    labels.extend(common_labels(&revision.spec.owner));
    labels.extend([
        (label::REVISION.to_owned(), revision.hash.to_string()),
        (label::GROUP.to_owned(), group.index.to_string()),
        (label::EPOCH.to_owned(), group.epoch.to_string()),
        (label::RANK.to_owned(), rank.to_string()),
        (label::ACCEPTS.to_owned(), accepts.to_string()),
    ]);
    labels
}

/// A group comes back by itself, so an autoscaler may empty its nodes, unless the user says otherwise.
fn annotations(revision: &Revision) -> BTreeMap<String, String> {
    let safe = ("cluster-autoscaler.kubernetes.io/safe-to-evict".to_owned(), "true".to_owned());
    let mut annotations = BTreeMap::from([safe]);
    annotations.extend(revision.spec.pod.annotations.clone());
    annotations
}

fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NONROOT),
        run_as_group: Some(NONROOT),
        fs_group: Some(NONROOT),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..Default::default() }),
        ..Default::default()
    }
}

fn volumes(revision: &Revision) -> Vec<Volume> {
    let limit = EmptyDirVolumeSource { size_limit: Some(Quantity("64Mi".to_owned())), ..Default::default() };
    let mut all = vec![Volume { name: TMP_VOLUME.to_owned(), empty_dir: Some(limit), ..Default::default() }];
    if has_peers(revision) {
        let secret = SecretVolumeSource {
            secret_name: Some(secret::name(revision)),
            default_mode: Some(SHARD_TLS_MODE),
            ..Default::default()
        };
        all.push(Volume { name: SHARD_TLS_VOLUME.to_owned(), secret: Some(secret), ..Default::default() });
    }
    let model = Volume { name: MODEL_VOLUME.to_owned(), ..Default::default() };
    let model = match &revision.spec.source {
        ModelSource::Claim { claim, .. } => {
            let claim = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: Some(true) };
            Volume { persistent_volume_claim: Some(claim), ..model }
        }
        ModelSource::Image { reference } => {
            let image = ImageVolumeSource { reference: Some(reference.clone()), pull_policy: None };
            Volume { image: Some(image), ..model }
        }
        ModelSource::File { .. } | ModelSource::Hub { .. } | ModelSource::Bucket { .. } => return all,
    };
    all.push(model);
    all
}

fn filled<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
