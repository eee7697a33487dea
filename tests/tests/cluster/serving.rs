//! What clients and autoscalers see of a model: routes to ready shards only, and groups as the unit of scale.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::crd::ModelDeploymentStatus;
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::pods::{self, FAULT};
use shoal_tests::cluster::tools::{apply, kubectl};
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, annotated, number, tiny, with_operator};

/// Ranks that the client Service routes to.
async fn routed(bench: &Bench<'_>) -> Result<BTreeSet<u64>> {
    let slices: Api<EndpointSlice> = Api::namespaced(bench.cluster.client(), bench.namespace);
    let ours = slices.list(&ListParams::default().labels("kubernetes.io/service-name=tiny")).await?;
    let endpoints = ours.items.into_iter().flat_map(|slice| slice.endpoints);
    let ready =
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    let names: BTreeSet<String> = ready.filter_map(|endpoint| endpoint.target_ref?.name).collect();
    let pods = bench.pods("tiny").await?;
    pods.iter().filter(|pod| names.contains(&pod.name_any())).map(|pod| number(pod, label::RANK)).collect()
}

/// dynamo#13622: a shard gets requests when its group can answer them, and not before.
pub(crate) async fn a_shard_gets_requests_only_once_it_is_ready() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.models().create(&PostParams::default(), &annotated(1, &[(FAULT, "slow-pull")])?).await?;
        let half = |status: &ModelDeploymentStatus| status.groups.iter().any(|group| group.ready_shards == 1);
        bench.until("tiny", "half a group", half).await?;
        await_value(
            "a route to rank 0 alone",
            async || Ok((routed(bench).await? == BTreeSet::from([0])).then_some(())),
        )
        .await?;
        bench.condition("tiny", "Available", "False").await?;
        let slow = bench.pods("tiny").await?.pop().expect("a group has two pods");
        pods::unmark(bench.cluster, &slow, FAULT).await?;
        bench.ready("tiny").await?;
        await_value("routes to both", async || Ok((routed(bench).await? == BTreeSet::from([0, 1])).then_some(()))).await
    })
    .await
}

/// In the place of metrics-server: the controller manager reads `metrics.k8s.io` pods like any other API.
const METRICS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: pods.metrics.k8s.io
  annotations: {api-approved.kubernetes.io: unapproved}
spec:
  group: metrics.k8s.io
  scope: Namespaced
  names: {plural: pods, kind: PodMetrics, listKind: PodMetricsList}
  versions:
    - name: v1beta1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// aibrix#2780: an autoscaler that sees one and a half times the wished load makes three groups of two, whatever shards
/// a group has.
pub(crate) async fn an_autoscaler_at_one_and_a_half_times_the_load_takes_two_groups_of_four_shards_to_three()
-> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let mut model = tiny(2)?;
        if let Some(sharding) = &mut model.spec.sharding {
            sharding.shards = Some(4);
        }
        model.spec.pod.resources.requests = serde_json::from_value(json!({"cpu": "200m"}))?;
        bench.serve(&model).await?;
        apply("default", METRICS).await?;
        kubectl(&["wait", "--for=condition=Established", "crd/pods.metrics.k8s.io", "--timeout=30s"]).await?;
        report(bench, "300m").await?;
        let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": {"name": "tiny"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "name": "tiny"},
                "minReplicas": 1, "maxReplicas": 9,
                "metrics": [{"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100},
                }}],
            },
        }))?;
        let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(bench.cluster.client(), bench.namespace);
        scalers.create(&PostParams::default(), &scaler).await?;
        bench.until("tiny", "three groups", |status| status.available_groups == 3).await?;
        assert_eq!(bench.pods("tiny").await?.len(), 12);
        let shown = scalers.get("tiny").await?.status.unwrap_or_default();
        assert_eq!((shown.current_replicas, shown.desired_replicas), (Some(2), 3), "it counts groups: {shown:?}");
        Ok(())
    })
    .await
}

/// Every shard uses `cpu`, as metrics-server would say.
async fn report(bench: &Bench<'_>, cpu: &str) -> Result<()> {
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("metrics.k8s.io", "v1beta1", "PodMetrics"), "pods");
    let metrics: Api<DynamicObject> = Api::namespaced_with(bench.cluster.client(), bench.namespace, &kind);
    for pod in bench.pods("tiny").await? {
        // Later than any readiness, or the autoscaler takes it for the load of a start.
        let timestamp = Timestamp::now() + std::time::Duration::from_secs(600);
        let usage = serde_json::from_value(json!({
            "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": {"name": pod.name_any(), "labels": pod.labels()},
            "timestamp": timestamp, "window": "1s",
            "containers": [{"name": "worker", "usage": {"cpu": cpu, "memory": "1Mi"}}],
        }))?;
        metrics.create(&PostParams::default(), &usage).await?;
    }
    Ok(())
}
