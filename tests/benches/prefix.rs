//! How long the first token takes when the beginning of a prompt is in the cache: `make bench-prefix`.
//!
//! In turns with each such request goes one that is only the rest of its prompt, over an empty context: what a hit takes
//! longer is attention over the keys that it found, and whatever finding them costs. How much of it is attention is told by
//! whole prompts of which nothing is in the cache, with the rest and without: the difference is the same rows over the same
//! keys. Run by hand: it takes some minutes of both cores; the worker is the release binary.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use shoal_proto::inference::GenerateRequest;
use shoal_proto::inference::inference_client::InferenceClient;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::{Open, greedy};
use shoal_tests::fleet::synthetic::Synthetic;
use shoal_tests::fleet::{Fleet, Spec};
use shoal_tests::paths::repository;
use tonic::transport::Channel;

/// Whole blocks of 64 tokens.
const PREFIX: usize = 16 * 64;
const SUFFIX: usize = 64;
/// Of a hit and its rest; the medians count.
const PAIRS: usize = 15;
/// Prompts of which nothing is in the cache, of each length.
const COLD: usize = 7;
/// Attention over the prefix is a fifth of the multiply-adds of a row's weights, as in DeepSeek-V2-Lite.
const MODEL: Synthetic = Synthetic { layers: 4, hidden: 2048, experts: 16, width: 576 };
/// Ids of the prompts, all in the vocabulary of [`MODEL`].
const IDS: std::ops::Range<u32> = 2..8192;

/// Seconds to first tokens.
#[derive(Default)]
struct Waits {
    /// Nothing in the cache: the whole prompt, and its beginning alone.
    cold: Vec<f64>,
    beginning: Vec<f64>,
    /// The rest alone, and the whole prompt with its beginning in the cache.
    rest: Vec<f64>,
    hit: Vec<f64>,
}

struct Asking {
    client: InferenceClient<Channel>,
    random: StdRng,
}

impl Asking {
    fn ids(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.random.random_range(IDS)).collect()
    }

    async fn wait(&self, prompt: &[u32]) -> Result<f64> {
        let request = GenerateRequest { top_logprobs: 0, ..greedy(prompt, 1) };
        let begun = Instant::now();
        let mut answer = Open::begin(self.client.clone(), request).await?;
        answer.read(1).await?;
        let seconds = begun.elapsed().as_secs_f64();
        answer.finish().await?;
        Ok(seconds)
    }

    async fn measure(&mut self) -> Result<Waits> {
        let (mut waits, mut prefix) = (Waits::default(), Vec::new());
        for _ in 0..COLD {
            let whole = self.ids(PREFIX + SUFFIX);
            waits.cold.push(self.wait(&whole).await?);
            prefix = self.ids(PREFIX);
            waits.beginning.push(self.wait(&prefix).await?);
        }
        // The first pair is a warm-up; who begins changes from pair to pair.
        for pair in 0..=PAIRS {
            let rest = self.ids(SUFFIX);
            let whole = [&prefix[..], &rest].concat();
            let (hit, alone) = if pair % 2 == 0 {
                let hit = self.wait(&whole).await?;
                (hit, self.wait(&rest).await?)
            } else {
                let alone = self.wait(&rest).await?;
                (self.wait(&whole).await?, alone)
            };
            if pair > 0 {
                waits.hit.push(hit);
                waits.rest.push(alone);
            }
        }
        Ok(waits)
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

#[tokio::main]
async fn main() -> Result<()> {
    let program = repository().join("target/release/shoal-worker");
    ensure!(program.exists(), "no {}: `make bench-prefix` builds it", program.display());
    let folder = tempfile::tempdir()?;
    MODEL.write(folder.path()).context("the model")?;
    println!(
        "| workers | {} cold | {PREFIX} cold | {SUFFIX} alone | {PREFIX} found, {SUFFIX} computed | ratio |",
        PREFIX + SUFFIX
    );
    println!("|---|---|---|---|---|---|");
    for shards in [1, 2] {
        let placement = Placement::even(u32::try_from(MODEL.experts)?, shards)?;
        let room = ["--context-tokens=2048", "--max-concurrent-sequences=8"];
        let spec = Spec::new(folder.path(), placement).with(&room).with_program(&program);
        let fleet = Fleet::start(&spec).await?;
        let first = &fleet.workers[0];
        let mut asking = Asking { client: first.client().await?, random: StdRng::seed_from_u64(1) };
        let waits = asking.measure().await?;
        let found = first.metric("prompt_tokens_cached_total").await?;
        ensure!(found == (PREFIX * (PAIRS + 1)) as u64, "{found} tokens were found in the cache");
        let Waits { cold, beginning, rest, hit } = waits;
        let [cold, beginning, rest, hit] = [cold, beginning, rest, hit].map(|waits| median(waits) * 1e3);
        println!("| {shards} | {cold:.0} ms | {beginning:.0} ms | {rest:.1} ms | {hit:.1} ms | {:.2} |", hit / rest);
    }
    Ok(())
}
