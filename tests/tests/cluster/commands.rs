//! The commands that look at a fleet or restart it, beside kubectl's view of the same objects.

use anyhow::{Result, ensure};
use kube::core::ObjectList;
use pretty_assertions::assert_eq;
use serde_json::json;
use shoal_operator::crd::{ModelDeployment, ModelDeploymentStatus};
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::tools::{kubectl, shoal, shoal_as};
use shoal_tests::node::Following;

use super::bench::{Bench, picture, tiny, with_operator};

/// What a command that must fail says.
async fn refusal(args: &[&str]) -> Result<String> {
    match shoal(args).await {
        Ok(answer) => anyhow::bail!("shoal {} should fail; it says {answer}", args.join(" ")),
        Err(error) => Ok(error.to_string()),
    }
}

pub(crate) async fn shoal_status_tells_what_kubectl_tells_and_why() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let namespace = ["-n", bench.namespace];
        let table = shoal(&[&["status"][..], &namespace].concat()).await?;
        let row: Vec<_> = table.lines().nth(1).unwrap_or_default().split_whitespace().take(3).collect();
        assert_eq!(row, ["tiny", "True", "2/2"], "{table}");
        let report = shoal(&[&["status", "tiny"][..], &namespace].concat()).await?;
        for part in ["tiny  2/2 groups ready", "plan: 2 × CPU", "  Available    True ", "  1      1 "] {
            ensure!(report.contains(part), "{part:?} is not in\n{report}");
        }
        let object = shoal(&[&["status", "tiny", "-o", "json"][..], &namespace].concat()).await?;
        let theirs = kubectl(&[&["get", "modeldep", "tiny", "-o", "json"][..], &namespace].concat()).await?;
        let read = |text: &str| serde_json::from_str::<ModelDeployment>(text);
        assert_eq!(read(&object)?.status, read(&theirs)?.status);
        let list = shoal(&[&["status", "-o", "yaml"][..], &namespace].concat()).await?;
        assert_eq!(serde_yaml::from_str::<ObjectList<ModelDeployment>>(&list)?.items.len(), 1);
        let everywhere = shoal(&["status", "-A"]).await?;
        ensure!(everywhere.lines().any(|line| line.starts_with(&format!("{}  ", bench.namespace))), "{everywhere}");
        what_cannot_be_shown(bench).await
    })
    .await
}

/// Each refusal names what was asked for and what is allowed.
async fn what_cannot_be_shown(bench: &Bench<'_>) -> Result<()> {
    let n = bench.namespace;
    let missing = format!("namespace {n} has no ModelDeployment large; it has tiny");
    for (args, words) in [
        (&["status", "large", "-n", n][..], missing.as_str()),
        (&["logs", "large", "-n", n], &missing),
        (&["restart", "large", "-n", n], &missing),
        (&["status", "tiny", "-n", "nowhere"], "namespace nowhere has no ModelDeployment tiny; it has none"),
        (&["status", "tiny", "-n", n, "-o", "wide"], "[possible values: table, json, yaml]"),
        (&["status", "tiny", "-A"], "cannot be used with"),
        (&["logs", "tiny", "-n", n, "--since", "5"], "such as 90s, 5m or 1h30m"),
        (&["logs", "tiny", "-n", n, "--tail=-1"], "-1 is not in 0.."),
        (&["logs", "tiny", "-n", n, "--follow", "--previous"], "cannot be used with"),
        (&["completions", "tcsh"], "[possible values: bash, elvish, fish, powershell, zsh]"),
    ] {
        let answer = refusal(args).await?;
        ensure!(answer.contains(words), "{words:?} is not in {answer:?}");
    }
    // The operator's own account may list and watch models, but neither get nor patch them.
    bench.install.set_aside();
    let kubeconfig = bench.install.kubeconfig(bench.cluster).await?;
    let answer = shoal_as(&kubeconfig, &["restart", "tiny", "-n", n]).await.expect_err("it may not").to_string();
    ensure!(answer.contains("cannot read the ModelDeployment") && answer.contains("forbidden"), "{answer}");
    Ok(())
}

pub(crate) async fn shoal_restart_replaces_every_group_by_a_rollout() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let before = bench.serve(&tiny(2)?).await?.status.unwrap_or_default();
        let mut letters = Vec::new();
        assert_eq!(picture(&before, &mut letters, true), "A0e1+ A1e1+");
        let mut all = Following::command(&["status", "--watch", "-n", bench.namespace])?;
        all.line_that("the model as it is", |line| words(line)[..3] == ["tiny", "True", "2/2"]).await?;
        let said = shoal(&["restart", "tiny", "--watch", "-n", bench.namespace]).await?;
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(last, "tiny: restarted; 2 of 2 groups are available", "{said}");
        let status = bench.ready("tiny").await?.status.unwrap_or_default();
        assert_eq!(picture(&status, &mut letters, true), "B2e1+ B3e1+");
        all.line_that("the rollout", |line| line.ends_with("  RollingOut")).await?;
        kubectl(&["delete", "modeldep", "tiny", "-n", bench.namespace]).await?;
        all.line_that("the end", |line| line.ends_with("  Deleted")).await?;
        Ok(())
    })
    .await
}

fn words(line: &str) -> Vec<&str> {
    let mut words: Vec<_> = line.split_whitespace().collect();
    words.resize(words.len().max(3), "");
    words
}

pub(crate) async fn a_restart_that_cannot_go_on_says_why_and_fails() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(1)?).await?;
        bench.edit("tiny", json!({"spec": {"model": {"source": "file:///../etc"}}})).await?;
        bench.condition("tiny", "Stalled", "True").await?;
        let answer = refusal(&["restart", "tiny", "--watch", "-n", bench.namespace]).await?;
        ensure!(answer.contains("the restart of tiny is stalled: InvalidSource: spec.model.source"), "{answer}");
        Ok(())
    })
    .await
}

/// Fake nodes have no logs, but what the operator told of the lost group stays.
pub(crate) async fn shoal_logs_keeps_the_last_words_of_a_lost_group() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let victim = format!("{}=1,{}=0", "inference.shoal.dev/group", "inference.shoal.dev/rank");
        let victims = pods::list(bench.cluster, bench.namespace, &victim).await?;
        let name = victims[0].metadata.name.clone().unwrap_or_default();
        pods::fail(bench.cluster, bench.namespace, &name, "OOMKilled", 137).await?;
        let reborn = |status: &ModelDeploymentStatus| picture(status, &mut Vec::new(), true) == "A0e1+ A1e2+";
        bench.until("tiny", "group 1 under epoch 2", reborn).await?;
        let previous = ["logs", "tiny", "-n", bench.namespace, "--previous"];
        let said = shoal(&previous).await?;
        let words = "operator | group 1 epoch 1 lost a shard (OutOfMemory): shard 0: OOMKilled (exit code 137) ended by the test";
        ensure!(said.lines().any(|line| line.starts_with(words)), "{said}");
        assert_eq!(shoal(&[&previous[..], &["--group=0"]].concat()).await?, "");
        Ok(())
    })
    .await
}
