//! Every committed manifest, as the API server and the operator see it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use shoal_operator::crd::{ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::tools::apply;
use shoal_tests::cluster::wait::await_value;
use shoal_tests::paths::repository;
use shoal_worker::config::Config;

use super::bench::{Bench, number, with_operator};

/// Manifests of a folder, by file name without its ending.
fn manifests(folder: &str) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(repository().join(folder))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            all.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    ensure!(!all.is_empty(), "no manifests in {folder}");
    Ok(all)
}

/// Plan summary, groups and conditions: what a user reads first, without times and hashes.
fn shown(status: &ModelDeploymentStatus) -> String {
    let mut lines = vec![format!("plan: {}", status.plan.as_ref().map_or("none", |plan| plan.summary.as_str()))];
    for group in &status.groups {
        let shards = format!("{} of {} shards ready", group.ready_shards, group.shards);
        lines.push(format!("group {} epoch {}: {:?}, {shards}", group.index, group.epoch, group.phase));
    }
    for condition in &status.conditions {
        let (kind, status, reason) = (&condition.type_, &condition.status, &condition.reason);
        lines.push(format!("{kind}={status} {reason}: {}", condition.message).trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

/// Compares with the committed file; `SHOAL_BLESS=1` writes it instead.
pub(crate) fn compare(name: &str, found: &str) -> Result<()> {
    let path: PathBuf = repository().join("tests/tests/cluster/expected").join(format!("{name}.txt"));
    if std::env::var_os("SHOAL_BLESS").is_some() {
        std::fs::write(&path, found)?;
    }
    let expected = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    assert_eq!(found, expected, "{name}");
    Ok(())
}

fn settled(status: &ModelDeploymentStatus) -> bool {
    status.conditions.iter().any(|c| matches!(c.type_.as_str(), "Ready" | "Stalled") && c.status == "True")
}

pub(crate) async fn every_sample_gets_the_status_that_is_committed() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        for (file, manifest) in manifests("manifests")? {
            apply(bench.namespace, &manifest).await?;
            let model: ModelDeployment = serde_yaml::from_str(&manifest)?;
            let status = bench.until(&model.name_any(), "settled", settled).await?;
            compare(&file, &shown(&status))?;
            if status.conditions.iter().any(|c| c.reason == "NotSupportedYet") {
                assert_eq!(bench.identities(&model.name_any()).await?, BTreeMap::new(), "{file}: no pod is made");
                ensure!(
                    status.plan.is_some_and(|plan| !plan.arithmetic.is_empty()),
                    "{file}: the plan is filled all the same"
                );
            }
        }
        Ok(())
    })
    .await
}

pub(crate) async fn every_invalid_sample_is_refused_for_its_stated_reason() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        for (file, manifest) in manifests("manifests/invalid")? {
            let stated = manifest.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
            let answer = apply(bench.namespace, &manifest).await;
            if let Some(reason) = stated.strip_prefix("Accepted=False/") {
                answer.with_context(|| file.clone())?;
                refused_by_the_operator(bench, &manifest, reason).await.with_context(|| file.clone())?;
            } else if let Some(words) = stated.strip_prefix("refused: ") {
                let words = words.split_once(": ").map_or(words, |(_, words)| words);
                let error = answer.err().with_context(|| format!("{file}: the API server takes it"))?.to_string();
                ensure!(error.contains(words), "{file} is refused, but not because {words:?}: {error}");
            } else {
                bail!("{file}: the first line states no reason: {stated:?}");
            }
        }
        Ok(())
    })
    .await
}

async fn refused_by_the_operator(bench: &Bench<'_>, manifest: &str, reason: &str) -> Result<()> {
    let name = serde_yaml::from_str::<ModelDeployment>(manifest)?.name_any();
    let model = bench.condition(&name, "Accepted", "False").await?;
    let conditions = model.status.unwrap_or_default().conditions;
    let found: Vec<_> = conditions.iter().filter(|c| c.type_ == "Accepted").map(|c| c.reason.as_str()).collect();
    assert_eq!(found, [reason]);
    assert_eq!(bench.identities(&name).await?, BTreeMap::new());
    bench.models().delete(&name, &kube::api::DeleteParams::default()).await?;
    Ok(())
}

