//! Every pipeline over every fixture gives the bits of one worker: even and uneven, greedy and seeded, alone and in a batch
//! of 16, whole and in chunks, with a cache that is too small; and as many steps are under way as there are stages.

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use shoal_proto::inference::{DescribeModelRequest, GenerateRequest};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::{greedy, seeded};
use shoal_tests::fleet::bits::{TokenBits, of_answer};
use shoal_tests::fleet::fixture::{Case, FIXTURES, expected, layers, path};
use shoal_tests::fleet::{Fleet, Spec};

use crate::page;

/// Fleets that run at once.
const AT_ONCE: usize = 3;
/// Tokens of each answer.
const TOKENS: u32 = 8;
/// Requests of a batch.
const BATCH: usize = 16;
/// How many of them are asked alone as well: one of 300 tokens among them.
const ALONE: usize = 5;

/// Even and uneven stages over 2, 3 and 4 workers, as far as there are layers.
fn placements(layers: u32) -> Result<Vec<Placement>> {
    let even = (2..=layers.min(4) as usize).map(|size| Placement::even_pipeline(layers, size));
    let uneven = [
        vec![0..1, 1..layers],
        vec![0..layers - 1, layers - 1..layers],
        vec![0..1, 1..2, 2..layers],
        vec![0..1, 1..layers - 1, layers - 1..layers],
        vec![0..1, 1..2, 2..layers - 1, layers - 1..layers],
    ];
    let uneven = uneven.into_iter().map(|stages| Placement::pipeline(layers, stages));
    let mut all: Vec<Placement> = Vec::new();
    for placement in even.chain(uneven.filter(Result::is_ok)) {
        let placement = placement?;
        if !all.contains(&placement) {
            all.push(placement);
        }
    }
    Ok(all)
}

/// Sixteen requests over prompts of 5 and 40 tokens and, twice, of 300; every other one seeded.
fn batch(cases: &[Case], tokens: u32) -> Vec<GenerateRequest> {
    let request = |index: usize| {
        let case = if index % 7 == 4 { 2 } else { index / 2 % 2 };
        let prompt = &cases[case].prompt;
        if index.is_multiple_of(2) { greedy(prompt, tokens) } else { seeded(prompt, tokens, index as u64) }
    };
    (0..BATCH).map(request).collect()
}

/// The bits of a batch, then of its first requests alone.
async fn bits(fleet: &Fleet, cases: &[Case], tokens: u32) -> Result<Vec<Vec<TokenBits>>> {
    let first = &fleet.workers[0];
    let mut answers = try_join_all(batch(cases, tokens).into_iter().map(|request| first.ask(request))).await?;
    for request in batch(cases, tokens).into_iter().take(ALONE) {
        answers.push(first.ask(request).await?);
    }
    answers.iter().map(of_answer).collect::<Option<_>>().context("an answer failed")
}

/// Bytes of weights that each worker holds.
async fn held(fleet: &Fleet) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for worker in &fleet.workers {
        let described = worker.client().await?.describe_model(DescribeModelRequest::default()).await?;
        all.push(described.into_inner().weight_bytes);
    }
    Ok(all)
}

/// What one worker says, and what it holds.
struct Reference {
    name: &'static str,
    bits: Vec<Vec<TokenBits>>,
    bytes: u64,
}

async fn reference(name: &'static str, flags: &[&str], tokens: u32) -> Result<Reference> {
    let alone = Placement::even_pipeline(layers(name)?, 1)?;
    let fleet = Fleet::start(&Spec::new(path(name), alone).with(flags)).await?;
    let bits = bits(&fleet, &expected(name)?.cases, tokens).await?;
    ensure!(bits[..ALONE] == bits[BATCH..], "{name} {flags:?}: a batch changes bits");
    Ok(Reference { name, bits, bytes: held(&fleet).await?[0] })
}

