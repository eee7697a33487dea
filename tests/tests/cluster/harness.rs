//! What the harness itself promises to the other tests.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{ListParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::await_object;
use shoal_tests::cluster::{Cluster, pods::HOLD};

fn restricted_pod(name: &str, annotations: &Value) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "c",
                "image": "none",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }))?)
}

pub(crate) async fn fake_nodes_show_their_gpus_as_feature_discovery_does() -> Result<()> {
    let nodes: Api<Node> = Api::all(Cluster::get().await?.client());
    let common = ListParams::default().labels(&format!("!{}", shoal_tests::cluster::nodes::POOL));
    let mut listed = nodes.list(&common).await?.items;
    // Other tests add some.
    listed.retain(|node| !node.metadata.name.as_deref().unwrap_or_default().starts_with("extra-"));
    let shown: Vec<String> = listed
        .iter()
        .map(|node| {
            let labels = node.metadata.labels.clone().unwrap_or_default();
            let status = node.status.clone().unwrap_or_default();
            let allocatable = status.allocatable.unwrap_or_default();
            let quantity = |key: &str| allocatable.get(key).map_or("-", |quantity| quantity.0.as_str());
            let label = |key: &str| labels.get(key).map_or("-", String::as_str);
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let (product, gpus) = (label("nvidia.com/gpu.product"), quantity("nvidia.com/gpu"));
            format!("{name} {} {gpus} {product} {}", quantity("memory"), label("nvidia.com/gpu.memory"))
        })
        .collect();
    let gpu = |name: &str| format!("{name} 1900Gi 8 NVIDIA-H100-80GB-HBM3 81559");
    let mut expected: Vec<String> = (1..=4).map(|i| format!("cpu-{i} 120Gi - - -")).collect();
    expected.extend([gpu("gpu-1"), gpu("gpu-2")]);
    assert_eq!(shown, expected);
    Ok(())
}

pub(crate) async fn a_restricted_pod_becomes_ready_and_a_privileged_one_is_refused() -> Result<()> {
    with_temp_ns(async |cluster, namespace| {
        let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
        api.create(&PostParams::default(), &restricted_pod("good", &json!({}))?).await?;
        await_object(&api, "good", "Ready", pods::is_ready).await?;
        let mut bad = restricted_pod("bad", &json!({}))?;
        bad.spec.as_mut().expect("the fixture has a spec").host_network = Some(true);
        let refusal = api.create(&PostParams::default(), &bad).await.expect_err("Pod Security should refuse it");
        assert!(refusal.to_string().contains("violates PodSecurity \"restricted:latest\""), "{refusal}");
        Ok(())
    })
    .await
}

pub(crate) async fn a_failed_pod_stays_failed_and_a_held_one_stays_pending() -> Result<()> {
    with_temp_ns(async |cluster, namespace| {
        let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
        api.create(&PostParams::default(), &restricted_pod("held", &json!({HOLD: "true"}))?).await?;
        api.create(&PostParams::default(), &restricted_pod("lost", &json!({}))?).await?;
        await_object(&api, "lost", "Ready", pods::is_ready).await?;
        pods::fail(cluster, namespace, "lost", "OOMKilled", 137).await?;
        // Another pod that comes up meanwhile shows that the fake kubelet had its turn.
        api.create(&PostParams::default(), &restricted_pod("later", &json!({}))?).await?;
        await_object(&api, "later", "Ready", pods::is_ready).await?;
        let phases: Vec<(String, bool)> = pods::list(cluster, namespace, "")
            .await?
            .iter()
            .map(|pod| (pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default(), pods::is_ready(pod)))
            .collect();
        assert_eq!(phases, [("Pending".into(), false), ("Running".into(), true), ("Failed".into(), false)]);
        Ok(())
    })
    .await
}

pub(crate) async fn the_audit_log_counts_the_writes_of_one_user() -> Result<()> {
    with_temp_ns(async |cluster, namespace| {
        let mark = cluster.audit().mark()?;
        kubectl(&["create", "configmap", "c", "-n", namespace, "--as=someone", "--as-group=system:masters"]).await?;
        kubectl(&["get", "configmap", "c", "-n", namespace, "--as=someone", "--as-group=system:masters"]).await?;
        // Impersonated requests are logged under the impersonating user.
        let calls = cluster.audit().calls_since(mark, "admin")?;
        let ours: Vec<_> =
            calls.iter().filter(|call| call.namespace == namespace && call.resource == "configmaps").collect();
        let shown: Vec<_> = ours.iter().map(|call| (call.verb.as_str(), call.code, call.is_write())).collect();
        assert_eq!(shown, [("create", 201, true), ("get", 200, false)]);
        Ok(())
    })
    .await
}
