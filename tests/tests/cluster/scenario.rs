//! One life of a model, lived under an operator that something happens to, and what is left after each of its stages.
//!
//! A snapshot leaves out what no two lives share: uids and what is hashed from them, times, addresses, nodes, and which
//! slots the groups took (a new group takes a slot of which no pod is left).

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use pretty_assertions::StrComparison;
use serde::Serialize;
use serde_json::{Value, json};
use shoal_operator::crd::{GroupPhase, ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::{Install, Mode};
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::wait::{await_gone, await_value};

use super::bench::{ENV, Room, tiny};

/// What happens to the model after it was created, in order; then it is deleted.
pub(crate) const STAGES: [Stage; 5] = [Stage::Create, Stage::Scale, Stage::Edit, Stage::Meddle, Stage::Lose];

/// Lives at once: mostly they wait for leases and back-offs.
const LANES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// One group of two shards.
    Create,
    /// Two groups.
    Scale,
    /// Another revision.
    Edit,
    /// Somebody edits the client Service and the NetworkPolicy.
    Meddle,
    /// One shard of one group is killed for its memory.
    Lose,
}

/// How a life went.
pub(crate) struct Life {
    /// What was left after each stage.
    pub(crate) snapshots: Vec<String>,
    /// Whether the operator ended on the way and was started again, as its Deployment would.
    pub(crate) ended: bool,
    /// How many calls the fault struck.
    pub(crate) struck: usize,
}

/// Lives `stages` and the deletion under an operator with the API fault `fault`; one that ends is followed by one
/// without. Each stage must leave what `expected` says, if that is known yet.
pub(crate) async fn live(
    room: Room<'_>,
    install: &Install,
    stages: &[Stage],
    (fault, expected): (Option<&str>, &[String]),
) -> Result<Life> {
    let mut env = ENV.to_vec();
    env.extend(fault.map(|fault| ("SHOAL_API_FAULT", fault)));
    let mut operator = Operator::start_with(room.cluster, install, &env).await?;
    let struck =
        |operator: &Operator| Ok::<_, anyhow::Error>(operator.log()?.matches("\"message\":\"API fault\"").count());
    let (mut ended, before) = (false, struck(&operator)?);
    let snapshots = {
        let follow = async {
            operator.ended().await?;
            ended = true;
            operator = Operator::start_with(room.cluster, install, &ENV).await?;
            let status = operator.ended().await?;
            bail!("the operator ended without a fault: {status}")
        };
        tokio::select! {
            lived = stages_of(room, stages, expected) => lived?,
            followed = follow => followed?,
        }
    };
    let struck = struck(&operator)? - before;
    // It may be gone already; if not, it gives its lease to the next life's.
    let _ = operator.stop().await;
    Ok(Life { snapshots, ended, struck })
}

async fn stages_of(room: Room<'_>, stages: &[Stage], expected: &[String]) -> Result<Vec<String>> {
    let mut snapshots = Vec::new();
    for (at, stage) in stages.iter().enumerate() {
        begin(room, *stage).await?;
        let left = settled(room, *stage, expected.get(at)).await;
        snapshots.push(left.with_context(|| format!("stage {stage:?}"))?);
    }
    room.models().delete("tiny", &DeleteParams::default()).await?;
    await_gone(&room.models(), "tiny").await?;
    await_value("nothing of the model", async || {
        let nothing =
            services(room).await?.is_empty() && policies(room).await?.is_empty() && secrets(room).await?.is_empty();
        Ok((nothing && room.pods("tiny").await?.is_empty()).then_some(()))
    })
    .await?;
    Ok(snapshots)
}

