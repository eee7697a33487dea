//! Voluntary disruptions: the PodDisruptionBudget, the Eviction API and `kubectl drain`.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::crd::{GroupPhase, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::nodes::Pool;
use shoal_tests::cluster::pods::{self, FAULT, HOLD, evict};
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::{await_gone, await_object, await_value};

use super::bench::{Bench, annotated, number, tiny, with_operator, within};

fn budgets(bench: &Bench<'_>) -> Api<PodDisruptionBudget> {
    Api::namespaced(bench.cluster.client(), bench.namespace)
}

/// Waits until the budget keeps `least` pods and lets `allowed` go.
async fn lets_go(bench: &Bench<'_>, least: i32, allowed: i32) -> Result<PodDisruptionBudget> {
    let holds = |budget: &PodDisruptionBudget| {
        let keeps = budget.spec.as_ref().and_then(|spec| spec.min_available.clone());
        let current = budget.status.as_ref().filter(|status| status.observed_generation == budget.metadata.generation);
        keeps == Some(IntOrString::Int(least)) && current.is_some_and(|status| status.disruptions_allowed == allowed)
    };
    await_object(&budgets(bench), "tiny", &format!("keeping {least} and letting {allowed} go"), holds).await
}

/// The pod of that group and rank in its newest epoch.
async fn shard(bench: &Bench<'_>, group: u64, rank: u64) -> Result<Pod> {
    let mut found: Vec<(u64, Pod)> = Vec::new();
    for pod in bench.pods("tiny").await? {
        if (number(&pod, label::GROUP)?, number(&pod, label::RANK)?) == (group, rank) {
            found.push((number(&pod, label::EPOCH)?, pod));
        }
    }
    found.sort_by_key(|(epoch, _)| *epoch);
    Ok(found.pop().with_context(|| format!("no pod of group {group} rank {rank}"))?.1)
}

pub(crate) async fn two_groups_get_a_budget_that_follows_them_and_a_single_one_gets_none() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        assert_eq!(budgets(bench).get_opt("tiny").await?, None);
        bench.edit("tiny", json!({"spec": {"replicas": 3}})).await?;
        let budget = lets_go(bench, 5, 1).await?;
        let spec = serde_json::to_value(budget.spec.as_ref().context("a spec")?)?;
        let selector = json!({"matchLabels": {label::MODEL: "tiny"}});
        let policy = "AlwaysAllow";
        assert_eq!(spec, json!({"minAvailable": 5, "selector": selector, "unhealthyPodEvictionPolicy": policy}));
        bench.edit("tiny", json!({"spec": {"replicas": 2}})).await?;
        lets_go(bench, 3, 1).await?;
        let wrong = r#"{"spec":{"minAvailable":0}}"#;
        kubectl(&["patch", "pdb", "tiny", "-n", bench.namespace, "--type=merge", "-p", wrong]).await?;
        lets_go(bench, 3, 1).await?;
        budgets(bench).delete("tiny", &DeleteParams::default()).await?;
        await_object(&budgets(bench), "tiny", "made again", |again| again.uid() != budget.uid()).await?;
        bench.edit("tiny", json!({"spec": {"replicas": 1}})).await?;
        await_gone(&budgets(bench), "tiny").await
    })
    .await
}

pub(crate) async fn a_budget_of_somebody_else_is_not_touched_and_the_status_says_so() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let theirs = ["create", "pdb", "tiny", "--selector=app=x", "--min-available=1", "-n", bench.namespace];
        kubectl(&theirs).await?;
        let before = budgets(bench).get("tiny").await?.spec;
        bench.models().create(&kube::api::PostParams::default(), &tiny(2)?).await?;
        let model = bench.condition("tiny", "Stalled", "True").await?;
        let stalled = model.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == "Stalled");
        let said = stalled.map(|condition| (condition.reason.as_str(), condition.message.as_str()));
        let message = "PodDisruptionBudget tiny exists and belongs to somebody else; it was not touched";
        assert_eq!(said, Some(("NameTaken", message)));
        assert_eq!(budgets(bench).get("tiny").await?.spec, before);
        assert_eq!(bench.pods("tiny").await?.len(), 4, "its groups are made all the same");
        budgets(bench).delete("tiny", &DeleteParams::default()).await?;
        bench.ready("tiny").await?;
        lets_go(bench, 3, 1).await.map(drop)
    })
    .await
}

pub(crate) async fn of_two_groups_evicted_back_to_back_the_second_waits_until_the_first_is_ready() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&annotated(2, &[(FAULT, "hold-next")])?).await?;
        lets_go(bench, 3, 1).await?;
        let (first, second) = (shard(bench, 0, 0).await?, shard(bench, 1, 0).await?);
        ensure!(evict(bench.cluster, &first).await?, "the first eviction passes");
        ensure!(!evict(bench.cluster, &second).await?, "the second is refused at once");
        let formed = |status: &ModelDeploymentStatus| {
            status.groups.iter().any(|g| (g.index, g.epoch, g.phase) == (0, 2, GroupPhase::Starting))
        };
        let status = bench.until("tiny", "the next epoch of the first group", formed).await?;
        assert_eq!(status.recovery.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), ["Evicted"]);
        for round in 0..3 {
            bench.touch("tiny", round).await?;
            ensure!(!evict(bench.cluster, &second).await?, "refused while the first group starts");
        }
        for pod in [shard(bench, 0, 0).await?, shard(bench, 0, 1).await?] {
            ensure!(number(&pod, label::EPOCH)? == 2, "the first group leaves as a whole");
            pods::unmark(bench.cluster, &pod, FAULT).await?;
        }
        lets_go(bench, 3, 1).await?;
        ensure!(evict(bench.cluster, &second).await?, "allowed once the first group is ready");
        Ok(())
    })
    .await
}

pub(crate) async fn a_rollout_that_is_stuck_keeps_no_node_from_being_emptied() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&annotated(2, &[(FAULT, "hold-next")])?).await?;
        bench.edit("tiny", json!({"spec": {"pod": {"annotations": {HOLD: "true"}}}})).await?;
        bench.until("tiny", "a third group", |status| status.groups.len() == 3).await?;
        lets_go(bench, 3, 1).await?;
        let (first, second) = (shard(bench, 0, 0).await?, shard(bench, 1, 0).await?);
        ensure!(evict(bench.cluster, &first).await?, "one pod may go");
        ensure!(!evict(bench.cluster, &second).await?, "and no other group's");
        ensure!(evict(bench.cluster, &shard(bench, 2, 0).await?).await?, "what is not ready may go at any time");
        Ok(())
    })
    .await
}

pub(crate) async fn kubectl_drain_of_a_node_with_two_shards_of_one_group_finishes() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let pool = Pool::new(bench.cluster, bench.namespace, 3, 2).await?;
        let mut model = within(&pool, 2)?;
        model.spec.placement.pack_shards_by = Some("kubernetes.io/hostname".into());
        bench.serve(&model).await?;
        lets_go(bench, 3, 1).await?;
        let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let node = on(&shard(bench, 0, 0).await?);
        assert_eq!(on(&shard(bench, 0, 1).await?), node, "a node holds two shards, so a group is on one");
        kubectl(&["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=50s"]).await?;
        await_value("both groups on other nodes", async || {
            let all = bench.pods("tiny").await?;
            let moved = all.len() == 4 && all.iter().all(|pod| on(pod) != node && pods::is_ready(pod));
            Ok(moved.then_some(()))
        })
        .await?;
        assert_eq!(number(&shard(bench, 1, 0).await?, label::EPOCH)?, 1, "the other group is as it was");
        pool.clear().await
    })
    .await
}
