//! The operator killed before and after every one of its writes, and together with all pods: the end is the same.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use shoal_operator::crd::{GroupPhase, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, ENV, number, tiny, with_operator};
use super::scenario::{Life, STAGES, lives, undisturbed};

/// When the operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    write: u64,
    after: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "crash-{} write * {}", if self.after { "after" } else { "before" }, self.write)
    }
}

/// Hands out the points in order, until a life ends without reaching its own.
#[derive(Default)]
struct Points {
    given: Cell<u64>,
    /// The last write that killed.
    reached: Cell<u64>,
    exhausted: Cell<bool>,
}

impl Points {
    fn next(&self) -> Option<Point> {
        let given = self.given.get();
        self.given.set(given + 1);
        (!self.exhausted.get()).then_some(Point { write: given / 2 + 1, after: given % 2 == 1 })
    }

    fn lived(&self, point: Point, killed: bool) {
        if killed {
            self.reached.set(self.reached.get().max(point.write));
        } else {
            self.exhausted.set(true);
        }
    }
}

pub(crate) async fn killed_before_or_after_any_write_it_leaves_the_same_as_undisturbed() -> Result<()> {
    let expected = undisturbed(Mode::Cluster, &STAGES).await?;
    let points = Points::default();
    let lived = |point: Point, life: Life| {
        points.lived(point, life.ended);
        Ok(())
    };
    lives(Mode::Cluster, (&STAGES, &expected), || points.next(), lived).await?;
    let writes = points.reached.get();
    println!("crash points: before and after each of {writes} writes, {} lives", 2 * writes);
    ensure!(writes >= 30, "only {writes} writes killed: the fault does not strike");
    Ok(())
}

/// Of each slot the newest epoch of which a pod is not ending; fails when two epochs of a slot live beside one another.
fn epochs(pods: &[Pod]) -> Result<BTreeMap<u64, u64>> {
    let mut newest = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let (slot, epoch) = (number(pod, label::GROUP)?, number(pod, label::EPOCH)?);
        let other = newest.insert(slot, epoch).unwrap_or(epoch);
        ensure!(other == epoch, "epochs {other} and {epoch} of group {slot} live at once");
    }
    Ok(newest)
}

/// Rounds of one lane: more would wait for the back-off of a group that is lost again and again.
const ROUNDS: usize = 5;

pub(crate) async fn with_all_pods_and_the_operator_gone_at_once_epochs_only_rise() -> Result<()> {
    let lane = async || {
        with_operator(Mode::Cluster, async |bench| {
            bench.serve(&tiny(2)?).await?;
            for round in 1..=ROUNDS {
                let before = epochs(&bench.pods("tiny").await?)?;
                let next = Operator::start_with(bench.cluster, &bench.install, &ENV).await?;
                let operator = std::mem::replace(&mut bench.operator, next);
                let pods: Api<Pod> = Api::namespaced(bench.cluster.client(), bench.namespace);
                let (all, ours) = (DeleteParams::default(), ListParams::default().labels(label::MODEL));
                tokio::try_join!(async { Ok(pods.delete_collection(&all, &ours).await?) }, operator.kill())?;
                formed_again(bench, &before).await.with_context(|| format!("round {round}"))?;
            }
            Ok(())
        })
        .await
    };
    try_join_all((0..4).map(|_| lane())).await.map(drop)
}

/// Watches every step until both groups serve under higher epochs.
async fn formed_again(bench: &Bench<'_>, before: &BTreeMap<u64, u64>) -> Result<()> {
    await_value("both groups under higher epochs", async || {
        let now = epochs(&bench.pods("tiny").await?)?;
        ensure!(now.len() <= 3, "more groups than two and the surge: {now:?}");
        for (slot, epoch) in &now {
            let old = before.get(slot).copied().unwrap_or(0);
            ensure!(*epoch >= old, "group {slot} fell from epoch {old} to {epoch}");
        }
        let status = bench.models().get("tiny").await?.status.unwrap_or_default();
        let risen = |status: &ModelDeploymentStatus| {
            status.groups.len() == 2
                && status.groups.iter().all(|group| {
                    let slot = u64::try_from(group.index).unwrap_or_default();
                    let epoch = u64::try_from(group.epoch).unwrap_or_default();
                    group.phase == GroupPhase::Ready && before.get(&slot).is_none_or(|old| *old < epoch)
                })
        };
        Ok(risen(&status).then_some(()))
    })
    .await
}
