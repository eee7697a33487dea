//! Why a shard was lost: each fault is made by the fake kubelet, the real scheduler or the real node controller, and each
//! has its own reason in status and its last words in an Event.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::crd::{GroupPhase, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::nodes::Pool;
use shoal_tests::cluster::pods::{self, FAULT, KEEP_TERMINATING};

use super::bench::{annotated, number, with_operator, with_seeds, within};

/// Epoch 2 of the only group is ready.
fn formed_again(status: &ModelDeploymentStatus) -> bool {
    status.groups.iter().any(|group| (group.epoch, group.phase) == (2, GroupPhase::Ready))
}

/// Group, epoch, losses and reason of everything that is remembered.
fn memory(status: &ModelDeploymentStatus) -> Vec<(i32, i64, i32, &str)> {
    status.recovery.iter().map(|entry| (entry.group, entry.epoch, entry.failures, entry.reason.as_str())).collect()
}

/// One shard of a first epoch meets `fault`: exactly one new epoch, with that reason and those last words.
async fn is_lost_once(fault: &str, reason: &str, words: &str) -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.models().create(&PostParams::default(), &annotated(1, &[(FAULT, fault)])?).await?;
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, reason)]);
        bench.told("GroupLost", &format!("({reason}): shard 1: {words}")).await
    })
    .await
}

pub(crate) async fn a_shard_killed_for_its_memory_is_told_from_a_crash() -> Result<()> {
    is_lost_once("oom-killed", "OutOfMemory", "OOMKilled (exit code 137) loading layer 12").await
}

pub(crate) async fn a_crashed_shard_leaves_its_exit_code_and_its_last_lines() -> Result<()> {
    let words = "Error (exit code 1) loading layer 12 | no such tensor: model.layers.12.mlp.gate.weight";
    is_lost_once("exit-1", "CrashLoop", words).await
}

pub(crate) async fn a_shard_evicted_by_its_kubelet_says_what_the_node_was_short_of() -> Result<()> {
    is_lost_once("evicted", "Evicted", "The node was low on resource: memory.; Error (exit code 137) stopping").await
}

pub(crate) async fn an_image_that_cannot_be_pulled_is_its_own_reason() -> Result<()> {
    is_lost_once("image-pull", "ImagePull", "ErrImagePull: manifest unknown: manifest unknown").await
}

pub(crate) async fn while_a_peer_pulls_its_image_a_lost_shard_waits_and_then_costs_one_epoch() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.models().create(&PostParams::default(), &annotated(1, &[(FAULT, "slow-pull")])?).await?;
        let pulling = |status: &ModelDeploymentStatus| {
            status
                .groups
                .iter()
                .any(|g| g.ready_shards == 1 && g.message.as_deref() == Some("shard 1: ContainerCreating"))
        };
        bench.until("tiny", "one shard ready, the other pulling", pulling).await?;
        let all = bench.pods("tiny").await?;
        let (lost, slow) = (all.first().context("rank 0")?, all.get(1).context("rank 1")?);
        pods::fail(bench.cluster, bench.namespace, &lost.name_any(), "Error", 1).await?;
        let waits = |status: &ModelDeploymentStatus| status.groups.iter().any(|group| group.phase == GroupPhase::Lost);
        bench.until("tiny", "the loss", waits).await?;
        for round in 0..3 {
            bench.touch("tiny", round).await?;
        }
        assert_eq!(bench.pods("tiny").await?.len(), 2, "nothing is started while an image is being pulled");
        pods::unmark(bench.cluster, slow, FAULT).await?;
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, "CrashLoop")]);
        Ok(())
    })
    .await
}

pub(crate) async fn a_shard_that_makes_room_for_a_higher_priority_is_preempted() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let pool = Pool::new(bench.cluster, bench.namespace, 1, 2).await?;
        bench.serve(&within(&pool, 1)?).await?;
        bench.occupy(&pool, "urgent", Some("system-cluster-critical")).await?;
        bench.told("GroupLost", "(Preempted)").await?;
        pool.add(1, 2).await?;
        bench.ready("tiny").await?;
        pool.clear().await
    })
    .await
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn index_of(node: &str) -> Result<usize> {
    Ok(node.rsplit('-').next().unwrap_or_default().parse()?)
}

