//! Objects that a newer version stored: fields and values that this one does not know.

use anyhow::{Context, Result, ensure};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::tools::{apply, kubectl};
use shoal_tests::cluster::wait::await_value;

use super::bench::{Bench, DEFINITION, tiny, with_operator};

const CRD: &str = "modeldeployments.inference.shoal.dev";

/// The definition of tomorrow: a backend, a field of the spec, and fields of the status, at its top and in a list.
async fn extend() -> Result<()> {
    let mut crd: Value = serde_json::from_str(&kubectl(&["get", "crd", CRD, "-o", "json"]).await?)?;
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let backends = &mut schema["spec"]["properties"]["hardware"]["properties"]["backend"]["enum"];
    backends.as_array_mut().context("backends")?.push(json!("TPU"));
    schema["spec"]["properties"]["ofTomorrow"] = json!({"type": "boolean"});
    let status = &mut schema["status"]["properties"];
    status["joules"] = json!({"type": "integer"});
    status["groups"]["items"]["properties"]["watts"] = json!({"type": "integer"});
    // What kubectl remembers of it must be nothing that the committed one, applied afterwards, would take away.
    crd["metadata"] = json!({"name": CRD});
    apply("default", &crd.to_string()).await.map(drop)
}

async fn raw(bench: &Bench<'_>, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(&["get", "modeldep", name, "-n", bench.namespace, "-o", "json"]).await?)?)
}

async fn patch(bench: &Bench<'_>, name: &str, change: &Value, more: &[&str]) -> Result<()> {
    let text = change.to_string();
    let words = ["patch", "modeldep", name, "-n", bench.namespace, "--type=merge", "-p", &text];
    kubectl(&[&words[..], more].concat()).await.map(drop)
}

/// Status, reason and message of a condition for the newest spec.
async fn told(bench: &Bench<'_>, name: &str, kind: &str, reason: &str) -> Result<(String, String)> {
    await_value(&format!("{kind} {reason} of {name}"), async || {
        let object = raw(bench, name).await?;
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == kind && c["reason"] == reason);
        let found = found.filter(|c| c["observedGeneration"] == object["metadata"]["generation"]);
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(found.map(|c| (word(&c["status"]), word(&c["message"]))))
    })
    .await
}

pub(crate) async fn what_a_newer_version_stored_is_kept_named_and_in_nobodys_way() -> Result<()> {
    // A changed definition ends every watch of its objects: nobody may count them meanwhile.
    let _alone = DEFINITION.write().await;
    with_operator(Mode::Namespaced, async |bench| {
        for name in ["tiny", "other"] {
            let mut model: ModelDeployment = tiny(1)?;
            model.metadata.name = Some(name.to_owned());
            bench.serve(&model).await?;
        }
        extend().await?;
        let lived = beside_newer(bench).await;
        for name in ["tiny", "other", "fresh"] {
            kubectl(&["delete", "modeldep", name, "-n", bench.namespace, "--ignore-not-found"]).await?;
        }
        let restored = kubectl(&["apply", "-f", "charts/shoal/files/crd.yaml"]).await;
        lived.and(restored.map(drop))
    })
    .await
}

async fn beside_newer(bench: &mut Bench<'_>) -> Result<()> {
    let newer = json!({"spec": {"hardware": {"backend": "TPU"}}});
    // The API server needs a moment to take the definition in.
    await_value("TPU accepted", async || Ok(patch(bench, "tiny", &newer, &[]).await.ok())).await?;
    let before = bench.identities("tiny").await?;
    let (status, message) = told(bench, "tiny", "Accepted", "NotUnderstood").await?;
    let words = r#"spec.hardware.backend: Unsupported value: "TPU": supported values: "CUDA", "WGPU", "CPU""#;
    assert_eq!((status.as_str(), message.as_str()), ("False", words));
    told(bench, "tiny", "Stalled", "NotUnderstood").await?;
    patch(bench, "tiny", &json!({"status": {"joules": 5}}), &["--subresource=status"]).await?;
    // One that begins so, and an operator that finds them in its list.
    let mut fresh = serde_json::to_value(tiny(1)?)?;
    fresh["metadata"]["name"] = json!("fresh");
    fresh["spec"]["hardware"]["backend"] = json!("TPU");
    apply(bench.namespace, &fresh.to_string()).await?;
    told(bench, "fresh", "Accepted", "NotUnderstood").await?;
    bench.restart_operator().await?;

    // Others go on; what of them is unknown is named, and kept by the writes that follow.
    patch(bench, "other", &json!({"spec": {"ofTomorrow": true}}), &[]).await?;
    let (status, message) = told(bench, "other", "Accepted", "UnknownFields").await?;
    ensure!(status == "True" && message.ends_with("spec.ofTomorrow"), "{message}");
    let mut groups = raw(bench, "other").await?["status"]["groups"].clone();
    groups[0]["watts"] = json!(700);
    patch(bench, "other", &json!({"status": {"joules": 5, "groups": groups}}), &["--subresource=status"]).await?;
    patch(bench, "other", &json!({"spec": {"replicas": 2}}), &[]).await?;
    told(bench, "other", "Ready", "AllGroupsAvailable").await?;
    let after = raw(bench, "other").await?;
    assert_eq!(after["spec"]["ofTomorrow"], true);
    let watts: Vec<&Value> =
        after["status"]["groups"].as_array().context("groups")?.iter().map(|g| &g["watts"]).collect();
    assert_eq!((&after["status"]["joules"], watts), (&json!(5), vec![&json!(700), &Value::Null]));

    assert_eq!(bench.identities("tiny").await?, before, "nothing of it was touched");
    assert_eq!(raw(bench, "tiny").await?["status"]["joules"], 5);
    ensure!(bench.identities("fresh").await?.is_empty(), "nothing is made of what is not understood");
    patch(bench, "tiny", &json!({"spec": {"hardware": {"backend": "CPU"}}}), &[]).await?;
    told(bench, "tiny", "Ready", "AllGroupsAvailable").await?;
    assert_eq!(bench.identities("tiny").await?, before);
    Ok(())
}
