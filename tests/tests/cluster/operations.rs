//! What platform teams do around a model: volumes, placement, a headless Service, a restore without status.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_operator::crd::{ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::pods::HOLD;
use shoal_tests::cluster::tools::{apply, helm, kubectl, shoal};
use shoal_tests::cluster::wait::{await_object, await_value};

use super::bench::{Bench, number, picture, tiny, with_operator};

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// A volume of any kind that needs no node, and a claim that is bound to it.
fn claim(namespace: &str) -> String {
    let size = json!({"storage": "1Gi"});
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("weights-{namespace}")},
        "spec": {
            "capacity": size, "accessModes": ["ReadOnlyMany"], "storageClassName": "", "nfs": {"server": "s", "path": "/"},
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": namespace, "name": "weights"},
        },
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "weights"},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": format!("weights-{namespace}"),
            "resources": {"requests": size},
        },
    });
    format!("{claim}\n---\n{volume}")
}

/// The volume named `model` of a pod without its name, its mount, and the worker's `--model`.
fn model_volume(pod: &Pod) -> Result<(Value, Value, String)> {
    let spec = pod.spec.as_ref().context("a spec")?;
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == "model").context("a volume")?;
    let worker = spec.containers.first().context("a worker")?;
    let mount = worker.volume_mounts.iter().flatten().find(|mount| mount.name == "model").context("a mount")?;
    let model = worker.args.iter().flatten().skip_while(|arg| *arg != "--model").nth(1).context("a model")?;
    Ok((serde_json::to_value(volume)?, serde_json::to_value(mount)?, model.clone()))
}

pub(crate) async fn a_claim_and_an_image_are_mounted_read_only_for_every_shard() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        apply(bench.namespace, &claim(bench.namespace)).await?;
        let image = "registry.example:5000/models/tiny:v1";
        let mount = json!({"name": "model", "mountPath": "/var/lib/shoal/model", "readOnly": true});
        for (name, source, volume, path) in [
            (
                "claimed",
                "pvc://weights/v3/tiny".to_owned(),
                json!({"name": "model", "persistentVolumeClaim": {"claimName": "weights", "readOnly": true}}),
                "file:///var/lib/shoal/model/v3/tiny",
            ),
            (
                "imaged",
                format!("oci://{image}"),
                json!({"name": "model", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}),
                "file:///var/lib/shoal/model",
            ),
        ] {
            let mut model = tiny(1)?;
            model.metadata.name = Some(name.to_owned());
            model.spec.model.source = source;
            model.spec.pod.image_pull_secrets = vec![shoal_operator::crd::PullSecret { name: "registry".to_owned() }];
            bench.serve(&model).await?;
            let pods = bench.pods(name).await?;
            assert_eq!(pods.len(), 2);
            for pod in &pods {
                assert_eq!(model_volume(pod)?, (volume.clone(), mount.clone(), path.to_owned()));
                let secrets = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
                assert_eq!(secrets.map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["registry"]);
            }
        }
        kubectl(&["delete", "pv", &format!("weights-{}", bench.namespace), "--wait=false"]).await.map(drop)
    })
    .await
}

/// By group: the hosts and the zones of its shards.
async fn whereabouts(bench: &Bench<'_>, model: &str) -> Result<BTreeMap<u64, (BTreeSet<String>, BTreeSet<String>)>> {
    let nodes: Api<Node> = Api::all(bench.cluster.client());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let zones: BTreeMap<_, _> = nodes.iter().map(|node| (node.name_any(), node.labels().get(ZONE).cloned())).collect();
    let mut groups: BTreeMap<u64, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for pod in bench.pods(model).await?.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let host = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a node")?;
        let (hosts, in_zones) = groups.entry(number(pod, label::GROUP)?).or_default();
        in_zones.extend(zones.get(&host).cloned().flatten());
        hosts.insert(host);
    }
    Ok(groups)
}

async fn spread_and_packed(bench: &Bench<'_>, indices: [u64; 2]) -> Result<()> {
    let there = whereabouts(bench, "tiny").await?;
    assert_eq!(there.keys().copied().collect::<Vec<_>>(), indices);
    ensure!(there.values().all(|(hosts, _)| hosts.len() == 1), "a group is not packed: {there:?}");
    let zones: BTreeSet<_> = there.values().flat_map(|(_, zones)| zones.clone()).collect();
    ensure!(zones.len() == 2, "the groups share a zone: {there:?}");
    Ok(())
}

