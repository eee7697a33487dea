//! What a user does to a model: create, edit, revert, scale, delete.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_operator::crd::{GroupPhase, ModelDeployment, ModelDeploymentStatus};
use shoal_operator::names::label;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::pods::HOLD;
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::{PATIENCE, await_gone, await_object, await_value};

use super::bench::{Bench, picture, tiny, with_operator};

pub(crate) async fn without_nodes_a_model_is_served_and_its_plan_says_that_nothing_was_compared() -> Result<()> {
    with_operator(Mode::Namespaced, async |bench| {
        let status = bench.serve(&tiny(1)?).await?.status.unwrap_or_default();
        let planned: Vec<_> = status.conditions.iter().filter(|c| c.type_ == "Planned").collect();
        assert_eq!(
            planned.iter().map(|c| (c.status.as_str(), c.reason.as_str())).collect::<Vec<_>>(),
            [("True", "InventoryUnknown")]
        );
        Ok(())
    })
    .await
}

/// Makes `change`, and gathers every status from before it until the object is Ready for the changed spec.
async fn history(bench: &Bench<'_>, name: &str, change: Value) -> Result<Vec<ModelDeploymentStatus>> {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(watcher(bench.models(), config).default_backoff().applied_objects());
    let first = events.next().await.context("the watch ended")??;
    let done = |model: &ModelDeployment| {
        let status = model.status.clone().unwrap_or_default();
        let newer = model.metadata.generation > first.metadata.generation;
        let current = status.observed_generation == model.metadata.generation;
        newer && current && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let mut all: Vec<ModelDeploymentStatus> = first.status.iter().cloned().collect();
    bench.edit(name, change).await?;
    let collect = async {
        while let Some(event) = events.next().await {
            let model = event?;
            all.extend(model.status.clone());
            if done(&model) {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, collect).await.context("never became Ready")??;
    Ok(all)
}

pub(crate) async fn an_edit_surges_by_one_group_and_never_drops_below_the_wished_number() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let statuses = history(bench, "tiny", json!({"spec": {"serving": {"contextTokens": 256}}})).await?;
        let mut letters = Vec::new();
        let (mut sets, mut shown) = (Vec::new(), Vec::new());
        for status in statuses {
            ensure!(status.available_groups >= 2, "an available group went too early: {status:?}");
            for (phases, list) in [(false, &mut sets), (true, &mut shown)] {
                let picture = picture(&status, &mut letters, phases);
                if list.last() != Some(&picture) {
                    list.push(picture);
                }
            }
        }
        println!("an edit with surge 1:\n  {}", shown.join("\n  "));
        assert_eq!(sets, ["A0e1 A1e1", "A0e1 A1e1 B2e1", "A0e1 B2e1 B3e1", "B2e1 B3e1"]);
        Ok(())
    })
    .await
}

pub(crate) async fn a_revert_in_mid_rollout_touches_no_serving_pod() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let serving = bench.identities("tiny").await?;
        bench.edit("tiny", json!({"spec": {"pod": {"annotations": {HOLD: "true"}}}})).await?;
        let held = |status: &ModelDeploymentStatus| {
            status.groups.len() == 3 && status.groups.iter().any(|group| group.phase == GroupPhase::Starting)
        };
        bench.until("tiny", "a third group that is held back", held).await?;
        assert_eq!(bench.pods("tiny").await?.len(), 6);
        bench.edit("tiny", json!({"spec": {"pod": {"annotations": null}}})).await?;
        let status = bench.ready("tiny").await?.status.unwrap_or_default();
        assert_eq!(picture(&status, &mut Vec::new(), true), "A0e1+ A1e1+");
        await_value("only the serving pods", async || Ok((bench.identities("tiny").await? == serving).then_some(())))
            .await
    })
    .await
}

