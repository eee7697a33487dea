//! A namespace for each test: Pod Security `restricted` enforced, explained when the test fails, deleted either way.

use std::panic::{AssertUnwindSafe, resume_unwind};

use anyhow::Result;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use super::Cluster;
use super::tools::kubectl;

/// Runs `body` in a fresh namespace, whose name it gets, and deletes the namespace afterwards.
///
/// # Errors
/// Those of `body`, after what the namespace holds has been printed; its panics likewise.
pub async fn with_temp_ns(body: impl AsyncFnOnce(&Cluster, &str) -> Result<()>) -> Result<()> {
    let cluster = Cluster::get().await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let wanted: Namespace = serde_json::from_value(json!({
        "metadata": {
            "generateName": "t-",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }
    }))?;
    let name = namespaces.create(&PostParams::default(), &wanted).await?.metadata.name.unwrap_or_default();
    let outcome = AssertUnwindSafe(body(cluster, &name)).catch_unwind().await;
    if !matches!(outcome, Ok(Ok(()))) {
        explain(cluster, &name).await;
    }
    namespaces.delete(&name, &DeleteParams::default()).await?;
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What a person would look at first.
async fn explain(cluster: &Cluster, namespace: &str) {
    for what in ["modeldeployments -o yaml", "pods,services -o wide", "events.v1.events.k8s.io"] {
        let words: Vec<&str> = ["get", "-n", namespace].into_iter().chain(what.split(' ')).collect();
        let answer = kubectl(&words).await.unwrap_or_else(|error| format!("{error:#}"));
        eprintln!("--- {namespace}: {what}\n{answer}");
    }
    let logs = cluster.run_folder().join("logs").join(format!("operator-{namespace}.log"));
    let log = std::fs::read_to_string(logs).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    eprintln!("--- {namespace}: operator's last lines");
    for line in tail.into_iter().rev() {
        eprintln!("{line}");
    }
}
