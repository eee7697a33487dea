//! Chunks of 7 tokens, beginnings found in the cache and sequences put back change no bit of any split, of experts or of
//! layers. Counters tell that all of it happened.

use anyhow::{Context as _, Result, ensure};
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::fixture::{experts, layers};

use crate::equal::Reference;
use crate::{pipelines, splits};

const FIXTURES: [&str; 3] = ["v3-yarn", "qwen3-sparse", "gpt-oss-128"];
/// Tokens of each answer: sixteen of these outgrow the caches below, also when four shards share them.
const TOKENS: u32 = 150;
/// Every answer fits with room to spare; prompts are computed whole.
const ROOMY: [&str; 1] = ["--context-tokens=512"];
/// A cache of one context a shard.
const TIGHT: [&str; 3] = ["--context-tokens=512", "--step-tokens=7", "--kv-cache-tokens=512"];

/// What happened to a group beside its answers.
async fn check(fleet: &Fleet, what: &str) -> Result<()> {
    let (mut found, mut put_back) = (0, 0);
    for door in fleet.doors() {
        found += door.metric("prompt_tokens_cached_total").await?;
        put_back += door.metric("preemptions_total").await?;
    }
    println!("{what}: {found} prompt tokens found in the cache, {put_back} sequences put back");
    ensure!(found > 0 && put_back > 0, "{what}: nothing was forced");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_found_beginnings_and_sequences_put_back_change_no_bit_of_a_split() -> Result<()> {
    for name in FIXTURES {
        let roomy = Reference::of(name, &ROOMY, TOKENS).await?;
        let placements = splits::placements(experts(name)?)?;
        // All on one family; on the others what cuts most: four workers evenly, and four of which one owns nothing.
        let chosen = if name == FIXTURES[0] { &[0, 1, 2, 3, 4, 5][..] } else { &[2, 5] };
        for placement in chosen.iter().map(|&index| placements[index].clone()) {
            let what = format!("{name} {placement:?}");
            let fleet = splits::check(&roomy, placement, &TIGHT).await?;
            check(&fleet, &what).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_found_beginnings_and_sequences_put_back_change_no_bit_of_a_pipeline() -> Result<()> {
    for name in FIXTURES {
        let roomy = Reference::of(name, &ROOMY, TOKENS).await?;
        let placements = pipelines::placements(layers(name)?)?;
        // Even over 2 and 4 workers, uneven over 3.
        let uneven = placements.iter().rfind(|placement| placement.size() == 3).context("three stages")?;
        for placement in [&placements[0], &placements[2], uneven] {
            let what = format!("{name} {placement:?}");
            let fleet = pipelines::check(&roomy, placement.clone(), &TIGHT).await?;
            check(&fleet, &what).await?;
        }
    }
    Ok(())
}
