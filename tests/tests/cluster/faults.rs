//! What happens to a model and to its operator: lost shards, restarts, takeovers, and nothing at all.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt as _;
use pretty_assertions::assert_eq;
use shoal_operator::crd::{GroupPhase, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::wait::await_value;

use super::bench::{number, picture, tiny, with_operator};

fn all_ready(status: &ModelDeploymentStatus) -> bool {
    status.groups.iter().all(|group| group.phase == GroupPhase::Ready)
}

pub(crate) async fn a_lost_shard_recreates_its_group_once_and_only_its_group() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let before = bench.identities("tiny").await?;
        let victims = bench.pods("tiny").await?;
        let victim = victims.iter().find(|pod| pod.labels().get(label::GROUP).is_some_and(|group| group == "1"));
        let victim = victim.context("group 1 has pods")?.name_any();
        let mark = bench.cluster.audit().mark()?;
        pods::fail(bench.cluster, bench.namespace, &victim, "OOMKilled", 137).await?;
        let formed_again =
            |status: &ModelDeploymentStatus| all_ready(status) && status.groups.iter().any(|g| g.epoch == 2);
        let status = bench.until("tiny", "group 1 again", formed_again).await?;
        assert_eq!(picture(&status, &mut Vec::new(), true), "A0e1+ A1e2+");
        let memory: Vec<_> =
            status.recovery.iter().map(|r| (r.group, r.epoch, r.failures, r.reason.as_str())).collect();
        assert_eq!(memory, [(1, 2, 1, "OutOfMemory")]);
        let after = bench.identities("tiny").await?;
        let kept = |name: &&String| before.get(*name) == after.get(*name);
        assert_eq!(after.keys().filter(kept).count(), 2, "the other group's pods are the same");
        let epochs: BTreeSet<u64> =
            bench.pods("tiny").await?.iter().map(|pod| number(pod, label::EPOCH)).collect::<Result<_>>()?;
        assert_eq!(epochs, BTreeSet::from([1, 2]), "exactly one new epoch");
        let writes: Vec<String> =
            bench.writes_since(mark)?.iter().map(|c| format!("{} {}", c.verb, c.resource)).collect();
        assert_eq!(
            writes.first().map(String::as_str),
            Some("patch modeldeployments/status"),
            "remembered first: {writes:?}"
        );
        assert_eq!(writes.iter().filter(|write| *write == "create pods").count(), 2, "{writes:?}");
        bench.told("GroupLost", "(OutOfMemory)").await
    })
    .await
}

pub(crate) async fn a_drained_pod_takes_its_group_along_and_the_next_epoch_comes_at_once() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let mut model = tiny(1)?;
        model.spec.pod.annotations.insert(pods::KEEP_TERMINATING.into(), "true".into());
        bench.serve(&model).await?;
        let drained = bench.pods("tiny").await?;
        pods::delete(bench.cluster, drained.first().context("a pod")?).await?;
        let next = |status: &ModelDeploymentStatus| {
            status.groups.iter().any(|group| group.epoch == 2 && group.phase == GroupPhase::Ready)
        };
        let status = bench.until("tiny", "epoch 2 beside the old pods", next).await?;
        assert_eq!(
            status.groups.iter().map(|group| group.phase).collect::<Vec<_>>(),
            [GroupPhase::Draining, GroupPhase::Ready]
        );
        let pods = bench.pods("tiny").await?;
        let ending: Vec<(u64, bool)> = pods
            .iter()
            .map(|pod| Ok((number(pod, label::EPOCH)?, pod.metadata.deletion_timestamp.is_some())))
            .collect::<Result<_>>()?;
        assert_eq!(ending, [(1, true), (1, true), (2, false), (2, false)]);
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
            pods::unmark(bench.cluster, pod, pods::KEEP_TERMINATING).await?;
        }
        bench.until("tiny", "only epoch 2", |status| status.groups.len() == 1).await.map(drop)
    })
    .await
}

pub(crate) async fn a_restarted_operator_touches_no_pod() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        bench.touch("tiny", 0).await?;
        let before = bench.identities("tiny").await?;
        let mark = bench.cluster.audit().mark()?;
        bench.restart_operator().await?;
        bench.touch("tiny", 1).await?;
        assert_eq!(bench.writes_since(mark)?, vec![]);
        assert_eq!(bench.identities("tiny").await?, before);
        Ok(())
    })
    .await
}

pub(crate) async fn a_settled_object_costs_no_write_in_a_hundred_passes() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        bench.touch("tiny", 0).await?;
        let mark = bench.cluster.audit().mark()?;
        for round in 1..=100 {
            bench.touch("tiny", round).await?;
        }
        assert_eq!(bench.writes_since(mark)?, vec![]);
        Ok(())
    })
    .await
}

pub(crate) async fn a_second_operator_stands_by_and_takes_over_from_a_killed_one() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        let second = Operator::start_with(bench.cluster, &bench.install, &[("SHOAL_TIMING_DIVISOR", "20")]).await?;
        let leaders = |log: &str| log.matches("\"message\":\"leading\"").count();
        assert_eq!(leaders(&bench.operator.log()?), 1);
        std::mem::replace(&mut bench.operator, second).kill().await?;
        await_value("a second leader", async || Ok((leaders(&bench.operator.log()?) == 2).then_some(()))).await?;
        let victim = bench.pods("tiny").await?.first().context("a pod")?.name_any();
        pods::fail(bench.cluster, bench.namespace, &victim, "Error", 1).await?;
        let next = |status: &ModelDeploymentStatus| all_ready(status) && status.groups.iter().any(|g| g.epoch == 2);
        bench.until("tiny", "the new leader's epoch", next).await?;
        let install = bench.install.clone();
        let third = Operator::start_with(bench.cluster, &install, &[("SHOAL_TIMING_DIVISOR", "20")]).await?;
        let stopped = std::mem::replace(&mut bench.operator, third).stop().await?;
        ensure!(stopped.success(), "SIGTERM ends it cleanly: {stopped}");
        await_value("a third leader", async || Ok((leaders(&bench.operator.log()?) == 3).then_some(()))).await
    })
    .await
}
