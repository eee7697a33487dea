//! Every pipeline over every fixture gives the bits of one worker: even and uneven, greedy and seeded, alone and in a batch
//! of 16; and as many steps are under way as there are stages.

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use shoal_proto::placement::Placement;
use shoal_tests::fleet::Fleet;
use shoal_tests::fleet::fixture::{FIXTURES, layers};

use crate::equal::{Reference, held, row};
use crate::page;

/// Fleets that run at once.
const AT_ONCE: usize = 3;
/// Tokens of each answer.
const TOKENS: u32 = 8;

/// Even and uneven stages over 2, 3 and 4 workers, as far as there are layers.
pub(crate) fn placements(layers: u32) -> Result<Vec<Placement>> {
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

/// The group, once it has given the bits of one worker, with as many steps under way as stages and no layer held twice.
pub(crate) async fn check(reference: &Reference, placement: Placement, flags: &[&str]) -> Result<Fleet> {
    let Reference { name, bytes, .. } = reference;
    let what = format!("{name} {flags:?} {placement:?}");
    let stages = placement.size() as u64;
    let fleet = reference.compare(placement, flags).await.context(what.clone())?;
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

async fn every_pipeline_is_equal(numerics: &str) -> Result<()> {
    let flags = [numerics];
    let mut references = Vec::new();
    for name in FIXTURES {
        references.push(Reference::of(name, &flags, TOKENS).await?);
    }
    let (mut runs, mut rows) = (Vec::new(), String::new());
    for reference in &references {
        let placements = placements(layers(reference.name)?)?;
        rows += &row(reference.name, "Pipeline", &placements);
        runs.extend(placements.into_iter().map(|placement| check(reference, placement, &flags)));
    }
    let count = runs.len();
    let runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    runs.try_for_each(|_| async { Ok(()) }).await?;
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
