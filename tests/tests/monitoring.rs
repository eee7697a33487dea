//! The chart's Prometheus rules and Grafana dashboard, checked by Debian's promtool and against a running worker.
//! (`tests/cluster/chart.rs` compares them with a running operator.)

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use pretty_assertions::assert_eq;
use shoal_proto::inference::GenerateRequest;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::fixture::{experts, path};
use shoal_tests::fleet::{Fleet, Spec};
use shoal_tests::monitoring::{RULES, exported, looked_at, page};
use shoal_tests::paths::repository;
use shoal_tests::require::skip_or_fail;

/// Where `tests/all.sh` puts it, else that of PATH.
fn promtool() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(repository().join("target/tools/bin")).chain(std::env::split_paths(&path));
    folders.map(|folder| folder.join("promtool")).find(|file| file.exists())
}

fn check(arguments: &[&str]) {
    let Some(promtool) = promtool() else {
        skip_or_fail("cluster", "no promtool: `make test` fetches Debian's");
        return;
    };
    let output = Command::new(&promtool).args(arguments).current_dir(repository()).output();
    let output = output.expect("promtool should start: it is there");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_accepts_every_rule() {
    check(&["check", "rules", RULES]);
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    check(&["test", "rules", "tests/monitoring/alerts.yaml"]);
}

#[tokio::test]
async fn what_rules_and_dashboard_look_at_is_exported_by_a_running_worker() -> Result<()> {
    let fleet = Fleet::start(&Spec::new(path("v2-lite"), Placement::even(experts("v2-lite")?, 1)?)).await?;
    let worker = &fleet.workers[0];
    worker.ask(greedy(&[3, 8], 2)).await?;
    let refused = worker.ask(GenerateRequest { model: "another".to_owned(), ..greedy(&[3, 8], 2) }).await;
    assert!(refused.is_err(), "another model is not served");
    let mut wanted = looked_at("shoal_")?;
    wanted.retain(|name| !name.starts_with("shoal_operator_"));
    let page = page(worker.http).await?;
    let missing: Vec<_> = wanted.difference(&exported(&page)).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "a running worker exports only\n{page}");
    assert!(wanted.len() >= 10, "{wanted:?}");
    // The states that alerts distinguish are those that it shows.
    for series in
        ["shoal_sequences{state=\"waiting\"}", "shoal_sequences{state=\"running\"}", "shoal_kv_blocks{state=\"used\"}"]
    {
        assert!(page.contains(series), "{series} is not in\n{page}");
    }
    Ok(())
}
