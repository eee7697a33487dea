//! Many models at once: each gets its turn, and one that can never be served takes nothing from the others.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::tools::kubectl;
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, tiny, with_operator};

/// Models that are made at once.
const CROWD: usize = 60;
/// The one whose Service is somebody else's.
const HOPELESS: &str = "m30";

fn member(number: usize) -> Result<ModelDeployment> {
    let mut model = tiny(1)?;
    model.metadata.name = Some(format!("m{number:02}"));
    model.spec.pod.resources.requests = serde_json::from_value(json!({"cpu": "10m"}))?;
    Ok(model)
}

fn says(model: &ModelDeployment, kind: &str) -> bool {
    let conditions = model.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// How many passes each object has had, by name; and how many of them failed.
fn passes(log: &str) -> Result<BTreeMap<String, (usize, usize)>> {
    let mut passes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in log.lines() {
        let fields = &serde_json::from_str::<serde_json::Value>(line)?["fields"];
        if fields["message"] == "pass" {
            let entry = passes.entry(fields["name"].as_str().unwrap_or_default().to_owned()).or_default();
            entry.0 += 1;
            entry.1 += usize::from(!matches!(fields["result"].as_str(), Some("applied" | "waiting" | "skipped")));
        }
    }
    Ok(passes)
}

async fn served(bench: &Bench<'_>) -> Result<()> {
    let mut last = Vec::new();
    let all_but_one = await_value("all but one Ready", async || {
        let models = bench.models().list(&ListParams::default()).await?.items;
        last = models.iter().filter(|model| !says(model, "Ready")).map(ResourceExt::name_any).collect();
        Ok((models.len() == CROWD && last == [HOPELESS]).then_some(()))
    })
    .await;
    ensure!(all_but_one.is_ok(), "not Ready: {last:?}");
    Ok(())
}

pub(crate) async fn sixty_models_at_once_are_served_though_pods_are_refused_and_one_can_never_be() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        kubectl(&["create", "service", "clusterip", HOPELESS, "--tcp=80", "-n", bench.namespace]).await?;
        bench.replace_operator("503 create pods 1-30; slow=300 create services 1-20").await?;
        let models = (0..CROWD).map(member).collect::<Result<Vec<_>>>()?;
        let api = bench.models();
        let create = models.iter().map(|model| async { api.create(&PostParams::default(), model).await });
        futures::future::try_join_all(create).await?;
        served(bench).await?;
        bench.condition(HOPELESS, "Stalled", "True").await?;
        let log = bench.operator.log()?;
        let counted = passes(&log)?;
        let most = counted.values().map(|(all, _)| *all).max().unwrap_or_default();
        let (of_it, failed) = counted.get(HOPELESS).copied().unwrap_or_default();
        println!("{CROWD} models at once: at most {most} passes each; the hopeless one had {of_it}, {failed} failed");
        assert_eq!(counted.len(), CROWD);
        ensure!(failed > 0, "it has failed");
        ensure!(most <= 20, "nobody takes more than its turn: {counted:?}");

        // A new operator finds all of them at once.
        let (mark, before) = (bench.cluster.audit().mark()?, log.len());
        bench.restart_operator().await?;
        await_value("a look at every one", async || {
            let log = bench.operator.log()?;
            Ok((passes(&log[before..])?.len() == CROWD).then_some(()))
        })
        .await?;
        let mut writes = bench.writes_since(mark)?;
        writes.retain(|call| !call.name.starts_with(HOPELESS));
        assert_eq!(writes, vec![]);
        Ok(())
    })
    .await
}