pub(crate) async fn groups_spread_over_zones_and_their_shards_pack_on_a_host() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let mut model = tiny(2)?;
        model.spec.sharding.get_or_insert_with(|| serde_json::from_str("{}").expect("only defaults")).shards = Some(4);
        model.spec.placement.spread_groups_by = Some(ZONE.to_owned());
        model.spec.placement.pack_shards_by = Some(HOST.to_owned());
        bench.serve(&model).await?;
        spread_and_packed(bench, [0, 1]).await?;
        // Groups that a rollout is about to remove do not count.
        bench.edit("tiny", json!({"spec": {"serving": {"contextTokens": 256}}})).await?;
        bench.ready("tiny").await?;
        spread_and_packed(bench, [2, 3]).await
    })
    .await
}

pub(crate) async fn packing_and_spreading_give_way_where_there_is_no_room() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let mut model = tiny(1)?;
        // Two nodes of the fleet have 190 CPUs, in two zones; no other node holds such a shard.
        let amount = BTreeMap::from([("cpu".to_owned(), serde_json::from_value(json!("100"))?)]);
        model.spec.pod.resources.requests = amount.clone();
        model.spec.pod.resources.limits = amount;
        model.spec.placement.spread_groups_by = Some(ZONE.to_owned());
        model.spec.placement.pack_shards_by = Some(HOST.to_owned());
        bench.serve(&model).await?;
        let hosts: Vec<_> = whereabouts(bench, "tiny").await?.into_values().map(|(hosts, _)| hosts).collect();
        assert_eq!(hosts, [BTreeSet::from(["gpu-1".to_owned(), "gpu-2".to_owned()])]);
        Ok(())
    })
    .await
}

/// Ready addresses behind the client Service.
async fn ready_addresses(bench: &Bench<'_>) -> Result<BTreeSet<String>> {
    let slices: Api<EndpointSlice> = Api::namespaced(bench.cluster.client(), bench.namespace);
    let slices = slices.list(&ListParams::default().labels("kubernetes.io/service-name=tiny")).await?;
    let endpoints = slices.into_iter().flat_map(|slice| slice.endpoints);
    let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|conditions| conditions.ready) == Some(true));
    Ok(ready.flat_map(|endpoint| endpoint.addresses).collect())
}

pub(crate) async fn a_headless_client_service_resolves_to_every_pod_and_changes_without_touching_one() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let pods = bench.identities("tiny").await?;
        let services: Api<Service> = Api::namespaced(bench.cluster.client(), bench.namespace);
        let address = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
        for headless in [true, false, true] {
            bench.edit("tiny", json!({"spec": {"serving": {"headless": headless}}})).await?;
            let is = |service: &Service| (address(service).as_deref() == Some("None")) == headless;
            await_object(&services, "tiny", "its other kind", is).await?;
            bench.ready("tiny").await?;
        }
        let ips = bench.pods("tiny").await?.into_iter().filter_map(|pod| pod.status?.pod_ip).collect::<BTreeSet<_>>();
        assert_eq!(ips.len(), 4);
        await_value("all pods behind it", async || Ok((ready_addresses(bench).await? == ips).then_some(()))).await?;
        assert_eq!(bench.identities("tiny").await?, pods, "no pod is touched");
        Ok(())
    })
    .await
}

/// A chart that holds nothing but this model.
fn chart_of(model: &ModelDeployment) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("templates"))?;
    std::fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: models\nversion: 0.1.0\n")?;
    std::fs::write(folder.path().join("templates/model.yaml"), serde_yaml::to_string(model)?)?;
    Ok(folder)
}

async fn install_and_wait(bench: &Bench<'_>, release: &str, model: &ModelDeployment) -> Result<String> {
    let mut model = model.clone();
    model.metadata.name = Some(release.to_owned());
    let chart = chart_of(&model)?;
    let path = chart.path().display().to_string();
    helm(&["install", release, &path, "-n", bench.namespace, "--wait", "--timeout", "15s"]).await
}

pub(crate) async fn helm_waits_for_a_model_and_fails_with_a_broken_one() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        install_and_wait(bench, "good", &tiny(2)?).await?;
        let status = bench.models().get("good").await?.status.unwrap_or_default();
        assert_eq!(picture(&status, &mut Vec::new(), true), "A0e1+ A1e1+", "Helm has waited for every group");
        let mut refused = tiny(1)?;
        refused.spec.model.source = "file:///../etc".to_owned();
        let mut stuck = tiny(1)?;
        stuck.spec.pod.annotations.insert(HOLD.to_owned(), "true".to_owned());
        for (release, model) in [("refused", refused), ("stuck", stuck)] {
            let answer = install_and_wait(bench, release, &model).await;
            let answer = answer.expect_err("a broken model is no success").to_string();
            ensure!(answer.contains(release), "{answer}");
        }
        Ok(())
    })
    .await
}

