//! Too little room: groups are withdrawn whole, queue, and never starve one another half scheduled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use shoal_operator::crd::{ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::nodes::Pool;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, number, with_operator, within};

fn reasons(status: &ModelDeploymentStatus) -> Vec<&str> {
    status.recovery.iter().map(|entry| entry.reason.as_str()).collect()
}

fn refused(status: &ModelDeploymentStatus) -> bool {
    reasons(status) == ["Unschedulable"]
}

fn named(mut model: ModelDeployment, name: &str) -> ModelDeployment {
    model.metadata.name = Some(name.to_owned());
    model
}

/// Pods that have a node and were not told to leave it.
async fn scheduled(bench: &Bench<'_>, model: &str) -> Result<usize> {
    let mut all = bench.pods(model).await?;
    all.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(all.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())).count())
}

pub(crate) async fn a_group_without_room_is_withdrawn_whole_and_comes_with_the_next_node() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let pool = Pool::new(bench.cluster, bench.namespace, 2, 1).await?;
        bench.occupy(&pool, "other", None).await?;
        bench.models().create(&PostParams::default(), &within(&pool, 1)?).await?;
        let status = bench.until("tiny", "the withdrawal", refused).await?;
        let words = status.recovery.iter().map(|entry| entry.message.clone()).collect::<String>();
        ensure!(words.contains("Unschedulable: 0/") && words.contains("Insufficient cpu"), "{words}");
        await_value("no half group", async || Ok((bench.pods("tiny").await?.is_empty()).then_some(()))).await?;
        pool.add(2, 1).await?;
        let status = bench.ready("tiny").await?.status.unwrap_or_default();
        ensure!(status.recovery.iter().all(|entry| entry.failures == 0), "a withdrawal is no failure: {status:?}");
        pool.clear().await
    })
    .await
}

/// Watches from now on whether two models try to place a second or later epoch at the same time; says when they do.
fn collisions(bench: &Bench<'_>) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (all, api) = (Arc::clone(&seen), Api::<Pod>::namespaced(bench.cluster.client(), bench.namespace));
    tokio::spawn(async move {
        let mut events = Box::pin(watcher(api, watcher::Config::default().labels(label::MODEL)).default_backoff());
        let mut seeking: BTreeMap<String, String> = BTreeMap::new();
        while let Some(event) = events.next().await {
            let (pod, gone) = match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => (pod, false),
                Ok(Event::Delete(pod)) => (pod, true),
                _ => continue,
            };
            let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let ends = gone || placed || pod.metadata.deletion_timestamp.is_some();
            if ends || number(&pod, label::EPOCH).is_ok_and(|epoch| epoch < 2) {
                seeking.remove(&pod.name_any());
            } else {
                seeking.insert(pod.name_any(), pod.labels()[label::MODEL].clone());
            }
            if seeking.values().collect::<BTreeSet<_>>().len() > 1 {
                all.lock().expect("nobody panics with it").push(format!("{seeking:?}"));
            }
        }
    });
    seen
}

/// Two models that each need all nodes that are free, made in the same moment: lws#167.
pub(crate) async fn two_models_that_each_need_all_nodes_do_not_starve_each_other_half_scheduled() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let pool = Pool::new(bench.cluster, bench.namespace, 4, 1).await?;
        let mut model = within(&pool, 1)?;
        if let Some(sharding) = &mut model.spec.sharding {
            sharding.shards = Some(4);
        }
        bench.occupy(&pool, "other", None).await?;
        let collisions = collisions(bench);
        let (a, b) = (named(model.clone(), "first"), named(model, "second"));
        let (models, params) = (bench.models(), PostParams::default());
        let (a, b) = tokio::join!(models.create(&params, &a), models.create(&params, &b));
        a.and(b)?;
        // As long as a node is missing both are refused again and again, each in its turn.
        let again =
            |status: &ModelDeploymentStatus| refused(status) && status.recovery.iter().any(|entry| entry.epoch >= 3);
        for model in ["first", "second"] {
            bench.until(model, "two refusals", again).await?;
        }
        pool.add(4, 1).await?;
        let winner = await_value("one of them whole", async || {
            let counts = (scheduled(bench, "first").await?, scheduled(bench, "second").await?);
            Ok(match counts {
                (4, _) => Some(("first", "second")),
                (_, 4) => Some(("second", "first")),
                _ => None,
            })
        })
        .await?;
        bench.ready(winner.0).await?;
        let status = bench.until(winner.1, "the other's withdrawal", refused).await?;
        assert_eq!(status.available_groups, 0);
        let before = bench.identities(winner.0).await?;
        bench.models().delete(winner.0, &DeleteParams::default()).await?;
        ensure!(before.len() == 4, "{before:?}");
        bench.ready(winner.1).await?;
        let collisions = collisions.lock().expect("nobody panics with it").clone();
        ensure!(collisions.is_empty(), "both were being placed: {collisions:#?}");
        pool.clear().await
    })
    .await
}

/// One that fits nowhere stands in the queue; another that lost a shard comes back all the same.
pub(crate) async fn a_model_that_fits_nowhere_keeps_no_other_from_coming_back() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        // It fits the nodes when they are empty, as plans do, and they never are.
        let pool = Pool::new(bench.cluster, bench.namespace, 4, 1).await?;
        bench.occupy(&pool, "other", None).await?;
        bench.serve(&within(&pool, 1)?).await?;
        let mut giant = named(within(&pool, 1)?, "giant");
        if let Some(sharding) = &mut giant.spec.sharding {
            sharding.shards = Some(4);
        }
        bench.models().create(&PostParams::default(), &giant).await?;
        bench.until("giant", "its withdrawal", |status| reasons(status).contains(&"Unschedulable")).await?;
        let victims: Vec<Pod> = bench.pods("tiny").await?;
        pods::fail(bench.cluster, bench.namespace, &victims[0].name_any(), "Error", 1).await?;
        let again = |status: &ModelDeploymentStatus| {
            status.available_groups == 1 && status.groups.iter().any(|group| group.epoch >= 2)
        };
        bench.until("tiny", "its next epoch", again).await?;
        pool.clear().await
    })
    .await
}
