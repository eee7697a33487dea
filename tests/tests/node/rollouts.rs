//! Rollouts under a client that asks every 20 ms, half of the time over a new connection, and never asks again.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::{Api, ResourceExt as _};
use shoal_operator::crd::ModelDeployment;
use shoal_operator::names::port;
use shoal_tests::cluster::tools::{apply, kubectl, shoal};
use shoal_tests::cluster::wait::{await_object, await_value};
use shoal_tests::cluster::{Cluster, pods};
use shoal_tests::paths::repository;
use shoal_tests::steady::Steady;

use super::harness::{condition, step, with_chart};

const MODELS: &str = "rollouts";
const MODEL: &str = "tiny";
const GROUPS: i32 = 2;
/// Of all groups; each has two shards.
const PODS: usize = 4;
/// Requests of five seconds: what a rollout leaves behind shows in them.
const AFTERWARDS: usize = 250;

pub(crate) async fn a_wrong_image_its_revert_and_a_restart_fail_no_request_of_a_client_without_retries() -> Result<()> {
    let cluster = Cluster::connect().await?;
    with_chart(MODELS, async || {
        step("two groups of two shards");
        let manifest = std::fs::read_to_string(repository().join("manifests/tiny-cpu.yaml"))?;
        let mut model: ModelDeployment = serde_yaml::from_str(&manifest)?;
        model.spec.replicas = GROUPS;
        apply(MODELS, &serde_yaml::to_string(&model)?).await?;
        condition("Ready", MODEL, MODELS).await?;
        let first = serving(&cluster, &BTreeSet::new()).await?;
        let mut client = Steady::start(&format!("{MODEL}.{MODELS}.svc.cluster.local:{}", port::GRPC))?;
        client.go_on(AFTERWARDS).await?;
        wrong_image_and_revert(&cluster).await?;
        ensure!(serving(&cluster, &BTreeSet::new()).await? == first, "the wrong image or its revert replaced a pod");
        client.go_on(AFTERWARDS).await?;
        step("shoal restart --watch");
        shoal(&["restart", MODEL, "-n", MODELS, "--watch"]).await?;
        serving(&cluster, &first).await?;
        client.go_on(AFTERWARDS).await?;
        let account = client.stop().await?;
        step(&account.to_string());
        ensure!(account.failures.is_empty(), "{account}:\n{}", account.failures.join("\n"));
        Ok(())
    })
    .await
}

/// Nothing can pull the image; it is taken back once the operator has said so.
async fn wrong_image_and_revert(cluster: &Cluster) -> Result<()> {
    step("an image that is not there");
    edit(r#"{"spec":{"pod":{"image":"localhost/shoal-worker:missing","imagePullPolicy":"Never"}}}"#).await?;
    let models: Api<ModelDeployment> = Api::namespaced(cluster.client(), MODELS);
    await_object(&models, MODEL, "stopped by its image", |model| {
        model.status.iter().flat_map(|status| &status.recovery).any(|group| group.reason == "ImagePull")
    })
    .await?;
    step("the revert");
    edit(r#"{"spec":{"pod":{"image":null,"imagePullPolicy":null}}}"#).await?;
    condition("Ready", MODEL, MODELS).await
}

async fn edit(change: &str) -> Result<()> {
    kubectl(&["patch", "modeldeployment", MODEL, "-n", MODELS, "--type=merge", "-p", change]).await.map(drop)
}

/// The UIDs of the pods once there are as many as asked for, all ready, and none of `gone`.
async fn serving(cluster: &Cluster, gone: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    await_value("the groups, and no pod beside them", async || {
        let pods = pods::list(cluster, MODELS, "").await?;
        let uids = pods.iter().map(|pod| pod.uid().context("a pod has a UID")).collect::<Result<BTreeSet<_>>>()?;
        let whole = pods.len() == PODS && pods.iter().all(pods::is_ready);
        Ok((whole && uids.is_disjoint(gone)).then_some(uids))
    })
    .await
}
