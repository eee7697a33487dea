//! A large fleet among far more pods of others: what the operator costs when there is nothing to do, and how soon a new
//! one knows all of it.
//!
//! `SHOAL_BENCH_FLEET` (1,000; 0 skips the case) objects of four groups of two, fifty in a namespace, and
//! `SHOAL_BENCH_FOREIGN` (50,000) pods without our labels. Those wait for a scheduler that there is not: neither ours nor a
//! fake node ever works on them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use shoal_operator::crd::{ModelDeployment, ModelDeploymentStatus};
use shoal_tests::cluster::Cluster;
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::await_value;

use crate::served::{model, parallel, until_worth};
use crate::shoal::{Running, print_calls, writes};
use crate::table;

/// Groups of one object, two pods each.
const GROUPS: usize = 4;
/// Pods that a node takes.
const A_NODE: usize = 250;
/// How long a settled fleet is watched.
const SETTLED: Duration = Duration::from_secs(60);
/// Objects of one namespace: controllers of Kubernetes compare each pod with every Service and budget beside it.
const A_NAMESPACE: usize = 50;
/// The namespace of everybody else's pods.
const FOREIGN: &str = "foreign";

/// Objects of the fleet.
pub(crate) fn objects() -> usize {
    crate::size("SHOAL_BENCH_FLEET", 1000)
}

/// Pods of others.
pub(crate) fn foreign() -> usize {
    crate::size("SHOAL_BENCH_FOREIGN", 50_000)
}

async fn make_nodes(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let amounts = json!({"cpu": "31", "memory": "200Gi", "ephemeral-storage": "400Gi", "pods": A_NODE.to_string()});
    let node = |name: String| {
        serde_json::from_value::<Node>(json!({
            "metadata": {
                "name": name, "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"},
            },
            "status": {"allocatable": amounts, "capacity": amounts},
        }))
    };
    let count = (2 * GROUPS * objects()).div_ceil(A_NODE);
    let wanted = (0..count).map(|number| node(format!("fleet-{number}"))).collect::<Result<Vec<_>, _>>()?;
    parallel(wanted.iter().map(async |node| Ok(nodes.create(&PostParams::default(), node).await?))).await?;
    kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"]).await.map(drop)
}

async fn make_foreign(client: &Client) -> Result<()> {
    kubectl(&["create", "namespace", FOREIGN]).await?;
    let account = ["get", "serviceaccount", "default", "-n", FOREIGN];
    await_value("its ServiceAccount", async || Ok(kubectl(&account).await.ok())).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), FOREIGN);
    let mould: Pod = serde_json::from_value(json!({
        "metadata": {"labels": {"app": "somebody", "pod-template-hash": "6d4cf56db6"}},
        "spec": {
            "schedulerName": "somebody",
            "containers": [{"name": "c", "image": "none", "resources": {"requests": {"cpu": "10m"}}}],
        },
    }))?;
    let began = Instant::now();
    for first in (0..foreign()).step_by(5000) {
        let until = foreign().min(first + 5000);
        let make = (first..until).map(async |number| {
            let mut pod = mould.clone();
            pod.metadata.name = Some(format!("somebody-{number}"));
            Ok(pods.create(&PostParams::default(), &pod).await.map(drop)?)
        });
        parallel(make).await?;
        println!("{until} foreign pods after {:.0} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn namespace(number: usize) -> String {
    format!("fleet-{number}")
}

fn is_ready(model: &ModelDeployment) -> bool {
    let ready = |status: &ModelDeploymentStatus| {
        let holds = status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        holds && status.observed_generation == model.metadata.generation
    };
    model.status.as_ref().is_some_and(ready)
}

async fn until_ready(client: &Client) -> Result<()> {
    let models: Api<ModelDeployment> = Api::all(client.clone());
    until_worth(models, objects(), |model| usize::from(is_ready(model))).await
}

/// Which pods there are.
async fn uids(client: &Client) -> Result<Vec<Option<String>>> {
    let pods: Api<Pod> = Api::all(client.clone());
    let ours = ListParams::default().labels(shoal_operator::names::label::MODEL);
    let listed = pods.list_metadata(&ours.match_any()).await?;
    let mut uids: Vec<_> = listed.iter().map(ResourceExt::uid).collect();
    uids.sort();
    Ok(uids)
}

pub(crate) async fn large_fleet() -> Result<()> {
    if objects() == 0 {
        println!("skipped: SHOAL_BENCH_FLEET is 0");
        return Ok(());
    }
    let client = Cluster::get().await?.client();
    make_nodes(&client).await?;
    make_foreign(&client).await?;
    let operator = Running::start_and_watch().await?;
    for number in 0..objects().div_ceil(A_NAMESPACE) {
        kubectl(&["create", "namespace", &namespace(number)]).await?;
    }
    let wanted = (0..objects()).map(|number| model(&format!("f{number}"), GROUPS)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    let create = wanted.iter().zip(0..).map(async |(model, number)| {
        let models: Api<ModelDeployment> = Api::namespaced(client.clone(), &namespace(number / A_NAMESPACE));
        Ok(models.create(&PostParams::default(), model).await.map(drop)?)
    });
    parallel(create).await?;
    until_ready(&client).await?;
    table::shoal("fleet created at once: until all are Ready", began.elapsed().as_secs_f64(), "s");
    let (memory, processor) = operator.cost()?;
    table::shoal("memory of its making, peak", memory, "MiB");
    table::shoal("processor time of its making", processor, "s");
    operator.stop().await?;
    restart(&client).await
}

/// A new operator finds everything there and settled.
async fn restart(client: &Client) -> Result<()> {
    let audit = Cluster::get().await?.audit();
    let (before, mark) = (uids(client).await?, audit.mark()?);
    let began = Instant::now();
    let operator = Running::start().await?;
    operator.until_looked_at(objects()).await?;
    table::shoal("fleet, new operator: every object looked at", began.elapsed().as_secs_f64(), "s");
    print_calls(mark).await?;
    let (_, spent) = operator.cost()?;
    table::shoal("processor time until then", spent, "s");
    tokio::time::sleep(SETTLED).await;
    let (memory, processor) = operator.cost()?;
    table::shoal("processor in the minute after, of a core", (processor - spent) / SETTLED.as_secs_f64() * 100.0, "%");
    table::shoal("writes since its start, beside its lease", writes(mark).await? as f64, "");
    table::shoal("memory since its start, peak", memory, "MiB");
    ensure!(uids(client).await? == before, "pods were touched");
    operator.stop().await
}
