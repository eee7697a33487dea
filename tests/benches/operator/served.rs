//! What both contenders share: the models, when the clock stops, and a clean table between two cases.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use shoal_operator::crd::ModelDeployment;
use shoal_operator::names::label;
use shoal_tests::cluster::pods::is_ready;
use shoal_tests::paths::repository;

/// Requests of the load in flight.
pub(crate) const AT_ONCE: usize = 16;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// The namespace of everything that is measured.
pub(crate) const NAMESPACE: &str = "default";

/// The demo model as `name` with so many groups of two CPU shards, which count as soon as they are ready.
pub(crate) fn model(name: &str, replicas: usize) -> Result<ModelDeployment> {
    let text = std::fs::read_to_string(repository().join("manifests/tiny-cpu.yaml"))?;
    let mut model: ModelDeployment = serde_yaml::from_str(&text)?;
    model.metadata.name = Some(name.to_owned());
    model.spec.replicas = i32::try_from(replicas)?;
    model.spec.rollout.min_ready_seconds = 0;
    model.spec.rollout.max_surge = 1;
    model.spec.pod.resources.requests = serde_json::from_value(json!({"cpu": "10m"}))?;
    Ok(model)
}

/// Runs `jobs`, [`AT_ONCE`] at a time.
pub(crate) async fn parallel<T>(jobs: impl IntoIterator<Item = impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(jobs).buffer_unordered(AT_ONCE).try_collect().await
}

/// Creates the models as users would.
pub(crate) async fn create(client: &Client, models: &[ModelDeployment]) -> Result<Vec<ModelDeployment>> {
    let api: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
    parallel(models.iter().map(async |model| Ok(api.create(&PostParams::default(), model).await?))).await
}

/// Waits until `pods` pods are Ready and as many addresses are in the EndpointSlices of client Services; with `objects`,
/// until so many say Available too. Watches: lists of all, again and again, would cost the server more than what is measured.
pub(crate) async fn served(client: &Client, pods: usize, objects: usize) -> Result<()> {
    let ready = until(client, pods, |pod: &Pod| usize::from(is_ready(pod)));
    let listed = until(client, pods, addresses);
    let available = async {
        if objects == 0 { Ok(()) } else { until(client, objects, |model| usize::from(is_available(model))).await }
    };
    tokio::try_join!(ready, listed, available).map(drop)
}

async fn until<K>(client: &Client, wanted: usize, worth: impl Fn(&K) -> usize) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until_worth(Api::namespaced(client.clone(), NAMESPACE), wanted, worth).await
}

/// Waits until all objects together are worth so much; no two have one name. A watch that breaks begins anew.
pub(crate) async fn until_worth<K>(api: Api<K>, wanted: usize, worth: impl Fn(&K) -> usize) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let deadline = Instant::now() + PATIENCE;
    let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
    let mut all: HashMap<String, usize> = HashMap::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let sum: usize = all.values().sum();
        let Ok(event) = tokio::time::timeout(left, events.next()).await else {
            bail!("only {sum} of {wanted} after {} s", PATIENCE.as_secs());
        };
        let Ok(event) = event.context("a watch ended")? else { continue };
        match event {
            Event::Apply(object) | Event::InitApply(object) => all.insert(object.name_any(), worth(&object)),
            Event::Delete(object) => all.remove(&object.name_any()),
            Event::Init => {
                all.clear();
                None
            }
            Event::InitDone => None,
        };
        if all.values().sum::<usize>() >= wanted {
            return Ok(());
        }
    }
}

/// Ready addresses of a slice of a client Service.
fn addresses(slice: &EndpointSlice) -> usize {
    let service = slice.labels().get("kubernetes.io/service-name").map_or("", String::as_str);
    if service.ends_with("-shards") || service.ends_with("-headless") {
        return 0;
    }
    let ready = slice
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)));
    ready.map(|endpoint| endpoint.addresses.len()).sum()
}

fn is_available(model: &ModelDeployment) -> bool {
    let conditions = model.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == "Available" && condition.status == "True")
}

/// Seconds until no pod is left. Asks for one pod at a time: what it costs the server is no part of what is measured.
pub(crate) async fn until_gone(client: &Client, began: Instant) -> Result<f64> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    while !pods.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        ensure!(began.elapsed() < Duration::from_secs(300), "pods do not end");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Deletes pods one by one, as the operator must; the seconds until they are gone.
pub(crate) async fn delete_pods(client: &Client) -> Result<f64> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let names: Vec<String> = pods.list(&ListParams::default().match_any()).await?.iter().map(Pod::name_any).collect();
    let began = Instant::now();
    let delete = names.iter().map(async |name| Ok(pods.delete(name, &DeleteParams::default()).await.map(drop)?));
    let (_, took) = tokio::try_join!(parallel(delete), until_gone(client, began))?;
    Ok(took)
}

/// What belonged to models goes at once: the garbage collector learns of a new CRD only after half a minute.
async fn delete_made<K>(client: &Client) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let all: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    all.delete_collection(&DeleteParams::default(), &ListParams::default().labels(label::MODEL)).await?;
    Ok(())
}

/// Removes everything and lets the controllers come to rest.
pub(crate) async fn clean(client: &Client) -> Result<()> {
    let models: Api<ModelDeployment> = Api::namespaced(client.clone(), NAMESPACE);
    models.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    delete_pods(client).await.ok();
    delete_made::<Service>(client).await?;
    delete_made::<NetworkPolicy>(client).await?;
    delete_made::<PodDisruptionBudget>(client).await?;
    delete_made::<Secret>(client).await?;
    until_gone(client, Instant::now()).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    Ok(())
}
