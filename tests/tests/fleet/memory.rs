//! What a worker takes from the system against what the plan counts: every term but the margin, within 5 %.
//!
//! Measured is RssAnon + RssFile once all sequences have filled their caches, less that of a worker with a model of half
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
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::fixture::path;
use shoal_tests::fleet::synthetic::Synthetic;
use shoal_tests::fleet::{Fleet, Spec};

/// How far the plan may be off, in percent.
const PERCENT: u64 = 5;

/// Serves `sequences` at once, each with a full context, and reads the memory of every worker.
async fn memory(model: &Path, shards: usize, (sequences, context): (u32, u32), step: u32) -> Result<Vec<u64>> {
    let experts = folder::shape(model)?.experts;
    let flags = [
        format!("--context-tokens={context}"),
        format!("--max-concurrent-sequences={sequences}"),
        format!("--step-tokens={step}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let spec = Spec::new(model, Placement::even(u32::try_from(experts)?, shards)?).with(&flags);
    let fleet = Fleet::start(&spec).await?;
    // All at once, so that no block of the cache is used twice; the last token of an answer is never cached.
    let prompt: Vec<u32> = (0..context.saturating_sub(8)).map(|position| position % 97 + 2).collect();
    let asked = (0..sequences as usize).map(|index| {
        let mut request = greedy(&prompt, 8);
        request.top_logprobs = 0;
        fleet.workers[index % shards].ask(request)
    });
    try_join_all(asked).await?;
    fleet.workers.iter().map(|worker| worker.memory()).collect()
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
    Ok(ShardBytes::of(&shape, &spec, ShardLoad::even(shape.experts.unsigned_abs().into(), shards)))
}

async fn compare(model: &Path, shards: usize, load: (u32, u32)) -> Result<()> {
    let empty = memory(&path("v3-plain"), 1, (1, 64), 1).await?[0];
    let planned = planned(model, u32::try_from(shards)?, load)?;
    for measured in memory(model, shards, load, 512).await? {
        let grown = measured.saturating_sub(empty);
        let off = planned.tensors().abs_diff(grown) as f64 / planned.tensors() as f64 * 100.0;
        println!("planned {} measured {grown} over an empty {empty}: {off:.1} % off; {planned:?}", planned.tensors());
        ensure!(off <= PERCENT as f64, "{off:.1} % off; at most {PERCENT} %");
        ensure!(measured <= planned.total(), "{measured} bytes are more than the plan allows: {}", planned.total());
    }
    Ok(())
}

#[tokio::test]
async fn the_tiny_model_takes_the_memory_that_the_plan_counts() -> Result<()> {
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny"), 1, (128, 512)).await
}

#[tokio::test]
async fn a_model_of_a_gigabyte_takes_the_memory_that_the_plan_counts_whole_and_in_two() -> Result<()> {
    let folder = tempfile::tempdir()?;
    Synthetic { layers: 9, hidden: 1024, experts: 40, width: 512 }.write(folder.path())?;
    for shards in [1, 2] {
        compare(folder.path(), shards, (4, 576)).await?;
    }
    Ok(())
}
