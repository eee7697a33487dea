//! One manifest from `kubectl apply` to right answers, a killed worker, and a chart that goes.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use shoal_operator::controller::build;
use shoal_operator::controller::plan::{Revision, plan};
use shoal_operator::controller::validate::validate;
use shoal_operator::crd::ModelDeployment;
use shoal_operator::inventory::{Inventory, this_machine};
use shoal_operator::local::command::{Table, hostname};
use shoal_operator::local::localize::substitute;
use shoal_operator::names::{Epoch, GroupId, GroupIndex, port};
use shoal_tests::cluster::tools::{helm, kubectl, shoal};
use shoal_tests::cluster::wait::{await_gone, await_value};
use shoal_tests::cluster::{Cluster, pods};
use shoal_tests::fleet::stranger::hello_in_plaintext;
use shoal_tests::node::{Following, documented_ports, kill_in_pod, open_ports};

use super::harness::{SYSTEM, answers_right, condition, step, with_chart};

const MODELS: &str = "models";
const EPOCH: &str = "inference.shoal.dev/epoch";
const RANK_ONE: &str = "inference.shoal.dev/rank=1";

pub(crate) async fn it_answers_through_dns_survives_a_killed_worker_and_outlives_the_chart() -> Result<()> {
    let cluster = Cluster::connect().await?;
    with_chart(MODELS, async || {
        step("kubectl apply, wait for Available");
        let model = serve().await?;
        answers_right((&model, MODELS), 358, 471).await?;
        step("the same arguments and variables here and there");
        equal_after_the_table(&cluster, &model).await?;
        step("a port scan, and plaintext on the shard ports");
        listens_as_documented(&cluster).await?;
        step("SIGKILL to one worker");
        let mut said = Following::start(&model, MODELS)?;
        lose_a_worker(&cluster).await?;
        available(&model).await?;
        answers_right((&model, MODELS), 906, 87).await?;
        step("shoal logs");
        for shard in ["g0-e1-r0 | ", "g0-e1-r1 | ", "g0-e2-r0 | ", "g0-e2-r1 | "] {
            said.line(shard).await?;
        }
        let rank_one = shoal(&["logs", &model, "-n", MODELS, "--rank=1", "--tail=2"]).await?;
        let only_its = rank_one.lines().all(|line| line.starts_with("g0-e2-r1 | {"));
        ensure!(only_its && rank_one.lines().count() == 2, "{rank_one}");
        let json = shoal(&["logs", &model, "-n", MODELS, "--rank=1", "--tail=1", "-o", "json"]).await?;
        let said: serde_json::Value = serde_json::from_str(&json)?;
        ensure!((&said["group"], &said["epoch"], &said["rank"]) == (&0.into(), &2.into(), &1.into()), "{json}");
        let previous = shoal(&["logs", &model, "-n", MODELS, "--previous"]).await?;
        let told = "operator | group 0 epoch 1 lost a shard (CrashLoop): shard 1: ";
        ensure!(previous.lines().any(|line| line.starts_with(told)), "{previous}");
        step("helm uninstall");
        uninstall(&cluster).await?;
        answers_right((&model, MODELS), 12, 999).await?;
        // The node is shared: what comes next needs its cores.
        kubectl(&["delete", "modeldeployments", "--all", "-n", MODELS, "--wait=false"]).await.map(drop)
    })
    .await
}

/// Applies the sample as a user would; the model's name once it is available.
async fn serve() -> Result<String> {
    kubectl(&["apply", "-n", MODELS, "-f", "manifests/tiny-cpu.yaml"]).await?;
    let name = kubectl(&["get", "modeldeployments", "-n", MODELS, "-o", "jsonpath={.items[0].metadata.name}"]).await?;
    available(&name).await?;
    Ok(name)
}

async fn available(model: &str) -> Result<()> {
    condition("Available", model, MODELS).await
}