pub(crate) async fn kubectl_scale_changes_the_number_of_groups_and_zero_is_ready() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        for replicas in [3, 1, 0, 2] {
            let wish = format!("--replicas={replicas}");
            kubectl(&["scale", "modeldeployment/tiny", &wish, "-n", bench.namespace]).await?;
            let status = bench.ready("tiny").await?.status.unwrap_or_default();
            assert_eq!(status.replicas, replicas);
            let ready = status.conditions.iter().find(|c| c.type_ == "Ready").context("a Ready condition")?;
            assert_eq!(ready.reason, if replicas == 0 { "ScaledToZero" } else { "AllGroupsAvailable" });
            await_value("two pods a group", async || {
                Ok((bench.pods("tiny").await?.len() == 2 * usize::try_from(replicas)?).then_some(()))
            })
            .await?;
        }
        let path =
            format!("/apis/inference.shoal.dev/v1alpha1/namespaces/{}/modeldeployments/tiny/scale", bench.namespace);
        let scale: Value = serde_json::from_str(&kubectl(&["get", "--raw", &path]).await?)?;
        let selector = scale["status"]["selector"].as_str().context("a selector")?;
        let selected = shoal_tests::cluster::pods::list(bench.cluster, bench.namespace, selector).await?;
        assert_eq!(selected.len(), 2, "one pod a group, or an autoscaler multiplies by shards");
        Ok(())
    })
    .await
}

pub(crate) async fn a_deleted_model_leaves_nothing() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        bench.models().delete("tiny", &DeleteParams::default()).await?;
        await_gone(&bench.models(), "tiny").await?;
        let services: Api<Service> = Api::namespaced(bench.cluster.client(), bench.namespace);
        await_value("no pods and no Services", async || {
            let services = services.list(&ListParams::default().labels(label::MODEL)).await?.items;
            let pods = bench.identities("tiny").await?;
            Ok((services.is_empty() && pods.is_empty()).then_some(()))
        })
        .await
    })
    .await
}

pub(crate) async fn a_service_of_somebody_else_is_not_touched_and_the_status_says_so() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        kubectl(&["create", "service", "clusterip", "tiny", "--tcp=80", "-n", bench.namespace]).await?;
        let services: Api<Service> = Api::namespaced(bench.cluster.client(), bench.namespace);
        let foreign = services.get("tiny").await?;
        bench.models().create(&kube::api::PostParams::default(), &tiny(1)?).await?;
        let model = bench.condition("tiny", "Stalled", "True").await?;
        let conditions = model.status.unwrap_or_default().conditions;
        let reasons: BTreeMap<_, _> = conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_str())).collect();
        assert_eq!(reasons["Stalled"], "NameTaken");
        assert_eq!(services.get("tiny").await?, foreign);
        services.delete("tiny", &DeleteParams::default()).await?;
        bench.ready("tiny").await?;
        let ours = services.get("tiny").await?;
        assert_eq!(ours.labels().get(label::MODEL).map(String::as_str), Some("tiny"));
        Ok(())
    })
    .await
}

pub(crate) async fn a_service_that_was_changed_or_deleted_is_made_right_again() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        let services: Api<Service> = Api::namespaced(bench.cluster.client(), bench.namespace);
        let selector = |service: &Service| service.spec.as_ref().and_then(|spec| spec.selector.clone());
        let right = selector(&services.get("tiny").await?);
        // Changed, added to, taken from; what is not ours stays as somebody else wishes.
        let wrong = [
            r#"{"spec":{"selector":{"inference.shoal.dev/model":"other"}}}"#,
            r#"{"spec":{"selector":{"inference.shoal.dev/extra":"key"}}, "metadata":{"labels":{"team":"theirs"}}}"#,
            r#"{"spec":{"selector":{"inference.shoal.dev/accepts":null}, "sessionAffinity":"ClientIP"}}"#,
        ];
        for wrong in wrong {
            kubectl(&["patch", "service", "tiny", "-n", bench.namespace, "--type=merge", "-p", wrong]).await?;
            await_object(&services, "tiny", "selecting its pods", |service| selector(service) == right).await?;
        }
        let kept = services.get("tiny").await?;
        assert_eq!(kept.labels().get("team").map(String::as_str), Some("theirs"));
        assert_eq!(kept.spec.and_then(|spec| spec.session_affinity).as_deref(), Some("ClientIP"));
        let before = services.get("tiny-shards").await?.uid();
        services.delete("tiny-shards", &DeleteParams::default()).await?;
        await_object(&services, "tiny-shards", "made again", |service| service.uid() != before).await?;
        Ok(())
    })
    .await
}
