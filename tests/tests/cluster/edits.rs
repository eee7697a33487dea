//! Many hands on one model: quick edits, autoscalers, deletions half-way, Helm, new nodes, a new operator.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::operator::Operator;
use shoal_tests::cluster::pods::HOLD;
use shoal_tests::cluster::tools::helm;
use shoal_tests::cluster::wait::{await_gone, await_value};

use super::bench::{Bench, ENV, Room, tiny, with_operator, with_seeds};

/// Slots of which a pod is not ending.
fn live(pods: &[Pod]) -> BTreeSet<String> {
    let alive = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    alive.filter_map(|pod| pod.labels().get(label::GROUP).cloned()).collect()
}

/// Makes `edits` at once, one after the other, and watches until the newest is Ready. How many pods that took.
async fn edited(bench: &Bench<'_>, edits: i32) -> Result<usize> {
    let mark = bench.cluster.audit().mark()?;
    let edit = async {
        for number in 1..=edits {
            bench.edit("tiny", json!({"spec": {"serving": {"contextTokens": 100 + number}}})).await?;
        }
        bench.ready("tiny").await
    };
    let mut edit = std::pin::pin!(edit);
    let model = loop {
        tokio::select! {
            model = &mut edit => break model?,
            pods = bench.pods("tiny") => {
                let groups = live(&pods?);
                ensure!(groups.len() <= 3, "more groups than two and the surge: {groups:?}");
            }
        }
    };
    assert_eq!(model.spec.serving.context_tokens, 100 + edits);
    let newest = (100 + edits).to_string();
    await_value("pods of the newest edit alone", async || {
        let pods = bench.pods("tiny").await?;
        let current = |pod: &Pod| {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let mut args = containers.flat_map(|container| container.args.iter().flatten());
            args.any(|arg| arg.ends_with(&newest))
        };
        Ok((pods.len() == 4 && pods.iter().all(current)).then_some(()))
    })
    .await?;
    let writes = bench.writes_since(mark)?;
    Ok(writes.iter().filter(|call| call.verb == "create" && call.resource == "pods").count())
}

pub(crate) async fn quick_edits_end_in_the_newest_with_one_group_more_than_wished_at_most() -> Result<()> {
    with_operator(Mode::Namespaced, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let three = edited(bench, 3).await?;
        // Two new groups of two pods, and for each edit that was overtaken at most the one group of its surge.
        ensure!((4..=8).contains(&three), "three quick edits made {three} pods");
        let twenty = edited(bench, 20).await?;
        ensure!((4..=42).contains(&twenty), "twenty quick edits made {twenty} pods");
        println!("of 2 groups of 2: three quick edits made {three} pods, twenty made {twenty}");
        Ok(())
    })
    .await
}

pub(crate) async fn a_scaler_and_an_editor_never_fight_and_the_operator_never_writes_the_spec() -> Result<()> {
    with_seeds(Mode::Namespaced, async |bench, mut draw| {
        bench.serve(&tiny(1)?).await?;
        let (mut wished, mut context) = (1, 0);
        for round in 0..12 {
            wished = *draw.one(&[0, 1, 2, 3]);
            let scale = Patch::Merge(json!({"spec": {"replicas": wished}}));
            bench.models().patch_scale("tiny", &PatchParams::default(), &scale).await?;
            if round == 0 || draw.number(1..=3) == 1 {
                context = 100 + round;
                bench.edit("tiny", json!({"spec": {"serving": {"contextTokens": context}}})).await?;
            }
        }
        let model = bench.ready("tiny").await?;
        assert_eq!((model.spec.replicas, model.spec.serving.context_tokens), (wished, context));
        assert_eq!(model.status.clone().unwrap_or_default().replicas, wished);
        let writers = model
            .managed_fields()
            .iter()
            .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some()));
        let of_the_operator = writers.filter(|entry| entry.subresource.as_deref() == Some("status"));
        assert_eq!(of_the_operator.count(), 0);
        Ok(())
    })
    .await
}

async fn nothing_left(room: Room<'_>) -> Result<()> {
    await_gone(&room.models(), "tiny").await?;
    let services: Api<Service> = Api::namespaced(room.cluster.client(), room.namespace);
    await_value("no pod and no Service of it", async || {
        let services = services.list(&ListParams::default().labels(label::MODEL)).await?.items;
        Ok((services.is_empty() && room.identities("tiny").await?.is_empty()).then_some(()))
    })
    .await
}

