//! One worker against transformers, through gRPC: whole prompts and chunks of 7, on the CPU backend and the strict one.

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use shoal_tests::fleet::bits::of_answer;
use shoal_tests::fleet::fixture::{FIXTURES, distance, expected};

use crate::{answers_of, even};

/// Fleets that run at once.
const AT_ONCE: usize = 2;

/// Distance of a fixture's answers, and whether chunks and the strict backend give the same bits.
async fn compare(name: &str) -> Result<()> {
    let cases = expected(name)?.cases;
    let whole = answers_of(&even(name, 1)?.with(&["--backend=cpu"]), &cases).await?;
    let found = distance(&cases, &whole);
    println!("{name}: mean {:.1e}, max {:.1e}, {} positions", found.mean, found.max, found.positions);
    ensure!(found.is_within_bounds(), "{name}: {found:?}");
    let bits: Vec<_> = whole.iter().map(of_answer).collect();
    ensure!(bits.iter().all(Option::is_some), "{name}: an answer failed");
    for flags in
        [&["--backend=cpu", "--step-tokens=7"][..], &["--backend=strict"], &["--backend=strict", "--step-tokens=7"]]
    {
        let other = answers_of(&even(name, 1)?.with(flags), &cases).await?;
        ensure!(other.iter().map(of_answer).collect::<Vec<_>>() == bits, "{name}: other bits with {flags:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fixture_answers_as_transformers_does_whole_and_in_chunks_on_both_backends() -> Result<()> {
    let mut runs = futures::stream::iter(FIXTURES).map(compare).buffer_unordered(AT_ONCE);
    while let Some(run) = runs.next().await {
        run?;
    }
    Ok(())
}