/// The environment as kubelet would give it.
fn environment(pod: &Pod) -> BTreeMap<String, String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let field = |path: &str| match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "status.podIP" => status.pod_ip.clone(),
        "spec.nodeName" => spec.node_name.clone(),
        _ => None,
    };
    let variables = spec.containers.iter().flat_map(|container| container.env.clone().unwrap_or_default());
    let resolve = |variable: k8s_openapi::api::core::v1::EnvVar| {
        let path = variable.value_from.and_then(|from| from.field_ref).map(|reference| reference.field_path);
        let value = variable.value.or_else(|| path.as_deref().and_then(field));
        (variable.name, value.unwrap_or_default())
    };
    variables.map(resolve).collect()
}

/// Hostnames that the headless Service of `model` resolves, for ready and unready pods.
async fn hostnames(bench: &Bench<'_>, model: &str) -> Result<BTreeSet<String>> {
    let slices: Api<EndpointSlice> = Api::namespaced(bench.cluster.client(), bench.namespace);
    let selector = format!("kubernetes.io/service-name={model}-shards");
    let slices = slices.list(&ListParams::default().labels(&selector)).await?;
    Ok(slices.into_iter().flat_map(|slice| slice.endpoints).filter_map(|endpoint| endpoint.hostname).collect())
}

pub(crate) async fn pods_are_workers_that_find_one_another_and_own_every_expert_once() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let mut model = super::bench::tiny(2)?;
        // Sixteen experts on three shards: an uneven split.
        model
            .spec
            .sharding
            .get_or_insert_with(|| serde_json::from_str("{}").expect("sharding has only defaults"))
            .shards = Some(3);
        bench.serve(&model).await?;
        let pods = bench.pods("tiny").await?;
        assert_eq!(pods.len(), 6);
        let wanted: BTreeSet<String> = pods.iter().map(|pod| pod.name_any()).collect();
        await_value("endpoints of all shards", async || Ok((hostnames(bench, "tiny").await? == wanted).then_some(())))
            .await?;
        for index in 0..2 {
            let mut group = Vec::new();
            for pod in &pods {
                if number(pod, label::GROUP)? == index {
                    group.push(pod);
                }
            }
            check_group(&group, 16)?;
        }
        Ok(())
    })
    .await
}

/// Reads every pod of one group with the worker's own parser.
fn check_group(pods: &[&Pod], experts: u32) -> Result<()> {
    let mut owned = Vec::new();
    let names: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
    for pod in pods {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first()).context("a container")?;
        let environment = environment(pod);
        let read = |name: &str| environment.get(name).cloned();
        let config = Config::from_args(container.args.clone().unwrap_or_default(), &read)?;
        let group = &config.group;
        assert_eq!(u64::from(group.rank), number(pod, label::RANK)?);
        assert_eq!(group.epoch, number(pod, label::EPOCH)?);
        assert_eq!(group.size as usize, pods.len());
        let shards = group.shards.as_ref().context("a group of several has shards")?;
        let peers: Vec<String> = names.iter().map(|host| format!("{host}.tiny-shards:50053")).collect();
        assert_eq!(shards.peers, peers, "peers are the group's hostnames by rank");
        let spec = pod.spec.as_ref().context("a spec")?;
        let addressed = (spec.hostname.clone(), spec.subdomain.clone());
        assert_eq!(addressed, (Some(pod.name_any()), Some("tiny-shards".to_owned())));
        owned.extend(shards.placement.ranges(group.rank as usize).iter().cloned().flatten());
    }
    owned.sort_unstable();
    assert_eq!(owned, (0..experts).collect::<Vec<_>>(), "each expert on exactly one shard");
    Ok(())
}
