//! Fleets of real worker processes: parity with transformers, equality of every split, of experts and of layers, what a
//! shard reads and holds, loss, drain, sabotage, refusals.

#[path = "fleet/bench.rs"]
mod bench;
#[path = "fleet/drain.rs"]
mod drain;
#[path = "fleet/equal.rs"]
mod equal;
#[path = "fleet/forced.rs"]
mod forced;
#[path = "fleet/loss.rs"]
mod loss;
#[path = "fleet/memory.rs"]
mod memory;
#[path = "fleet/owned.rs"]
mod owned;
#[path = "../../worker/tests/common/page.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod page;
#[path = "fleet/parity.rs"]
mod parity;
#[path = "fleet/pipelines.rs"]
mod pipelines;
#[path = "fleet/refusals.rs"]
mod refusals;
#[path = "fleet/sabotage.rs"]
mod sabotage;
#[path = "fleet/splits.rs"]
mod splits;
#[path = "fleet/stages.rs"]
mod stages;
#[path = "fleet/streams.rs"]
mod streams;
#[path = "fleet/sums.rs"]
mod sums;
#[path = "fleet/tls.rs"]
mod tls;

use anyhow::Result;
use shoal_proto::placement::Placement;
use shoal_tests::fleet::ask::{Answer, greedy};
use shoal_tests::fleet::fixture::{Case, experts, path};
use shoal_tests::fleet::{Fleet, Spec, Worker};

/// A group of `size` over a fixture, split evenly.
fn even(name: &str, size: usize) -> Result<Spec> {
    Ok(Spec::new(path(name), Placement::even(experts(name)?, size)?))
}

/// The answers of one worker to the prompts of a fixture, one after another.
async fn answers(worker: &Worker, cases: &[Case]) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for case in cases {
        let tokens = u32::try_from(case.tokens.len())?;
        answers.push(worker.ask(greedy(&case.prompt, tokens)).await?);
    }
    Ok(answers)
}

/// Starts a fleet and asks its first worker the prompts of a fixture.
async fn answers_of(spec: &Spec, cases: &[Case]) -> Result<Vec<Answer>> {
    let fleet = Fleet::start(spec).await?;
    answers(&fleet.workers[0], cases).await
}