pub(crate) async fn a_model_deleted_while_its_pods_are_made_leaves_nothing() -> Result<()> {
    with_seeds(Mode::Cluster, async |bench, mut draw| {
        let (first, slow) = (draw.number(1..=3), draw.number(300..=1500));
        let fault = format!("slow={slow} create pods {first}-");
        let env = [&ENV[..], &[("SHOAL_API_FAULT", fault.as_str())]].concat();
        let next = Operator::start_with(bench.cluster, &bench.install, &env).await?;
        std::mem::replace(&mut bench.operator, next).kill().await?;
        // Of four POSTs, at once.
        let late = usize::try_from(5 - first)?;
        bench.models().create(&PostParams::default(), &tiny(2)?).await?;
        await_value("a first pod", async || Ok((!bench.identities("tiny").await?.is_empty()).then_some(()))).await?;
        tokio::time::sleep(Duration::from_millis(draw.number(0..=slow))).await;
        bench.models().delete("tiny", &DeleteParams::default()).await?;
        await_value("the late POSTs", async || {
            Ok((bench.operator.log()?.matches("\"message\":\"API fault\"").count() >= late).then_some(()))
        })
        .await?;
        nothing_left(bench.room).await
    })
    .await
}

pub(crate) async fn a_model_deleted_without_an_operator_leaves_nothing_and_comes_back_whole() -> Result<()> {
    with_operator(Mode::Namespaced, async |bench| {
        bench.serve(&tiny(2)?).await?;
        bench.operator.signal(rustix::process::Signal::KILL)?;
        bench.models().delete("tiny", &DeleteParams::default()).await?;
        nothing_left(bench.room).await?;
        bench.operator = Operator::start_with(bench.cluster, &bench.install, &ENV).await?;
        bench.serve(&tiny(1)?).await.map(drop)
    })
    .await
}

pub(crate) async fn nodes_that_come_and_go_and_a_new_operator_image_touch_no_pod() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        bench.touch("tiny", 0).await?;
        let (before, mark) = (bench.identities("tiny").await?, bench.cluster.audit().mark()?);
        let nodes: Api<Node> = Api::all(bench.cluster.client());
        // Too small for any pod of the tests that run meanwhile.
        let node = json!({
            "metadata": {"name": "extra-1", "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": "extra-1"}},
            "spec": {"taints": [{"key": "extra", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "1", "memory": "1Mi", "pods": "0"}, "capacity": {"cpu": "1", "memory": "1Mi", "pods": "0"}},
        });
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        bench.touch("tiny", 1).await?;
        let env = [&ENV[..], &[("SHOAL_WORKER_IMAGE", "registry.example/worker:of-tomorrow")]].concat();
        let upgraded = Operator::start_with(bench.cluster, &bench.install, &env).await?;
        std::mem::replace(&mut bench.operator, upgraded).kill().await?;
        bench.touch("tiny", 2).await?;
        nodes.delete("extra-1", &DeleteParams::default()).await?;
        bench.touch("tiny", 3).await?;
        assert_eq!(bench.identities("tiny").await?, before);
        let touched: Vec<_> = bench.writes_since(mark)?.into_iter().filter(|call| call.resource == "pods").collect();
        assert_eq!(touched, vec![]);
        // A model that is new gets the new image.
        let mut other = tiny(1)?;
        other.metadata.name = Some("other".into());
        bench.serve(&other).await?;
        let made = bench.pods("other").await?;
        let images = made.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
        let images: BTreeSet<_> = images.filter_map(|container| container.image.as_deref()).collect();
        assert_eq!(images, BTreeSet::from(["registry.example/worker:of-tomorrow"]));
        Ok(())
    })
    .await
}

/// `helm upgrade --install --wait` of a chart that holds `model`.
async fn helm_waits(bench: &Bench<'_>, model: &Value, timeout: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let templates = folder.path().join("templates");
    std::fs::create_dir(&templates)?;
    std::fs::write(folder.path().join("Chart.yaml"), "apiVersion: v2\nname: models\nversion: 0.1.0\n")?;
    std::fs::write(templates.join("model.yaml"), serde_yaml::to_string(model)?)?;
    let chart = folder.path().to_str().context("a path in UTF-8")?;
    let words =
        ["upgrade", "--install", "models", chart, "--namespace", bench.namespace, "--wait", "--timeout", timeout];
    helm(&words).await
}

pub(crate) async fn helm_waits_for_a_model_and_fails_with_one_that_cannot_be_served() -> Result<()> {
    with_operator(Mode::Namespaced, async |bench| {
        let mut model = serde_json::to_value(tiny(1)?)?;
        helm_waits(bench, &model, "60s").await?;
        ensure!(
            bench.models().get("tiny").await?.status.is_some_and(|status| status.available_groups == 1),
            "too early"
        );
        // Old pods that still serve do not make a new revision a success.
        model["spec"]["pod"]["annotations"] = json!({HOLD: "true"});
        let error = helm_waits(bench, &model, "8s").await.expect_err("a revision that never becomes ready").to_string();
        ensure!(error.contains("tiny"), "{error}");
        assert_eq!(bench.models().get("tiny").await?.status.map(|status| status.available_groups), Some(1));
        model["metadata"]["name"] = json!("broken");
        model["spec"]["model"]["source"] = json!("s3://bucket/none");
        let error = helm_waits(bench, &model, "8s").await.expect_err("a model that cannot be served").to_string();
        ensure!(error.contains("broken"), "{error}");
        Ok(())
    })
    .await
}
