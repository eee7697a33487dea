//! Every split of every fixture gives the bits of one worker: greedy and seeded, alone and in a batch of 16, with exact
//! numerics and with BF16 KV.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use shoal_proto::inference::GenerateRequest;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::{greedy, seeded};
use shoal_tests::fleet::bits::{TokenBits, of_answer};
use shoal_tests::fleet::fixture::{Case, FIXTURES, expected, experts, path};
use shoal_tests::fleet::{Fleet, Spec};

use crate::page;

/// Fleets that run at once.
const AT_ONCE: usize = 3;
/// Tokens of each answer.
const TOKENS: u32 = 6;
/// Requests of a batch.
const BATCH: usize = 16;
/// How many of them are asked alone as well: one of 300 tokens among them.
const ALONE: usize = 5;

/// Even and uneven splits of `experts` over 2, 3 and 4 workers; some ranges are apart, one worker may own none.
fn placements(experts: u32) -> Result<Vec<Placement>> {
    let third = (experts / 3).max(3);
    let uneven = [
        vec![vec![0..experts - 3], vec![experts - 3..experts]],
        vec![vec![0..1, third..experts - 1], vec![1..third], vec![experts - 1..experts]],
        vec![vec![2..third], vec![], vec![0..2, third..experts - 1], vec![experts - 1..experts]],
    ];
    let even = (2..5).map(|size| Placement::even(experts, size));
    let uneven = uneven.into_iter().map(|shards| Placement::new(experts, shards));
    Ok(even.chain(uneven).collect::<Result<_, _>>()?)
}

/// Sixteen requests over prompts of 5 and 40 tokens and, twice, of 300; every other one seeded.
fn batch(cases: &[Case]) -> Vec<GenerateRequest> {
    let request = |index: usize| {
        let case = if index % 7 == 4 { 2 } else { index / 2 % 2 };
        let prompt = &cases[case].prompt;
        if index.is_multiple_of(2) { greedy(prompt, TOKENS) } else { seeded(prompt, TOKENS, index as u64) }
    };
    (0..BATCH).map(request).collect()
}

/// The bits of a batch spread over the ranks, then of its first requests alone on the last rank.
async fn bits(fleet: &Fleet, cases: &[Case]) -> Result<Vec<Vec<TokenBits>>> {
    let size = fleet.workers.len();
    let asked = batch(cases).into_iter().enumerate().map(|(index, request)| fleet.workers[index % size].ask(request));
    let mut answers = try_join_all(asked).await?;
    for request in batch(cases).into_iter().take(ALONE) {
        answers.push(fleet.workers[size - 1].ask(request).await?);
    }
    answers.iter().map(of_answer).collect::<Option<_>>().context("an answer failed")
}

/// What one worker says; alone and batched must agree already here.
async fn reference(name: &str, numerics: &str) -> Result<Vec<Vec<TokenBits>>> {
    let alone = Placement::even(experts(name)?, 1)?;
    let fleet = Fleet::start(&Spec::new(path(name), alone).with(&[numerics])).await?;
    let bits = bits(&fleet, &expected(name)?.cases).await?;
    ensure!(bits[..ALONE] == bits[BATCH..], "{name} {numerics}: a batch changes bits");
    Ok(bits)
}

/// 0 when every bit is the same; infinite when other tokens were drawn or are among the likeliest.
fn worst(found: &[Vec<TokenBits>], reference: &[Vec<TokenBits>]) -> f32 {
    if found == reference {
        return 0.0;
    }
    let tops = |all: &[Vec<TokenBits>]| all.concat().into_iter().flat_map(|(.., top)| top).collect::<Vec<_>>();
    let (found, reference) = (tops(found), tops(reference));
    let off = found.iter().zip(&reference).map(|((id, a), (same, b))| {
        if id == same { (f32::from_bits(*a) - f32::from_bits(*b)).abs() } else { f32::INFINITY }
    });
    off.fold(f32::MIN_POSITIVE, f32::max)
}

async fn check(name: &str, numerics: &str, placement: Placement, reference: &[Vec<TokenBits>]) -> Result<f32> {
    let what = format!("{name} {numerics} {placement:?}");
    let fleet = Fleet::start(&Spec::new(path(name), placement).with(&[numerics])).await.context(what.clone())?;
    let found = bits(&fleet, &expected(name)?.cases).await.context(what.clone())?;
    let off = worst(&found, reference);
    ensure!(off == 0.0, "{what}: other bits, off by {off:.1e}");
    let remote = fleet.sum(r#"place="remote""#).await?;
    let local = fleet.sum(r#"place="local""#).await?;
    ensure!(remote * 10 >= (remote + local) * 3, "{what}: only {remote} of {} pairs were remote", remote + local);
    ensure!(remote == fleet.sum(r#"place="served""#).await?, "{what}: pairs served are not those asked for");
    Ok(off)
}

/// A strategy's row of the page for a fixture, by what was found of each of its splits.
fn row(name: &str, strategy: &str, splits: &[(Placement, f32)]) -> String {
    let mut sizes: Vec<_> = splits.iter().map(|(placement, _)| placement.size().to_string()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let off = splits.iter().map(|(_, off)| *off).fold(0.0, f32::max);
    let (sizes, count) = (sizes.join(", "), splits.len());
    let off = page::up(off);
    format!("| {name} | {strategy} | {sizes} | {count} | {off} |\n")
}

async fn every_split_is_equal(numerics: &str) -> Result<()> {
    let mut references = Vec::new();
    for name in FIXTURES {
        references.push((name, reference(name, numerics).await?));
    }
    let mut runs = Vec::new();
    for (name, reference) in &references {
        for placement in placements(experts(name)?)? {
            let check = check(name, numerics, placement.clone(), reference);
            runs.push(async move { Ok::<_, anyhow::Error>((*name, (placement, check.await?))) });
        }
    }
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    let mut found: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    while let Some(run) = runs.next().await {
        let (name, split) = run?;
        found.entry(name).or_default().push(split);
    }
    // A row per fixture and strategy; those of another strategy follow each.
    let rows = FIXTURES.map(|name| row(name, "Experts", &found[name]));
    let head = "| fixture | strategy | workers | splits | largest |\n|---|---|---|---|---|\n";
    let section = numerics.replace("--numerics=", "strategies-");
    page::check(&section, &[head, &rows.concat()].concat());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_split_gives_the_bits_of_one_worker_with_exact_numerics() -> Result<()> {
    every_split_is_equal("--numerics=exact").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_split_gives_the_bits_of_one_worker_with_a_bf16_cache() -> Result<()> {
    every_split_is_equal("--numerics=default").await
}