/// Nobody has looked at it: that is not success either.
pub(crate) async fn helm_does_not_take_an_unseen_model_for_a_finished_one() -> Result<()> {
    with_temp_ns(async |_, namespace| {
        let chart = chart_of(&tiny(1)?)?;
        let path = chart.path().display().to_string();
        let answer = helm(&["install", "unseen", &path, "-n", namespace, "--wait", "--timeout", "5s"]).await;
        let answer = answer.expect_err("no operator has looked at it").to_string();
        ensure!(answer.contains("tiny"), "{answer}");
        let said = shoal(&["status", "tiny", "-n", namespace]).await?;
        assert_eq!(said, "tiny: no operator has looked at it yet\n");
        Ok(())
    })
    .await
}

/// `kubectl replace --subresource=status` with nothing in it, as a restore from a backup that keeps no status leaves it.
async fn lose_the_status(bench: &Bench<'_>) -> Result<()> {
    let object = kubectl(&["get", "modeldep", "tiny", "-n", bench.namespace, "-o", "json"]).await?;
    let mut object: Value = serde_json::from_str(&object)?;
    object["status"] = json!({});
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), object.to_string())?;
    let path = file.path().display().to_string();
    kubectl(&["replace", "--subresource=status", "-n", bench.namespace, "-f", &path]).await.map(drop)
}

pub(crate) async fn a_model_whose_status_was_lost_keeps_its_pods_and_counts_its_epochs_on() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        for epoch in [1, 2] {
            let victim = format!("{}=0,{}={epoch},{}=1", label::GROUP, label::EPOCH, label::RANK);
            kubectl(&["delete", "pod", "-n", bench.namespace, "-l", &victim, "--wait=false"]).await?;
            let next = format!("A0e{}+ A1e1+", epoch + 1);
            let reborn = |status: &ModelDeploymentStatus| picture(status, &mut Vec::new(), true) == next;
            bench.until("tiny", &next, reborn).await?;
        }
        bench.ready("tiny").await?;
        let pods = await_value("only the pods of both groups", async || {
            let pods = bench.identities("tiny").await?;
            Ok((pods.len() == 4).then_some(pods))
        })
        .await?;
        lose_the_status(bench).await?;
        let status = bench.ready("tiny").await?.status.unwrap_or_default();
        assert_eq!(picture(&status, &mut Vec::new(), true), "A0e3+ A1e1+");
        assert_eq!(bench.identities("tiny").await?, pods, "no pod is touched");
        Ok(())
    })
    .await
}

pub(crate) async fn a_rollout_whose_status_was_lost_goes_on_and_touches_no_serving_pod() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let serving = bench.identities("tiny").await?;
        bench.edit("tiny", json!({"spec": {"pod": {"annotations": {HOLD: "true"}}}})).await?;
        await_value("a third group", async || Ok((bench.pods("tiny").await?.len() == 6).then_some(()))).await?;
        lose_the_status(bench).await?;
        let three = |status: &ModelDeploymentStatus| status.groups.len() == 3 && status.available_groups == 2;
        bench.until("tiny", "three groups again", three).await?;
        let now = bench.identities("tiny").await?;
        ensure!(now.len() == 6 && serving.iter().all(|pod| now.get(pod.0) == Some(pod.1)), "{serving:?}, then {now:?}");
        // What the rollout waits for happens: it ends as if nothing had been lost.
        let held = format!("{}=2", label::GROUP);
        let annotation = format!("{HOLD}-");
        kubectl(&["annotate", "pod", "-n", bench.namespace, "-l", &held, &annotation]).await?;
        bench.until("tiny", "the second new group", |status| status.updated_groups == 2).await?;
        kubectl(&["annotate", "pod", "-n", bench.namespace, "-l", label::MODEL, &annotation]).await?;
        let status = bench.ready("tiny").await?.status.unwrap_or_default();
        assert_eq!(picture(&status, &mut Vec::new(), true), "A2e1+ A3e1+");
        Ok(())
    })
    .await
}
