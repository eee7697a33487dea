//! The chart, rendered in both modes with everything on and everything off: committed, and taken by a real API server.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt as _;
use pretty_assertions::assert_eq;
use serde::Deserialize as _;
use serde_json::{Value, json};
use shoal_operator::crd::ModelDeploymentStatus;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::namespace::with_temp_ns;
use shoal_tests::cluster::pods;
use shoal_tests::cluster::tools::{apply, helm, kubectl};
use shoal_tests::monitoring::{DASHBOARD, RULES, exported, looked_at, page};
use shoal_tests::paths::repository;
use tokio::time::{Instant, sleep};

use super::bench::{tiny, with_operator};
use super::samples::compare;

const MONITORING: &str = "monitoring.coreos.com/v1";
const RENDERS: [(&str, &str); 4] = [("cluster", "on"), ("cluster", "off"), ("namespaced", "on"), ("namespaced", "off")];

/// The documents of `helm template` with one of the committed sets of values.
async fn render(namespace: &str, mode: &str, set: &str, more: &[&str]) -> Result<Vec<Value>> {
    let (mode, values) = (format!("mode={mode}"), format!("tests/tests/cluster/chart-{set}.yaml"));
    let args = ["template", "shoal", "charts/shoal", "-n", namespace, "--set", &mode, "-f", &values];
    documents(&helm(&[&args[..], more].concat()).await?)
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let all = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    let all = all.collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

pub(crate) async fn every_render_is_the_committed_one() -> Result<()> {
    for (mode, set) in RENDERS {
        let mut documents = render("shoal-system", mode, set, &["--api-versions", MONITORING]).await?;
        for document in &mut documents {
            // Committed once, as files.
            if document["kind"] == "PrometheusRule" {
                assert_eq!(document["spec"], serde_yaml::from_str::<Value>(&read(RULES)?)?);
                document["spec"] = json!(RULES);
            }
            if document["kind"] == "ConfigMap" {
                assert_eq!(document["data"]["shoal.json"].as_str(), Some(read(DASHBOARD)?.as_str()));
                document["data"]["shoal.json"] = json!(DASHBOARD);
            }
        }
        let texts = documents.iter().map(serde_yaml::to_string).collect::<Result<Vec<_>, _>>()?;
        compare(&format!("chart-{mode}-{set}"), &texts.join("---\n"))?;
    }
    Ok(())
}

pub(crate) async fn everything_on_sets_every_value() -> Result<()> {
    let keys = |text: &str| -> Result<BTreeSet<String>> {
        let values: Value = serde_yaml::from_str(text)?;
        Ok(values.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect())
    };
    let mut unset = keys(&read("charts/shoal/values.yaml")?)?;
    unset.remove("mode");
    for key in keys(&read("tests/tests/cluster/chart-on.yaml")?)? {
        ensure!(unset.remove(&key), "{key} is no value of the chart");
    }
    assert_eq!(unset, BTreeSet::new());
    Ok(())
}

/// What is passed on to Kubernetes as it is, which the API server checks.
const PASSED_ON: [&str; 4] = ["global", "nodeAffinity", "podAffinity", "podAntiAffinity"];

pub(crate) async fn its_schema_knows_every_key_at_every_depth() -> Result<()> {
    fn open(schema: &Value, path: &str, found: &mut Vec<String>) {
        let name = path.rsplit('.').next().unwrap_or_default();
        if schema["type"] == "object" && schema.get("additionalProperties").is_none() && !PASSED_ON.contains(&name) {
            found.push(path.to_owned());
        }
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            open(property, &format!("{path}.{key}"), found);
        }
        if schema["items"].is_object() {
            open(&schema["items"], &format!("{path}[]"), found);
        }
    }
    let mut found = Vec::new();
    open(&serde_json::from_str(&read("charts/shoal/values.schema.json")?)?, "", &mut found);
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

pub(crate) async fn no_role_has_a_wildcard_and_none_reads_secrets() -> Result<()> {
    for (mode, set) in RENDERS {
        let documents = render("shoal-system", mode, set, &[]).await?;
        let roles: Vec<_> =
            documents.iter().filter(|d| d["kind"].as_str().is_some_and(|k| k.ends_with("Role"))).collect();
        ensure!(roles.len() >= 2, "{mode} {set}: {} roles", roles.len());
        for role in roles {
            for rule in role["rules"].as_array().into_iter().flatten() {
                let text = rule.to_string();
                ensure!(!text.contains('*'), "{mode} {set}: {text}");
                let reads = ["get", "list", "watch"].iter().any(|verb| text.contains(&format!("\"{verb}\"")));
                ensure!(!(text.contains("\"secrets\"") && reads), "{mode} {set}: {text}");
            }
        }
    }
    Ok(())
}

pub(crate) async fn kinds_of_the_prometheus_operator_are_rendered_only_where_they_exist() -> Result<()> {
    for (mode, _) in RENDERS {
        let kinds = |documents: Vec<Value>| -> BTreeSet<String> {
            let all = documents.iter().filter_map(|d| d["kind"].as_str().map(str::to_owned));
            all.filter(|kind| kind.ends_with("Monitor") || kind == "PrometheusRule").collect()
        };
        let with = kinds(render("shoal-system", mode, "on", &["--api-versions", MONITORING]).await?);
        assert_eq!(with, BTreeSet::from(["PodMonitor", "PrometheusRule", "ServiceMonitor"].map(str::to_owned)));
        assert_eq!(kinds(render("shoal-system", mode, "on", &[]).await?), BTreeSet::new());
    }
    Ok(())
}

/// `kubectl create --dry-run=server` with strict decoding, in a namespace that enforces `restricted`.
pub(crate) async fn an_api_server_takes_every_render_and_the_operators_pod_is_restricted() -> Result<()> {
    for (mode, set) in RENDERS {
        with_temp_ns(async |_, namespace| {
            let mut documents = render(namespace, mode, set, &[]).await?;
            let deployment = documents.iter().find(|d| d["kind"] == "Deployment").context("a Deployment")?;
            let mut pod = deployment["spec"]["template"].clone();
            pod["apiVersion"] = json!("v1");
            pod["kind"] = json!("Pod");
            pod["metadata"]["name"] = json!("operator");
            // Its account is not there in a dry run.
            pod["spec"]["serviceAccountName"] = json!("default");
            documents.push(pod);
            for document in &documents {
                let options = ["--dry-run=server", "--validate=strict"];
                create(namespace, &options, document).await.with_context(|| format!("{mode} {set}: {document}"))?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn create(namespace: &str, options: &[&str], document: &Value) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), document.to_string())?;
    let path = file.path().display().to_string();
    kubectl(&[&["create", "-n", namespace, "-f", &path][..], options].concat()).await.map(drop)
}

pub(crate) async fn the_definition_is_rendered_with_a_policy_that_keeps_it() -> Result<()> {
    let text = helm(&["template", "shoal", "charts/shoal", "--show-only", "templates/crd.yaml"]).await?;
    let mut rendered = documents(&text)?.pop().context("a definition")?;
    let annotations = rendered["metadata"]["annotations"].as_object_mut().context("annotations")?;
    assert_eq!(annotations.remove("helm.sh/resource-policy"), Some(json!("keep")));
    if annotations.is_empty() {
        rendered["metadata"].as_object_mut().context("metadata")?.remove("annotations");
    }
    let committed = serde_yaml::from_str::<Value>(&read("charts/shoal/files/crd.yaml")?)?;
    ensure!(floats(rendered) == floats(committed), "the rendered definition is another one");
    Ok(())
}

/// Helm writes large numbers with an exponent.
fn floats(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => Value::Array(items.into_iter().map(floats).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(key, value)| (key, floats(value))).collect()),
        other => other,
    }
}

pub(crate) async fn what_rules_and_dashboard_look_at_is_exported_by_a_running_operator() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        bench.serve(&tiny(2)?).await?;
        let victims = bench.pods("tiny").await?;
        pods::fail(bench.cluster, bench.namespace, &victims[0].name_any(), "Evicted", 1).await?;
        let reborn = |status: &ModelDeploymentStatus| status.recovery.len() == 1 && status.available_groups == 2;
        bench.until("tiny", "a group formed again", reborn).await?;
        apply(bench.namespace, &read("manifests/qwen3-30b-a3b-wgpu.yaml")?).await?;
        bench.condition("qwen3-30b-a3b", "Stalled", "True").await?;
        let log = bench.operator.log()?;
        let line = log.lines().find(|line| line.contains("\"address\"")).context("the address of its HTTP port")?;
        let address = serde_json::from_str::<Value>(line)?["fields"]["address"].as_str().unwrap_or_default().parse()?;
        let wanted = looked_at("shoal_operator_")?;
        let series = [
            "shoal_operator_leader 1.0",
            "shoal_operator_models{state=\"available\"} 1",
            "shoal_operator_models{state=\"unavailable\"} 1",
            "shoal_operator_groups{phase=\"Ready\"} 2",
            "shoal_operator_rejections_total{reason=\"NotSupportedYet\"} 1",
        ];
        // A pass counts after it has written what this test waited for.
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let page = page(address).await?;
            let missing: Vec<_> = wanted.difference(&exported(&page)).cloned().collect();
            let unseen: Vec<_> = series.iter().filter(|wanted| !page.lines().any(|line| line == **wanted)).collect();
            if missing.is_empty() && unseen.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{missing:?} and {unseen:?} are not in\n{page}");
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}
