//! Pods on fake nodes, and the faults that a real node would report.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::Cluster;

/// Pod annotation: the pod stays Pending until a test removes it.
pub const HOLD: &str = "stages.shoal.test/hold";
/// Pod annotation: once deleted, the pod stays Terminating.
pub const KEEP_TERMINATING: &str = "stages.shoal.test/keep-terminating";

/// Pod annotation: rank 1 of a first epoch meets the fault that the value names, one of `tests/cluster/stages/`:
/// `slow-pull` (until the annotation is removed), `image-pull`, `oom-killed`, `exit-1`, `evicted`. With `hold-next` the
/// second epoch stays Pending until the annotation is removed.
pub const FAULT: &str = "stages.shoal.test/fault";

/// Pods of `namespace` that `selector` selects, by name.
///
/// # Errors
/// When the API server refuses.
pub async fn list(cluster: &Cluster, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let mut items = pods.list(&ListParams::default().labels(selector)).await?.items;
    items.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(items)
}

/// Whether a pod's Ready condition is true.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Ends a pod's container as a kubelet reports it under restartPolicy Never: phase Failed, not ready.
///
/// `reason` is the container's, such as `Error` or `OOMKilled`.
///
/// # Errors
/// When the API server refuses.
pub async fn fail(cluster: &Cluster, namespace: &str, name: &str, reason: &str, exit_code: i32) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let pod = pods.get(name).await?;
    let container = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.clone()).next();
    let status = json!({"status": {
        "phase": "Failed",
        "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed"},
                       {"type": "ContainersReady", "status": "False", "reason": "PodFailed"}],
        "containerStatuses": [{
            "name": container, "image": "none", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "reason": reason, "message": "ended by the test"}},
        }],
    }});
    pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// Takes `annotation` away from a pod.
///
/// # Errors
/// When the API server refuses.
pub async fn unmark(cluster: &Cluster, pod: &Pod, annotation: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let patch = json!({"metadata": {"annotations": {annotation: null}}});
    pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Asks the Eviction API to let exactly this pod go, as `kubectl drain` does; `false`: a disruption budget says no (429).
///
/// # Errors
/// Any other refusal.
pub async fn evict(cluster: &Cluster, pod: &Pod) -> Result<bool> {
    let pods: Api<Pod> =
        Api::namespaced(cluster.impatient_client().await?, pod.metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
    let delete_options = Some(DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() });
    match pods.evict(&pod.name_any(), &EvictParams { delete_options, ..EvictParams::default() }).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Deletes gracefully exactly this pod.
///
/// # Errors
/// When the pod is gone or another one has its name.
pub async fn delete(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let metadata = &pod.metadata;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: metadata.uid.clone(), ..Preconditions::default() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    pods.delete(metadata.name.as_deref().unwrap_or_default(), &params).await?;
    Ok(())
}
