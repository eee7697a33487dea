//! A pipeline from `kubectl apply` to right answers, and where its Services lead.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use shoal_operator::names::label;
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::await_value;
use shoal_tests::cluster::{Cluster, pods};

use super::harness::{answers_right, condition, step, with_chart};

const MODELS: &str = "pipelines";
const MODEL: &str = "tiny-pipeline";
const STAGES: usize = 3;

pub(crate) async fn it_answers_through_a_service_that_leads_to_its_first_stage_alone() -> Result<()> {
    let cluster = Cluster::connect().await?;
    with_chart(MODELS, async || {
        step("a pipeline of three stages");
        kubectl(&["apply", "-n", MODELS, "-f", "manifests/tiny-pipeline-cpu.yaml"]).await?;
        condition("Available", MODEL, MODELS).await?;
        // Two questions are two connections.
        answers_right((MODEL, MODELS), 358, 471).await?;
        answers_right((MODEL, MODELS), 906, 87).await?;
        let stages = pods::list(&cluster, MODELS, "").await?;
        ensure!(stages.len() == STAGES && stages.iter().all(pods::is_ready), "not {STAGES} ready stages: {stages:?}");
        let first: Vec<_> = stages.iter().filter(|stage| is_first(stage)).collect();
        ensure!(first.len() == 1, "{} stages are of rank 0", first.len());
        leads_to(&cluster, MODEL, &addresses(first)?).await?;
        // Among themselves the stages find one another through the other Service: all of them.
        leads_to(&cluster, &format!("{MODEL}-shards"), &addresses(&stages)?).await?;
        // The node is shared: what comes next needs its cores.
        kubectl(&["delete", "modeldeployments", "--all", "-n", MODELS, "--wait=false"]).await.map(drop)
    })
    .await
}

fn is_first(stage: &Pod) -> bool {
    stage.metadata.labels.as_ref().and_then(|labels| labels.get(label::RANK)).is_some_and(|rank| rank == "0")
}

fn addresses<'a>(stages: impl IntoIterator<Item = &'a Pod>) -> Result<BTreeSet<String>> {
    let address = |stage: &Pod| stage.status.as_ref()?.pod_ip.clone();
    stages.into_iter().map(|stage| address(stage).context("a ready pod has an address")).collect()
}

/// Waits until exactly `wanted` stand behind a Service; slices follow pods a moment later.
async fn leads_to(cluster: &Cluster, service: &str, wanted: &BTreeSet<String>) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client(), MODELS);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let found = async || {
        let slices = slices.list(&of_service).await?.items;
        let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
        Ok::<BTreeSet<_>, anyhow::Error>(endpoints.flat_map(|endpoint| endpoint.addresses).collect())
    };
    let outcome =
        await_value("the addresses of a Service", async || Ok((found().await? == *wanted).then_some(()))).await;
    outcome.with_context(|| format!("{service} should lead to {wanted:?}"))?;
    step(&format!("{service} leads to {} of {STAGES} stages", wanted.len()));
    Ok(())
}