async fn begin(room: Room<'_>, stage: Stage) -> Result<()> {
    match stage {
        Stage::Create => room.models().create(&PostParams::default(), &tiny(1)?).await.map(drop).map_err(Into::into),
        Stage::Scale => room.edit("tiny", json!({"spec": {"replicas": 2}})).await,
        Stage::Edit => room.edit("tiny", json!({"spec": {"serving": {"contextTokens": 256}}})).await,
        Stage::Meddle => room.meddle().await,
        Stage::Lose => {
            let pods = room.pods("tiny").await?;
            let victim = pods.first().context("a pod")?.name_any();
            pods::fail(room.cluster, room.namespace, &victim, "OOMKilled", 137).await
        }
    }
}

/// Waits until the model has settled and looks as expected; what it looks like.
async fn settled(room: Room<'_>, stage: Stage, expected: Option<&String>) -> Result<String> {
    let mut last = String::from("nothing");
    let mut waited = Ok(());
    // A life waits for leases and back-offs beside five others: three times as long as anything else.
    for _ in 0..3 {
        waited = await_value("the model settles", async || {
            let Some(found) = snapshot(room, stage).await? else { return Ok(None) };
            last = found;
            Ok(expected.is_none_or(|expected| *expected == last).then_some(()))
        })
        .await;
        if waited.is_ok() {
            break;
        }
    }
    if let (Err(_), Some(expected)) = (&waited, expected) {
        bail!("it settled otherwise:\n{}", StrComparison::new(&last, expected));
    }
    waited?;
    Ok(last)
}

/// What there is, if the newest spec is Ready and nothing ends any more.
async fn snapshot(room: Room<'_>, stage: Stage) -> Result<Option<String>> {
    let model = room.models().get("tiny").await?;
    let status = model.status.clone().unwrap_or_default();
    let pods = room.pods("tiny").await?;
    let whole =
        pods.len() == 2 * status.groups.len() && pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none());
    if !is_settled(&model, &status, stage) || !whole {
        return Ok(None);
    }
    distinct(&pods)?;
    let secrets = secrets(room).await?;
    let mut all = json!({
        "model": {"spec": model.spec, "status": status},
        "pods": pods.iter().map(parts).collect::<Result<Vec<_>>>()?,
        "services": services(room).await?.iter().map(parts).collect::<Result<Vec<_>>>()?,
        "policies": policies(room).await?.iter().map(parts).collect::<Result<Vec<_>>>()?,
        "secrets": secrets.iter().map(parts).collect::<Result<Vec<_>>>()?,
    });
    scrub(&mut all);
    let mut text = renamed(serde_json::to_string_pretty(&all)?, &model, &pods);
    for secret in &secrets {
        text = text.replace(&secret.name_any(), &format!("PAIR-{}", revision(secret)));
    }
    Ok(Some(text))
}

fn is_settled(model: &ModelDeployment, status: &ModelDeploymentStatus, stage: Stage) -> bool {
    let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let all = status.groups.iter().all(|group| group.phase == GroupPhase::Ready);
    let formed_again = status.groups.iter().any(|group| group.epoch > 1);
    let current = status.observed_generation == model.metadata.generation;
    current && ready && all && (stage != Stage::Lose || formed_again)
}

/// Lives in [`LANES`] namespaces at once, one after the other in each, as long as `next` gives a fault; `lived` is told how
/// each went.
pub(crate) async fn lives<T: fmt::Display>(
    mode: Mode,
    (stages, expected): (&[Stage], &[String]),
    next: impl Fn() -> Option<T>,
    lived: impl Fn(T, Life) -> Result<()>,
) -> Result<()> {
    let lane = async || {
        with_temp_ns(async |cluster, namespace| {
            let install = Install::new(namespace, mode).await?;
            while let Some(fault) = next() {
                let text = fault.to_string();
                let life = live(Room { cluster, namespace }, &install, stages, (Some(&text), expected)).await;
                lived(fault, life.with_context(|| text.clone())?).with_context(|| text)?;
            }
            Ok(())
        })
        .await
    };
    try_join_all((0..LANES).map(|_| lane())).await.map(drop)
}

