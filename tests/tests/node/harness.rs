//! What the tests on the real node share: the chart, namespaces, and what a person would look at first.

use std::time::Instant;

use anyhow::{Result, ensure};
use shoal_operator::names::{label, port};
use shoal_tests::cluster::tools::{apply, helm, kubectl};
use shoal_tests::cluster::wait::await_value;
use shoal_tests::node::ask;

pub(crate) const SYSTEM: &str = "shoal-system";

/// Runs `body` with the chart installed and a namespace for models; when it fails, what is there is shown.
pub(crate) async fn with_chart(models: &str, body: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    let outcome = async {
        for namespace in [SYSTEM, models] {
            restricted_namespace(namespace).await?;
        }
        step("helm install");
        helm(&["upgrade", "--install", "shoal", "charts/shoal", "-n", SYSTEM, "--wait", "--timeout", "120s"]).await?;
        body().await
    };
    let outcome = outcome.await;
    if outcome.is_err() {
        explain(models).await;
    }
    step(&format!("{models}: {} s", began.elapsed().as_secs()));
    outcome
}

pub(crate) fn step(what: &str) {
    eprintln!("node: {what}");
}

async fn restricted_namespace(name: &str) -> Result<()> {
    let labels = "{pod-security.kubernetes.io/enforce: restricted}";
    let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}");
    apply("default", &namespace).await.map(drop)
}

/// Waits until a condition of the newest spec is true.
pub(crate) async fn condition(kind: &str, model: &str, namespace: &str) -> Result<()> {
    let (condition, object) = (format!("--for=condition={kind}"), format!("modeldeployment/{model}"));
    kubectl(&["wait", "-n", namespace, &condition, &object, "--timeout=180s"]).await.map(drop)
}

/// Asks through the Service's DNS name. Endpoints follow readiness a moment later, so an unreachable server is asked
/// again; a wrong answer is never forgiven.
pub(crate) async fn answers_right((model, namespace): (&str, &str), a: u32, b: u32) -> Result<()> {
    let address = format!("{model}.{namespace}.svc.cluster.local:{}", port::GRPC);
    let text = await_value("an answer", async || match ask(&address, &format!("What is {a}+{b}?")).await {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.to_string().contains("UNAVAILABLE") => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    let answer = text.rsplit("</think>").next().unwrap_or_default().trim();
    ensure!(answer == (a + b).to_string(), "{a}+{b} is not {answer:?}; the model said {text:?}");
    step(&format!("{a}+{b}={answer}"));
    Ok(())
}

async fn explain(models: &str) {
    for words in [
        &["get", "pods,services,endpointslices", "-A", "-o", "wide"][..],
        &["get", "modeldeployments", "-A", "-o", "yaml"],
        &["get", "events", "-A"],
        &["logs", "-n", SYSTEM, "deployment/shoal", "--tail=60"],
        &["logs", "-n", models, "-l", label::EPOCH, "--tail=40", "--prefix"],
    ] {
        let answer = kubectl(words).await.unwrap_or_else(|error| format!("{error:#}"));
        eprintln!("--- kubectl {}\n{answer}", words.join(" "));
    }
}
