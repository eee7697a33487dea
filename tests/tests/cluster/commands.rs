//! The commands that look at a fleet or restart it, beside kubectl's view of the same objects.

use anyhow::{Result, ensure};
use kube::core::ObjectList;
use pretty_assertions::assert_eq;
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::tools::{kubectl, shoal};

use super::bench::{picture, tiny, with_operator};

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
        let missing = shoal(&[&["status", "large"][..], &namespace].concat()).await;
        let missing = missing.expect_err("there is no such model").to_string();
        ensure!(missing.contains(&format!("namespace {} has no ModelDeployment large", bench.namespace)), "{missing}");
        Ok(())
    })
    .await
}

pub(crate) async fn shoal_restart_replaces_every_group_by_a_rollout() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let before = bench.serve(&tiny(2)?).await?.status.unwrap_or_default();
        let mut letters = Vec::new();
        assert_eq!(picture(&before, &mut letters, true), "A0e1+ A1e1+");
        shoal(&["restart", "tiny", "-n", bench.namespace]).await?;
        let done = |status: &shoal_operator::crd::ModelDeploymentStatus| {
            picture(status, &mut letters.clone(), true) == "B2e1+ B3e1+"
        };
        bench.until("tiny", "two groups of another revision", done).await?;
        bench.ready("tiny").await?;
        let missing = shoal(&["restart", "large", "-n", bench.namespace]).await;
        let missing = missing.expect_err("there is no such model").to_string();
        ensure!(missing.contains("has no ModelDeployment large"), "{missing}");
        Ok(())
    })
    .await
}