/// What an undisturbed life leaves after each of `stages`.
pub(crate) async fn undisturbed(mode: Mode, stages: &[Stage]) -> Result<Vec<String>> {
    let mut snapshots = Vec::new();
    with_temp_ns(async |cluster, namespace| {
        let install = Install::new(namespace, mode).await?;
        snapshots = live(Room { cluster, namespace }, &install, stages, (None, &[])).await?.snapshots;
        Ok(())
    })
    .await?;
    Ok(snapshots)
}

/// No two pods have one place: a duplicate would.
fn distinct(pods: &[Pod]) -> Result<()> {
    let mut places = BTreeMap::new();
    for pod in pods {
        let label = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
        let other = places.insert((label(label::GROUP), label(label::RANK)), pod.name_any());
        ensure!(other.is_none(), "{} and {other:?} have one place", pod.name_any());
    }
    Ok(())
}

async fn services(room: Room<'_>) -> Result<Vec<Service>> {
    let api: Api<Service> = Api::namespaced(room.cluster.client(), room.namespace);
    let mut items = api.list(&ListParams::default().labels(label::MODEL)).await?.items;
    items.sort_by_key(Service::name_any);
    Ok(items)
}

async fn policies(room: Room<'_>) -> Result<Vec<NetworkPolicy>> {
    let api: Api<NetworkPolicy> = Api::namespaced(room.cluster.client(), room.namespace);
    Ok(api.list(&ListParams::default().labels(label::MODEL)).await?.items)
}

/// By revision, for their names hash the UID.
async fn secrets(room: Room<'_>) -> Result<Vec<Secret>> {
    let api: Api<Secret> = Api::namespaced(room.cluster.client(), room.namespace);
    let mut items = api.list(&ListParams::default().labels(label::MODEL)).await?.items;
    items.sort_by_key(revision);
    Ok(items)
}

fn revision(secret: &Secret) -> String {
    secret.labels().get(label::REVISION).cloned().unwrap_or_default()
}

fn parts<K: kube::Resource + Serialize>(object: &K) -> Result<Value> {
    let whole = serde_json::to_value(object)?;
    let metadata = &whole["metadata"];
    Ok(json!({
        "name": metadata["name"], "labels": metadata["labels"], "annotations": metadata["annotations"],
        "ownerReferences": metadata["ownerReferences"], "spec": whole["spec"],
    }))
}

/// Removes what no two lives share.
fn scrub(value: &mut Value) {
    const NOT_SHARED: [&str; 6] =
        ["lastTransitionTime", "windowStart", "nextRetry", "nodeName", "clusterIP", "clusterIPs"];
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !NOT_SHARED.contains(&key.as_str()));
            fields.values_mut().for_each(scrub);
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        _ => {}
    }
}

/// Names pods by what they are, and numbers the groups that are there from 0.
fn renamed(text: String, model: &ModelDeployment, pods: &[Pod]) -> String {
    let mut groups: Vec<(u64, &str)> = pods
        .iter()
        .filter_map(|pod| pod.labels().get(label::GROUP))
        .map(|slot| (slot.parse().unwrap_or(0), slot.as_str()))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut text = text.replace(&model.uid().unwrap_or_default(), "UID");
    for pod in pods {
        let label = |key: &str| pod.labels().get(key).map_or("", String::as_str);
        let group = groups.iter().position(|(_, slot)| *slot == label(label::GROUP)).unwrap_or_default();
        let name = format!("POD-g{group}-e{}-r{}", label(label::EPOCH), label(label::RANK));
        text = text.replace(&pod.name_any(), &name);
    }
    for (number, (_, slot)) in groups.iter().enumerate() {
        for key in ["\"inference.shoal.dev/group\": \"SLOT\"", "\"index\": SLOT,", "\"group\": SLOT,"] {
            text = text.replace(&key.replace("SLOT", slot), &key.replace("SLOT", &format!("n{number}")));
        }
    }
    text
}
