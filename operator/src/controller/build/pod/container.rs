//! The one container of a shard: arguments, environment, amounts, probes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, GRPCAction, ObjectFieldSelector, Probe,
    ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{MODEL_VOLUME, SHARD_TLS_VOLUME, TMP_VOLUME};
use crate::controller::build::{SHARD_TLS_MOUNT, args, has_peers};
use crate::controller::plan::{Revision, bytes};
use crate::controller::validate::ModelSource;
use crate::names::{GroupId, Rank, WORKER, port};

/// A disk that is slower than this per second is taken for a hung one.
const LOAD_BYTES_PER_SECOND: u64 = 50_000_000;
/// Startup of a worker beside reading its weights.
const STARTUP_SECONDS: u64 = 120;
/// grpc.health.v1 names: the process, and the group this process belongs to.
const PROCESS: &str = "";

/// The worker of `rank`.
pub(super) fn worker(revision: &Revision, group: GroupId, rank: Rank) -> Container {
    Container {
        name: WORKER.to_owned(),
        image: Some(revision.image.clone()),
        image_pull_policy: revision.spec.pod.image_pull_policy.clone(),
        args: Some(args::args(revision, group, rank)),
        env: Some(env(revision)),
        ports: Some(vec![
            open("grpc", port::GRPC),
            open("http", port::HTTP),
            open("health", port::HEALTH),
            open("shard", port::SHARD),
        ]),
        resources: Some(resources(revision)),
        startup_probe: Some(startup(revision)),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..asks(PROCESS)
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            timeout_seconds: Some(2),
            failure_threshold: Some(1),
            ..asks(shoal_proto::INFERENCE_SERVICE)
        }),
        security_context: Some(security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(revision)),
        ..Default::default()
    }
}

fn open(name: &str, number: u16) -> ContainerPort {
    let protocol = Some("TCP".to_owned());
    ContainerPort { name: Some(name.to_owned()), container_port: i32::from(number), protocol, ..Default::default() }
}

fn asks(service: &str) -> Probe {
    let grpc = GRPCAction { port: i32::from(port::HEALTH), service: Some(service.to_owned()) };
    Probe { grpc: Some(grpc), ..Default::default() }
}

/// The process may take as long as a slow disk needs for its bytes.
fn startup(revision: &Revision) -> Probe {
    let seconds = STARTUP_SECONDS + revision.load_bytes.unwrap_or(0).div_ceil(LOAD_BYTES_PER_SECOND);
    let threshold = i32::try_from(seconds).unwrap_or(i32::MAX);
    Probe { period_seconds: Some(1), timeout_seconds: Some(1), failure_threshold: Some(threshold), ..asks(PROCESS) }
}

/// Variables of the user, then where the pod is, for logs.
fn env(revision: &Revision) -> Vec<EnvVar> {
    const FIELDS: [(&str, &str); 4] = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("POD_IP", "status.podIP"),
        ("NODE_NAME", "spec.nodeName"),
    ];
    let users = revision.spec.pod.env.iter().filter(|variable| FIELDS.iter().all(|(name, _)| *name != variable.name));
    let users = users.map(|variable| EnvVar {
        name: variable.name.clone(),
        value: Some(variable.value.clone()),
        value_from: None,
    });
    let fields = FIELDS.into_iter().map(|(name, path)| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }),
            ..Default::default()
        }),
    });
    users.chain(fields).collect()
}

/// Memory from the plan, rounded up to MiB; one CPU; the device. What the user says wins.
fn resources(revision: &Revision) -> ResourceRequirements {
    let asked = &revision.spec.pod.resources;
    let memory = revision.shard_bytes.unwrap_or(2 * bytes::MARGIN).div_ceil(1 << 20);
    let memory = Quantity(format!("{memory}Mi"));
    let mut requests = asked.requests.clone();
    let mut limits = asked.limits.clone();
    let default =
        |amounts: &BTreeMap<String, Quantity>, other: Quantity, name: &str| amounts.get(name).cloned().unwrap_or(other);
    // A limit below the request is refused by the API server: each is the other's default.
    let memory_limit = default(&limits, default(&requests, memory, "memory"), "memory");
    requests.entry("memory".to_owned()).or_insert_with(|| memory_limit.clone());
    limits.insert("memory".to_owned(), memory_limit);
    let cpu_limit = default(&limits, default(&requests, Quantity("1".to_owned()), "cpu"), "cpu");
    requests.entry("cpu".to_owned()).or_insert_with(|| cpu_limit.clone());
    limits.insert("cpu".to_owned(), cpu_limit);
    if let Some(device) = &revision.spec.device.resource {
        requests.insert(device.clone(), Quantity("1".to_owned()));
        limits.insert(device.clone(), Quantity("1".to_owned()));
    }
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

fn security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..Default::default()
    }
}

fn mounts(revision: &Revision) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..Default::default()
    };
    let mut mounts = vec![mount(TMP_VOLUME, "/tmp", None)];
    if has_peers(revision) {
        mounts.push(mount(SHARD_TLS_VOLUME, SHARD_TLS_MOUNT, Some(true)));
    }
    if matches!(revision.spec.source, ModelSource::Claim { .. } | ModelSource::Image { .. }) {
        mounts.push(mount(MODEL_VOLUME, ModelSource::MOUNT, Some(true)));
    }
    mounts
}