pub(crate) async fn a_silent_node_loses_its_shards_at_its_taint_and_no_pod_is_forced() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        let pool = Pool::new(bench.cluster, bench.namespace, 4, 1).await?;
        // The fake kubelet goes on ending pods; a silent one does not.
        let mut model = within(&pool, 1)?;
        model.spec.pod.annotations.insert(KEEP_TERMINATING.into(), "true".into());
        bench.serve(&model).await?;
        let before = bench.pods("tiny").await?;
        let rank = usize::try_from(draw.number(0..=1))?;
        let silent = node_of(&before[rank]).to_owned();
        pool.silence(index_of(&silent)?).await?;
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, "NodeLost")]);
        let after = bench.pods("tiny").await?;
        let old = after.iter().find(|pod| node_of(pod) == silent).context("the pod on the silent node")?;
        assert_eq!(old.uid(), before[rank].uid());
        assert_eq!(old.metadata.deletion_grace_period_seconds, Some(120), "told to end gracefully, never forced");
        let targets = old.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let evicted = targets.into_iter().any(|condition| condition.type_ == "DisruptionTarget");
        ensure!(!evicted, "the operator did not wait for the pods to be evicted");
        print_latency(&pool.api().get(&silent).await?, &after)?;
        bench.told("GroupLost", &format!("(NodeLost): shard {rank}: node {silent} is unreachable or gone")).await?;
        pool.clear().await
    })
    .await
}

/// For the record: seconds from the taint to the new pods. Both clocks count whole seconds.
fn print_latency(node: &Node, pods: &[Pod]) -> Result<()> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let told =
        taints.into_iter().filter(|taint| taint.effect == "NoExecute").find_map(|taint| taint.time_added.clone());
    let made = pods.iter().filter_map(|pod| pod.metadata.creation_timestamp.clone()).max();
    let (told, made) = (told.context("a taint with its time")?, made.context("a new pod")?);
    println!("a silent node: {} s from its taint to the new pods", made.0.as_second() - told.0.as_second());
    Ok(())
}

pub(crate) async fn a_deleted_node_loses_its_shards_at_once() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        let pool = Pool::new(bench.cluster, bench.namespace, 4, 1).await?;
        bench.serve(&within(&pool, 1)?).await?;
        let before = bench.pods("tiny").await?;
        let rank = usize::try_from(draw.number(0..=1))?;
        let gone = node_of(&before[rank]).to_owned();
        pool.silence(index_of(&gone)?).await?;
        pool.delete(index_of(&gone)?).await?;
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, "NodeLost")]);
        pool.clear().await
    })
    .await
}

pub(crate) async fn without_nodes_a_lost_node_shows_by_its_pods() -> Result<()> {
    with_operator(Mode::Namespaced, async |bench| {
        let pool = Pool::new(bench.cluster, bench.namespace, 4, 1).await?;
        bench.serve(&within(&pool, 1)?).await?;
        let before = bench.pods("tiny").await?;
        pool.silence(index_of(node_of(&before[0]))?).await?;
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, "NodeLost")]);
        pool.clear().await
    })
    .await
}

/// Both shards of a group fail in the same moment, while it is still starting.
pub(crate) async fn shards_that_fail_together_while_starting_cost_one_epoch() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let created = annotated(1, &[(FAULT, "slow-pull")])?;
        bench.models().create(&PostParams::default(), &created).await?;
        let started = |status: &ModelDeploymentStatus| status.groups.iter().any(|group| group.ready_shards == 1);
        bench.until("tiny", "half a group", started).await?;
        let names: Vec<String> = bench.pods("tiny").await?.iter().map(kube::ResourceExt::name_any).collect();
        let (cluster, namespace) = (bench.cluster, bench.namespace);
        let fail = |name: String| async move { pods::fail(cluster, namespace, &name, "Error", 1).await };
        // The operator may be faster than the second of them.
        let failed = futures::future::join_all(names.into_iter().map(fail)).await;
        ensure!(failed.iter().any(Result::is_ok), "{failed:?}");
        let status = bench.until("tiny", "epoch 2", formed_again).await?;
        assert_eq!(memory(&status), [(0, 2, 1, "CrashLoop")]);
        bench.touch("tiny", 0).await?;
        let all = bench.pods("tiny").await?;
        let epochs: Vec<u64> = all.iter().map(|pod| number(pod, label::EPOCH)).collect::<Result<_>>()?;
        assert_eq!(epochs, [2, 2], "exactly one new epoch");
        Ok(())
    })
    .await
}

/// kserve#3845: the process is dead, but the pod still runs, for another container in it does.
pub(crate) async fn a_model_is_not_ready_while_a_worker_is_dead_in_a_pod_that_runs() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&annotated(1, &[(FAULT, "hold-next")])?).await?;
        let pod = bench.pods("tiny").await?.pop().context("a pod")?;
        let container = |name: &str, state: serde_json::Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state})
        };
        let dead = container("worker", json!({"terminated": {"exitCode": 101, "reason": "Error"}}));
        let status = json!({"status": {"containerStatuses": [dead, container("sidecar", json!({"running": {}}))]}});
        let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), bench.namespace);
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(status)).await?;
        for kind in ["Ready", "Available"] {
            bench.condition("tiny", kind, "False").await?;
        }
        bench.told("GroupLost", "(CrashLoop): shard 1: Error (exit code 101)").await
    })
    .await
}
