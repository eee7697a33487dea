//! Somebody changes what pods are known by: their labels, and their owner.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_operator::crd::{GroupPhase, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, number, tiny, with_operator};

/// What was done to rank 1 of a model of that name, and what becomes of the pod.
struct Case {
    name: String,
    change: Value,
    /// Nobody's any more: left alone, and told of.
    taken: bool,
}

fn cases() -> Vec<Case> {
    let keys = [label::MODEL, label::REVISION, label::GROUP, label::EPOCH, label::RANK, label::ACCEPTS];
    let mut cases = Vec::new();
    for (at, key) in keys.into_iter().enumerate() {
        // Also the name of another model.
        for (how, value) in [("changed", json!("a0-removed")), ("removed", Value::Null)] {
            let change = json!({"metadata": {"labels": {key: value}}});
            cases.push(Case { name: format!("a{at}-{how}"), change, taken: false });
        }
    }
    cases.push(Case { name: "orphaned".into(), change: json!({"metadata": {"ownerReferences": null}}), taken: true });
    cases
}

/// The pods whose names begin with that of `model`, whatever their labels say.
async fn named(bench: &Bench<'_>, model: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), bench.namespace);
    let mut items = pods.list(&ListParams::default()).await?.items;
    items.retain(|pod| pod.name_any().starts_with(&format!("{model}-")));
    Ok(items)
}

/// Tampers with rank 1; how long it took until the next formation was made.
async fn tampered(bench: &Bench<'_>, case: &Case) -> Result<std::time::Duration> {
    let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), bench.namespace);
    let before = named(bench, &case.name).await?;
    let victim = before.iter().find(|pod| pod.name_any().ends_with("-r1")).context("rank 1")?;
    let began = Instant::now();
    pods.patch(&victim.name_any(), &PatchParams::default(), &Patch::Merge(&case.change)).await?;
    await_value("the next formation", async || {
        let next = |pod: &Pod| number(pod, label::EPOCH).is_ok_and(|epoch| epoch == 2);
        Ok((named(bench, &case.name).await?.iter().filter(|pod| next(pod)).count() == 2).then_some(()))
    })
    .await?;
    let took = began.elapsed();
    let again = |status: &ModelDeploymentStatus| {
        status.groups.iter().all(|group| (group.epoch, group.phase) == (2, GroupPhase::Ready))
    };
    bench.until(&case.name, "ready again", again).await?;
    await_value("only the new pods, and those that are nobody's", async || {
        let old: Vec<String> = named(bench, &case.name)
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .filter(|name| name.contains("-e1-"))
            .collect();
        Ok(if case.taken { old == [victim.name_any()] } else { old.is_empty() }.then_some(()))
    })
    .await?;
    let degraded = bench.condition(&case.name, "Degraded", if case.taken { "True" } else { "False" }).await?;
    let told = degraded.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == "Degraded");
    assert_eq!(told.map(|c| c.reason.as_str()), Some(if case.taken { "PodsTaken" } else { "AsExpected" }));
    Ok(took)
}

pub(crate) async fn a_pod_whose_labels_or_owner_were_changed_is_replaced_and_holds_nothing_that_is_ours() -> Result<()>
{
    with_operator(Mode::Namespaced, async |bench| {
        let cases = cases();
        for case in &cases {
            let mut model = tiny(1)?;
            model.metadata.name = Some(case.name.clone());
            bench.models().create(&PostParams::default(), &model).await?;
        }
        for case in &cases {
            bench.ready(&case.name).await?;
        }
        let took =
            try_join_all(cases.iter().map(async |case| tampered(bench, case).await.with_context(|| case.name.clone())));
        let took = took.await?;
        let longest = took.iter().max().context("a case")?;
        println!("{} ways to tamper with a pod: the next formation was made within {longest:?}", took.len());
        // What somebody else's garbage collector takes is lost like any other.
        let other = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "0", "controller": true}]);
        let change = json!({"metadata": {"ownerReferences": other}});
        let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), bench.namespace);
        let victim = named(bench, "a5-removed").await?.pop().context("a pod")?.name_any();
        pods.patch(&victim, &PatchParams::default(), &Patch::Merge(&change)).await?;
        let again = |status: &ModelDeploymentStatus| {
            status.groups.iter().all(|group| (group.epoch, group.phase) == (3, GroupPhase::Ready))
        };
        bench.until("a5-removed", "ready again", again).await?;
        await_value("the collector took it", async || {
            Ok(named(bench, "a5-removed").await?.iter().all(|pod| pod.name_any() != victim).then_some(()))
        })
        .await?;
        ensure!(named(bench, "a5-removed").await?.len() == 2, "exactly its group");
        Ok(())
    })
    .await
}
