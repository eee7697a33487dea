//! What a worker takes from the system against what the plan counts: every term but the margin, within 5 %.
//!
//! On the gigabyte, measured is RssAnon + RssFile once all sequences have filled their caches, less that of a worker with a model of half
//! a megabyte that serves one sequence by single rows: code, runtime, tokenizer and streams are what the margin is for.

use std::path::Path;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use shoal_operator::controller::plan::ShardBytes;
use shoal_operator::controller::plan::bytes::ShardLoad;
use shoal_operator::controller::validate::validate;
use shoal_operator::crd::ModelDeployment;
use shoal_operator::shape::folder;
use shoal_proto::inference::GenerateRequest;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::fixture::path;
use shoal_tests::fleet::synthetic::Synthetic;
use shoal_tests::fleet::{Fleet, Spec, Worker};

/// How far the plan may be off, in percent.
const PERCENT: f64 = 5.0;

/// Answers on one connection; a worker refuses more than 64.
const STREAMS: usize = 32;

/// Serves `sequences` at once, each with a full context, and reads the memory of every worker.
async fn memory(model: &Path, shards: usize, (sequences, context): (u32, u32), step: u32) -> Result<Vec<u64>> {
    let experts = folder::shape(model)?.experts;
    let placement = Placement::even(u32::try_from(experts)?, shards)?;
    let spec = roomy(Spec::new(model, placement), (sequences, context), step);
    let fleet = Fleet::start(&spec).await?;
    fill(&fleet, (sequences, context)).await?;
    fleet.workers.iter().map(Worker::memory).collect()
}

/// A group with room for `sequences` of `context` tokens.
pub(crate) fn roomy(spec: Spec, (sequences, context): (u32, u32), step: u32) -> Spec {
    spec.with(&[
        &format!("--context-tokens={context}"),
        &format!("--max-concurrent-sequences={sequences}"),
        &format!("--step-tokens={step}"),
    ])
}

/// Asks for `sequences` at once, each with a full context.
pub(crate) async fn fill(fleet: &Fleet, (sequences, context): (u32, u32)) -> Result<()> {
    // All at once, so that no block of the cache is used twice; the last token of an answer is never cached.
    let prompt: Vec<u32> = (0..context.saturating_sub(8)).map(|position| position % 97 + 2).collect();
    let doors = fleet.doors();
    let mut clients = Vec::new();
    for index in 0..(sequences as usize).div_ceil(STREAMS).max(doors.len()) {
        clients.push(doors[index % doors.len()].client().await?);
    }
    let asked = (0..sequences as usize).map(|index| {
        let mut client = clients[index % clients.len()].clone();
        let request = GenerateRequest { top_logprobs: 0, ..greedy(&prompt, 8) };
        async move {
            let mut answer = client.generate(request).await?.into_inner();
            while answer.message().await?.is_some() {}
            anyhow::Ok(())
        }
    });
    try_join_all(asked).await?;
    Ok(())
}

/// The plan's terms for a shard of `model` on CPU, without the margin.
fn planned(model: &Path, shards: u32, (sequences, context): (u32, u32)) -> Result<ShardBytes> {
    let object: ModelDeployment = serde_json::from_value(json!({
        "apiVersion": "inference.shoal.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "measured"},
        "spec": {
            "model": {"source": "file:///model", "shape": folder::shape(model)?},
            "hardware": {"backend": "CPU"},
            "serving": {"contextTokens": context, "maxConcurrentSequences": sequences},
        },
    }))?;
    let spec = validate(&object)?;
    let shape = folder::shape(model)?;
    Ok(ShardBytes::of(&shape, &spec, ShardLoad::largest(&shape, &spec, shards)))
}

/// Of every shard: how much more than planned it takes, in percent of the plan.
async fn off(model: &Path, shards: usize, load: (u32, u32)) -> Result<Vec<f64>> {
    let empty = memory(&path("v3-plain"), 1, (1, 64), 1).await?[0];
    let planned = planned(model, u32::try_from(shards)?, load)?;
    let mut all = Vec::new();
    for measured in memory(model, shards, load, 512).await? {
        let grown = measured.saturating_sub(empty);
        let off = (grown as f64 / planned.tensors() as f64 - 1.0) * 100.0;
        println!("planned {}, measured {grown} over an empty {empty}: {off:.1} %; {planned:?}", planned.tensors());
        ensure!(measured <= planned.total(), "{measured} bytes are more than the plan allows: {}", planned.total());
        all.push(off);
    }
    Ok(all)
}

/// Next to so small a model 128 streams weigh something: both sides serve as many, once with an eighth of the context.
#[tokio::test]
async fn the_tiny_model_takes_the_memory_that_the_plan_counts() -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    let (short, long) = ((128, 64), (128, 512));
    let counted = planned(&model, 1, long)?.tensors() - planned(&model, 1, short)?.tensors();
    // The median of three: a thread's arena more or less is a tenth of the bound.
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let (few, many) = (memory(&model, 1, short, 512).await?[0], memory(&model, 1, long, 512).await?[0]);
        pairs.push((many.saturating_sub(few), many));
    }
    pairs.sort_unstable();
    let (grown, many) = pairs[1];
    let off = (grown as f64 / counted as f64 - 1.0) * 100.0;
    println!("planned {counted} more, measured {pairs:?}: {off:.1} %");
    ensure!(off.abs() <= PERCENT, "{off:.1} %");
    let allowed = planned(&model, 1, long)?.total();
    ensure!(many <= allowed, "{many} bytes are more than the plan allows: {allowed}");
    Ok(())
}

/// The host's copies of frames between shards are what the margin is for too: a shard of two may take 10 % more.
#[tokio::test]
async fn a_model_of_a_gigabyte_takes_the_memory_that_the_plan_counts_whole_and_in_two() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Synthetic { layers: 9, hidden: 1024, experts: 40, width: 512 }.write(folder.path())?;
    let whole = off(folder.path(), 1, (4, 576)).await?[0];
    ensure!(whole.abs() <= PERCENT, "{whole:.1} %");
    let halves = off(folder.path(), 2, (4, 576)).await?;
    ensure!(halves.iter().all(|half| (-PERCENT..=2.0 * PERCENT).contains(half)), "{halves:.1?} %");
    Ok(())
}
