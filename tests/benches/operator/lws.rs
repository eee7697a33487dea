//! LeaderWorkerSet, the rival: its manager as its module builds it, with its own CRD and webhooks, making as many pods.
//!
//! `tests/benches/operator/lws/build.sh` builds it; without it the case says so and is skipped. It makes less for an object
//! than the operator does: two StatefulSets, a revision and a Service, but no Secret, policy, second Service or plan.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::ByteString;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};
use shoal_tests::cluster::Cluster;
use shoal_tests::cluster::tools::{apply, kubectl};
use shoal_tests::cluster::wait::await_value;
use shoal_tests::paths::repository;
use tokio::process::{Child, Command};

use crate::served::{NAMESPACE, parallel, served, until_gone, until_worth};
use crate::{floor, groups, shoal, table};

const WEBHOOKS: u16 = 9443;

fn folder() -> PathBuf {
    repository().join("target/bench/lws")
}

fn sets(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet");
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
}

/// Its manager with the rights of an admin, and its webhooks on loopback under the certificate of the API server.
async fn start(cluster: &Cluster) -> Result<Child> {
    let (run, home) = (cluster.run_folder(), folder());
    kubectl(&["apply", "--server-side", "-f", &home.join("crd.yaml").display().to_string()]).await?;
    let listed = async || Ok(kubectl(&["get", "leaderworkersets.leaderworkerset.x-k8s.io"]).await.ok());
    await_value("its CRD", listed).await?;
    let certificates = run.join("lws");
    std::fs::create_dir_all(&certificates)?;
    std::fs::copy(run.join("apiserver.crt"), certificates.join("tls.crt"))?;
    std::fs::copy(run.join("apiserver.key"), certificates.join("tls.key"))?;
    let config = json!({
        "apiVersion": "config.lws.x-k8s.io/v1alpha1", "kind": "Configuration",
        "leaderElection": {"leaderElect": false},
        "internalCertManagement": {"enable": false},
        "webhook": {"host": "127.0.0.1", "port": WEBHOOKS, "certDir": certificates},
        "metrics": {"bindAddress": "127.0.0.1:18443"},
        "health": {"healthProbeBindAddress": "127.0.0.1:18082"},
        "clientConnection": {"qps": 500, "burst": 500},
    });
    std::fs::write(certificates.join("config.yaml"), config.to_string())?;
    let log = std::fs::File::create(run.join("logs/lws.log"))?;
    let manager = Command::new(home.join("manager"))
        .arg("--config")
        .arg(certificates.join("config.yaml"))
        .env("KUBECONFIG", run.join("admin.kubeconfig"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let listens = async || Ok(tokio::net::TcpStream::connect(("127.0.0.1", WEBHOOKS)).await.ok());
    await_value("its webhooks", listens).await?;
    apply(NAMESPACE, &webhooks(&std::fs::read(run.join("ca.crt"))?)?).await?;
    Ok(manager)
}

/// Its own manifests with an address in the place of a Service, and only its own pods asked about, as it publishes them.
fn webhooks(ca: &[u8]) -> Result<String> {
    let text = std::fs::read_to_string(folder().join("webhooks.yaml"))?;
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut document = Value::deserialize(document)?;
        for hook in document["webhooks"].as_array_mut().context("webhooks")? {
            let path = hook["clientConfig"]["service"]["path"].as_str().context("a path")?.to_owned();
            let url = format!("https://127.0.0.1:{WEBHOOKS}{path}");
            hook["clientConfig"] = json!({"url": url, "caBundle": ByteString(ca.to_vec())});
            if path.ends_with("-pod") {
                let named = json!({"key": "leaderworkerset.sigs.k8s.io/name", "operator": "Exists"});
                hook["objectSelector"] = json!({"matchExpressions": [named]});
            }
        }
        documents.push(document.to_string());
    }
    Ok(documents.join("\n---\n"))
}

fn set(name: &str, pod: &Value) -> Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": name},
        "spec": {"replicas": 1, "leaderWorkerTemplate": {"size": 2, "workerTemplate": {"spec": pod}}},
    }))?)
}

fn is_available(set: &DynamicObject) -> bool {
    let conditions = set.data["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Available" && one["status"] == "True")
}

pub(crate) async fn many_objects() -> Result<()> {
    if !folder().join("manager").exists() {
        println!("SKIPPED: no target/bench/lws/manager; tests/benches/operator/lws/build.sh builds it");
        return Ok(());
    }
    let cluster = Cluster::get().await?;
    let client = cluster.client();
    let pod = floor::pod_of_a_rival(&client).await?;
    let mut manager = start(cluster).await?;
    let sets = sets(&client);
    let wanted = (0..groups()).map(|number| set(&format!("m{number}"), &pod)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    parallel(wanted.iter().map(async |set| Ok(sets.create(&PostParams::default(), set).await?))).await?;
    let available = |set: &DynamicObject| usize::from(is_available(set));
    tokio::try_join!(served(&client, 2 * groups(), 0), until_worth(sets.clone(), groups(), available))?;
    let seconds = began.elapsed().as_secs_f64();
    table::rival("objects of one group of 2", seconds);
    table::rival("as much as LeaderWorkerSet makes of them", seconds);
    let (memory, processor) = shoal::cost(manager.id().context("it runs")?)?;
    table::rival("memory then, peak", memory);
    table::rival("processor time then", processor);
    sets.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    until_gone(&client, Instant::now()).await?;
    kubectl(&["delete", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "--all"]).await?;
    manager.kill().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    Ok(())
}