async fn check(reference: &Reference, placement: Placement, flags: &[&str], tokens: u32) -> Result<Fleet> {
    let Reference { name, bits: wanted, bytes } = reference;
    let what = format!("{name} {flags:?} {placement:?}");
    let stages = placement.size() as u64;
    let fleet = Fleet::start(&Spec::new(path(name), placement).with(flags)).await.context(what.clone())?;
    let found = bits(&fleet, &expected(name)?.cases, tokens).await.context(what.clone())?;
    ensure!(found == *wanted, "{what}: other bits");
    let most = fleet.workers[0].metric("micro_batches{state=\"most\"}").await?;
    ensure!(most >= stages, "{what}: at most {most} steps were under way");
    let rows = fleet.workers[0].metric("stage_rows_total").await?;
    ensure!(rows > 0 && fleet.sum("stage_rows_total").await? == rows * (stages - 1), "{what}: rows were lost");
    let held = held(&fleet).await?;
    let sum: u64 = held.iter().sum();
    let tied = *name == "qwen3-tied";
    ensure!(sum == *bytes || tied && sum > *bytes, "{what}: stages hold {held:?} of {bytes} bytes");
    ensure!(held.iter().all(|one| one < bytes), "{what}: a stage holds all: {held:?} of {bytes} bytes");
    Ok(fleet)
}

/// A fixture's row of the page, which is written once every one of these has given the bits of one worker.
fn row(name: &str, placements: &[Placement]) -> String {
    let mut sizes: Vec<_> = placements.iter().map(|placement| placement.size().to_string()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    format!("| {name} | Pipeline | {} | {} | 0 |\n", sizes.join(", "), placements.len())
}

async fn every_pipeline_is_equal(numerics: &str) -> Result<()> {
    let mut references = Vec::new();
    for name in FIXTURES {
        references.push(reference(name, &[numerics], TOKENS).await?);
    }
    let flags = [numerics];
    let (mut runs, mut rows) = (Vec::new(), String::new());
    for reference in &references {
        let placements = placements(layers(reference.name)?)?;
        rows += &row(reference.name, &placements);
        for placement in placements {
            runs.push(check(reference, placement, &flags, TOKENS));
        }
    }
    let count = runs.len();
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(run) = runs.next().await {
        run?;
    }
    println!("{count} pipelines gave the bits of one worker with {numerics}");
    let head = "| fixture | strategy | workers | cuts | largest |\n|---|---|---|---|---|\n";
    page::check(&numerics.replace("--numerics=", "pipelines-"), &[head, &rows].concat());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pipeline_gives_the_bits_of_one_worker_with_exact_numerics() -> Result<()> {
    every_pipeline_is_equal("--numerics=exact").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pipeline_gives_the_bits_of_one_worker_with_a_bf16_cache() -> Result<()> {
    every_pipeline_is_equal("--numerics=default").await
}

/// Chunks of 7 tokens; then a cache of one context of 512, which the answers of the batch outgrow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_found_beginnings_and_sequences_put_back_change_no_bit_of_a_pipeline() -> Result<()> {
    const LONG: u32 = 150;
    let chunks = ["--context-tokens=512", "--step-tokens=7"];
    let tight = ["--context-tokens=512", "--step-tokens=7", "--kv-cache-tokens=512"];
    for name in ["v3-yarn", "qwen3-sparse", "gpt-oss-128"] {
        let roomy = reference(name, &["--context-tokens=512"], LONG).await?;
        for (stages, flags, counter) in [
            (4, &chunks[..], "prompt_tokens_cached_total"),
            (2, &tight, "preemptions_total"),
            (4, &tight, "preemptions_total"),
        ] {
            let fleet = check(&roomy, Placement::even_pipeline(layers(name)?, stages)?, flags, LONG).await?;
            ensure!(fleet.workers[0].metric(counter).await? > 0, "{name} {flags:?}: {counter} is 0");
        }
    }
    Ok(())
}