/// What runs in the cluster and what `shoal up` would run of the same object, both put through localize's table, have
/// the same arguments and variables. `tests/local.rs` shows that the processes of `up` have them indeed.
async fn equal_after_the_table(cluster: &Cluster, model: &str) -> Result<()> {
    let object: ModelDeployment =
        serde_json::from_str(&kubectl(&["get", "modeldeployment", model, "-n", MODELS, "-o", "json"]).await?)?;
    let mut there = pods::list(cluster, MODELS, "").await?;
    there.sort_by_key(|pod| pod.metadata.name.clone());
    let image = there.first().and_then(|pod| pod.spec.as_ref()?.containers.first()?.image.clone());
    let spec = validate(&object)?;
    let planned = plan(&spec, &Inventory::Nodes(vec![this_machine()]));
    let revision = Revision::decide(&spec, &planned, &image.context("a worker has an image")?);
    let first = GroupId { index: GroupIndex(0), epoch: Epoch::FIRST };
    let here = build::group(&revision.context("the sample is planned here too")?, first).pods;
    let ports = (20_000_u16..)
        .zip(here.iter().flat_map(|pod| [50051, 8080, 50052, 50053].map(|port| (hostname(pod).to_owned(), port))))
        .map(|(local, port)| (port, local));
    let table = Table { worker: "shoal-worker".into(), ports: ports.collect(), ..Table::default() };
    ensure!(here.len() == there.len() && here.len() == 2, "{} pods here, {} there", here.len(), there.len());
    for (here, there) in here.iter().zip(&there) {
        let (here, there) = (substitute(here, &table)?, substitute(there, &table)?);
        ensure!(here.args == there.args, "arguments here {:?}, there {:?}", here.args, there.args);
        ensure!(here.env == there.env, "variables here {:?}, there {:?}", here.env, there.env);
    }
    Ok(())
}

/// Every port of every shard is knocked at: what listens is what the documents list, and the shard port takes nobody in
/// without a certificate, though the group behind it answers.
async fn listens_as_documented(cluster: &Cluster) -> Result<()> {
    for pod in pods::list(cluster, MODELS, "").await? {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let ip =
            pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a running pod has an address")?;
        let ip: IpAddr = ip.parse()?;
        let open = open_ports(ip).await;
        ensure!(open == documented_ports()?, "{name} listens on {open:?}, the documents say {:?}", documented_ports()?);
        let refusal = hello_in_plaintext((ip, port::SHARD).into()).await;
        ensure!(refusal.is_err(), "{name} answers a Hello in plaintext");
        await_value("the refusal in the log", async || {
            let log = kubectl(&["logs", "-n", MODELS, name]).await?;
            Ok(log.contains(r#""reason":"plaintext""#).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Kills the process of one shard and waits until the whole group is ready under the next epoch.
async fn lose_a_worker(cluster: &Cluster) -> Result<()> {
    let before = pods::list(cluster, MODELS, RANK_ONE).await?;
    let victim = before.first().context("a sharded model has a rank 1")?;
    kill_in_pod(victim.metadata.uid.as_deref().unwrap_or_default(), "shoal-worker")?;
    let next = epoch(victim)? + 1;
    await_value("the group under its next epoch", async || {
        let group = pods::list(cluster, MODELS, &format!("{EPOCH}={next}")).await?;
        Ok((group.len() == 2 && group.iter().all(pods::is_ready)).then_some(()))
    })
    .await
}

fn epoch(pod: &Pod) -> Result<u64> {
    let labels = pod.metadata.labels.as_ref().context("a worker is labelled")?;
    Ok(labels.get(EPOCH).context("a worker is labelled with its epoch")?.parse()?)
}

/// The operator goes; the definition, the model and its pods stay, as the chart's notes say.
async fn uninstall(cluster: &Cluster) -> Result<()> {
    let workers = pods::list(cluster, MODELS, "").await?.len();
    let operators = pods::list(cluster, SYSTEM, "app.kubernetes.io/name=shoal").await?;
    helm(&["uninstall", "shoal", "-n", SYSTEM, "--wait"]).await?;
    let system: Api<Pod> = Api::namespaced(cluster.client(), SYSTEM);
    for operator in &operators {
        await_gone(&system, operator.metadata.name.as_deref().unwrap_or_default()).await?;
    }
    kubectl(&["get", "crd", "modeldeployments.inference.shoal.dev"]).await?;
    let models = kubectl(&["get", "modeldeployments", "-n", MODELS, "-o", "name"]).await?;
    ensure!(models.lines().count() == 1, "uninstalling took models away: {models:?}");
    ensure!(pods::list(cluster, MODELS, "").await?.len() == workers, "uninstalling took workers away");
    Ok(())
}
