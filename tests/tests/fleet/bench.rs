//! What `shoal-worker bench` measures is what clients are served: after every drawn token its logits are Generate's.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::ask::greedy;
use shoal_tests::fleet::bits::{TokenBits, of_answer};
use shoal_tests::fleet::fixture::path;
use shoal_worker::bench::{self, Bench, BenchArgs, Drawn};
use shoal_worker::engine::request::SampledToken;

use super::even;

const MODEL: &str = "v2-lite";

/// Three sequences over `shards`, past a block of the cache.
fn order(shards: &[&str]) -> Result<Bench> {
    let model = format!("--model={}", path(MODEL).display());
    let words = [&[&model, "--prefill=70", "--decode=6", "--batch=3", "--threads=2"], shards].concat();
    let mut bench = BenchArgs::parse_from_words(words.into_iter().map(ToOwned::to_owned))?.check()?;
    bench.top_logprobs = 20;
    Ok(bench)
}

fn bits(token: &SampledToken) -> TokenBits {
    let top = token.top.iter().map(|&(id, logprob)| (id, logprob.to_bits())).collect();
    (token.id, token.logprob.to_bits(), top)
}

#[tokio::test(flavor = "multi_thread")]
async fn logits_of_bench_are_those_of_generate() -> Result<()> {
    let fleet = Fleet::start(&even(MODEL, 1)?).await?;
    let pipeline = ["--shards=3", "--strategy=pipeline"];
    for shards in [&["--shards=1"][..], &["--shards=2"], &pipeline[..1], &pipeline] {
        let order = order(shards)?;
        let run = bench::run(&order, Instant::now()).await?.remove(0);
        let config = std::fs::read(path(MODEL).join("config.json"))?;
        let config: serde_json::Value = serde_json::from_slice(&config)?;
        let vocabulary = u32::try_from(config["vocab_size"].as_u64().context("a size")?)?;
        let drawn = Drawn::new(&order, 3, vocabulary);
        for (sequence, answer) in run.answers.iter().enumerate() {
            ensure!(answer.len() == 7, "{} tokens", answer.len());
            for (step, token) in answer.iter().enumerate() {
                let seen = [&drawn.prompts[sequence], &drawn.answers[sequence][..step]].concat();
                let said = of_answer(&fleet.workers[0].ask(greedy(&seen, 1)).await?).context("an answer failed")?;
                ensure!(said == [bits(token)], "{shards:?}: token {step} of sequence {sequence} differs");
            }
        }
    }
    Ok(())
}
