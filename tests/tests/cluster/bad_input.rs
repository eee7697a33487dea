//! Every field of a ModelDeployment wrong in every way: refused with a reason, planned, or Accepted=False. Never a crash,
//! never a hot loop, never silence.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};
use shoal_operator::crd::ModelDeployment;
use shoal_tests::cluster::install::Mode;
use shoal_tests::cluster::wait::await_value;
use shoal_tests::mutations::{Kind, Mutation, mutations};
use shoal_tests::paths::repository;

use super::bench::{Bench, tiny, with_operator};

/// Requests at once.
const AT_ONCE: usize = 16;
/// Objects that exist at once; more would only measure the fake nodes.
const BATCH: usize = 100;
/// Passes of one object, from its creation to its end: what its few pods and its back-off account for.
const PASSES: usize = 40;

/// The schema of ModelDeployment, from the committed CRD.
fn schema() -> Result<Value> {
    let crd = std::fs::read_to_string(repository().join("charts/shoal/files/crd.yaml"))?;
    let crd: Value = serde_yaml::from_str(&crd)?;
    Ok(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
}

/// The messages of all CEL rules, wherever they are.
fn rules(schema: &Value, all: &mut Vec<String>) {
    if let Some(message) = schema.get("message").and_then(Value::as_str).filter(|_| schema.get("rule").is_some()) {
        all.push(message.to_owned());
    }
    match schema {
        Value::Object(fields) => fields.values().for_each(|field| rules(field, all)),
        Value::Array(items) => items.iter().for_each(|item| rules(item, all)),
        _ => {}
    }
}

/// How an API server says what would be right.
const BOUNDS: [&str; 14] = [
    "should be less than or equal to",
    "should be greater than or equal to",
    "should be at least",
    "should be at most",
    "should match",
    "may not be more than",
    "must have at most",
    "must be of type",
    "supported values",
    "Required value",
    "unknown field",
    "duplicate field",
    "Duplicate value",
    "cannot unmarshal",
];

/// Sends the object; `Err` is the server's refusal.
async fn send(bench: &Bench<'_>, text: String, query: &str) -> Result<std::result::Result<(), String>> {
    let namespace = bench.namespace;
    let uri = format!("/apis/inference.shoal.dev/v1alpha1/namespaces/{namespace}/modeldeployments?{query}");
    let request = Request::post(uri).header("content-type", "application/json").body(text.into_bytes())?;
    match bench.cluster.client().request_text(request).await {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => Ok(Err(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

/// A model of one shard on one CPU: what is right about it stays right.
fn good() -> Result<Value> {
    let mut model = serde_json::to_value(tiny(1)?)?;
    model["metadata"]["name"] = json!("victim");
    model["spec"]["sharding"] = json!({"shards": 1});
    model["spec"]["rollout"] = json!({"minReadySeconds": 0});
    Ok(model)
}

/// So many groups that only the verdict can be of interest: a source that is not built yet gets no pods.
fn is_big(text: &str) -> Result<bool> {
    let object: Value = serde_json::from_str(text)?;
    Ok(object["spec"]["replicas"].as_f64().is_some_and(|replicas| replicas > 4.0))
}

pub(crate) async fn every_field_wrong_in_every_way_is_refused_planned_or_answered() -> Result<()> {
    with_operator(Mode::Cluster, async |bench| {
        let schema = schema()?;
        let mut said = Vec::new();
        rules(&schema, &mut said);
        let all = mutations(&schema, "spec", &good()?);
        ensure!(all.len() >= 2000, "only {} objects", all.len());
        let answers = stream::iter(all)
            .map(async |mutation| {
                let answer = send(bench, mutation.text.clone(), "fieldValidation=Strict&dryRun=All").await?;
                anyhow::Ok((mutation, answer))
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let mut counts: BTreeMap<Kind, (usize, usize)> = BTreeMap::new();
        let mut taken = Vec::new();
        for (mutation, answer) in answers {
            let count = counts.entry(mutation.kind).or_default();
            match answer {
                Ok(()) => {
                    count.1 += 1;
                    taken.push(mutation);
                }
                Err(message) => {
                    count.0 += 1;
                    check_refusal(&mutation, &message, &said)?;
                }
            }
        }
        let verdicts = judged(bench, taken).await?;
        for (kind, (refused, taken)) in counts {
            println!("bad input {kind:?}: {refused} refused by the API server, {taken} taken");
        }
        println!("bad input: of those taken {verdicts:?}");
        alive(bench)
    })
    .await
}

fn check_refusal(mutation: &Mutation, message: &str, rules: &[String]) -> Result<()> {
    let (path, kind, name) = (&mutation.path, mutation.kind, mutation.path.name());
    ensure!(message.contains(name), "{path} {kind:?}: the refusal does not name it: {message}\n{}", mutation.text);
    let bounded = BOUNDS.iter().any(|bound| message.contains(bound)) || rules.iter().any(|rule| message.contains(rule));
    ensure!(bounded, "{path} {kind:?}: the refusal names no bound: {message}\n{}", mutation.text);
    Ok(())
}

/// Creates the objects in batches and waits until the operator has said of each what becomes of it.
async fn judged(bench: &Bench<'_>, mutations: Vec<Mutation>) -> Result<BTreeMap<String, usize>> {
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for (number, mutation) in mutations.into_iter().enumerate() {
        let mut text = mutation.text.replace("\"victim\"", &format!("\"victim-{number}\""));
        if is_big(&text)? {
            text = text.replace("file:///models/tiny", "s3://bucket/tiny");
        }
        names.insert(format!("victim-{number}"), (mutation, text));
    }
    let names: Vec<_> = names.into_iter().collect();
    for batch in names.chunks(BATCH) {
        let sent = stream::iter(batch).map(async |(_, (mutation, text))| {
            let answer = send(bench, text.clone(), "fieldValidation=Strict").await?;
            answer.map_err(anyhow::Error::msg).with_context(|| format!("{} after a dry run", mutation.path))
        });
        sent.buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        await_value("a verdict on each", async || {
            let objects = bench.models().list(&ListParams::default()).await?.items;
            let said: Vec<_> = objects.iter().filter_map(verdict).collect();
            if said.len() < batch.len() {
                return Ok(None);
            }
            said.into_iter().for_each(|verdict| *verdicts.entry(verdict).or_default() += 1);
            Ok(Some(()))
        })
        .await
        .with_context(|| silent(batch))?;
        bench.models().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        await_value("none of the batch", async || {
            Ok(bench.models().list(&ListParams::default()).await?.items.is_empty().then_some(()))
        })
        .await?;
    }
    Ok(verdicts)
}

fn silent(batch: &[(String, (Mutation, String))]) -> String {
    let fields = batch.iter().map(|(name, (mutation, _))| format!("{name}: {} {:?}", mutation.path, mutation.kind));
    format!("of\n{}", fields.collect::<Vec<_>>().join("\n"))
}

/// Accepted=False with a reason, or the plan's; `None`: nothing yet.
fn verdict(model: &ModelDeployment) -> Option<String> {
    let status = model.status.as_ref()?;
    let condition = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    let accepted = condition("Accepted").filter(|condition| !condition.reason.is_empty())?;
    if accepted.status == "False" {
        return Some(format!("Accepted=False/{}", accepted.reason));
    }
    condition("Planned").map(|planned| format!("Planned={}/{}", planned.status, planned.reason))
}

/// One leader from beginning to end, and no object that was looked at more often than its life explains.
fn alive(bench: &Bench<'_>) -> Result<()> {
    let log = bench.operator.log()?;
    ensure!(log.matches("\"message\":\"leading\"").count() == 1, "the operator ended");
    ensure!(!log.contains("panicked"), "the operator panicked");
    let mut passes: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("\"message\":\"pass\"")) {
        let line: Value = serde_json::from_str(line)?;
        *passes.entry(line["fields"]["name"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let (name, most) = passes.iter().max_by_key(|(_, count)| **count).context("passes")?;
    println!(
        "bad input: {} passes over {} objects, at most {most} over one",
        passes.values().sum::<usize>(),
        passes.len()
    );
    ensure!(*most <= PASSES, "{name} was looked at {most} times");
    Ok(())
}
