//! The chart: what it installs is what the operator defines and needs, and not more.

use std::process::Command;

use anyhow::Result;
use pretty_assertions::assert_eq;
use shoal_operator::inventory::Catalogue;
use shoal_tests::cluster::install::{Install, Mode};
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::tools::{helm, kubectl};
use shoal_tests::paths::{binary, repository};

pub(crate) async fn its_definition_is_what_shoal_crds_prints() -> Result<()> {
    let printed = String::from_utf8(Command::new(binary("shoal")?).arg("crds").output()?.stdout)?;
    let committed = std::fs::read_to_string(repository().join("charts/shoal/files/crd.yaml"))?;
    assert_eq!(committed, printed, "run: shoal crds > charts/shoal/files/crd.yaml");
    Ok(())
}

pub(crate) async fn a_value_it_does_not_know_is_refused() -> Result<()> {
    for (value, named) in [
        ("replica=2", "replica"),
        ("image.registry=x", "registry"),
        ("mode=global", "mode"),
        ("resources.limits.cpu.max=1", "cpu"),
        ("resources.claims=1", "claims"),
        ("tolerations[0].keys=a", "keys"),
        ("affinity.nodeAffinities=a", "nodeAffinities"),
        ("serviceMonitor.port=1", "port"),
        ("podMonitor.interval=soon", "interval"),
        ("prometheusRule.enabled=perhaps", "enabled"),
        ("dashboards.label=a", "label"),
        ("gpuCatalogue[0].product=X", "memoryGiB"),
    ] {
        let refusal = helm(&["template", "shoal", "charts/shoal", "--set", value]).await;
        let refusal = refusal.expect_err("the schema should refuse it").to_string();
        assert!(refusal.contains(named), "{value}: {refusal}");
    }
    Ok(())
}

pub(crate) async fn its_gpu_catalogue_reaches_the_operator_as_json() -> Result<()> {
    let entry = r#"gpuCatalogue=[{"product":"X","memoryGiB":8,"bandwidthGBps":1.5,"bf16Tflops":2}]"#;
    let rendered = helm(&["template", "shoal", "charts/shoal", "--set-json", entry]).await?;
    let line = rendered.lines().find(|line| line.contains("SHOAL_GPU_CATALOGUE")).unwrap_or_default();
    let variable: serde_yaml::Value = serde_yaml::from_str(line.trim_start_matches([' ', '-']))?;
    let text = variable["value"].as_str().unwrap_or_default();
    let known = Catalogue::extended(text)?.find("NVIDIA-X").map(|known| known.memory_bytes);
    assert_eq!(known, Some(8 << 30), "{text}");
    Ok(())
}

/// Asks the API server, as `kubectl auth can-i` does.
async fn may(install: &Install, verb: &str, resource: &str) -> Result<bool> {
    let user = format!("--as={}", install.user());
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let part = format!("--subresource={subresource}");
    let answer = kubectl(&["auth", "can-i", verb, resource, &part, "-n", &install.namespace, &user]).await;
    Ok(answer.is_ok_and(|text| text.trim() == "yes"))
}

pub(crate) async fn its_account_may_do_what_it_needs_and_make_secrets_but_never_read_one() -> Result<()> {
    for (mode, reads_nodes) in [(Mode::Cluster, true), (Mode::Namespaced, false)] {
        with_temp_ns(async |_, namespace| {
            let install = Install::new(namespace, mode).await?;
            for (verb, resource, wanted) in [
                ("create", "pods", true),
                ("delete", "pods", true),
                ("update", "pods", false),
                ("patch", "services", true),
                ("patch", "modeldeployments/status", true),
                ("patch", "modeldeployments", false),
                ("list", "nodes", reads_nodes),
                ("create", "secrets", true),
                ("get", "secrets", false),
                ("list", "secrets", false),
                ("watch", "secrets", false),
                ("update", "secrets", false),
                ("patch", "secrets", false),
                ("delete", "secrets", false),
                ("create", "pods/exec", false),
                ("patch", "networkpolicies.networking.k8s.io", true),
                ("delete", "networkpolicies.networking.k8s.io", false),
            ] {
                assert_eq!(
                    (mode, verb, resource, may(&install, verb, resource).await?),
                    (mode, verb, resource, wanted)
                );
            }
            install.uninstall().await?;
            assert!(!may(&install, "create", "pods").await?, "uninstalling takes the rights away");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
