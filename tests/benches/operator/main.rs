//! The operator beside a dumb client that makes the same objects, on the control plane of the tests: `make bench-operator`.
//!
//! Run by hand: it takes minutes of both cores. Prints one table and writes `target/bench/operator.json`. Cases run one
//! after the other (`--test-threads=1`). `SHOAL_BENCH_GROUPS` (500) sizes them; the operator is the release binary.

mod floor;
mod served;
mod shoal;
mod table;

use std::process::ExitCode;

use shoal_tests::inside::{World, main as run};
use shoal_tests::tests;

/// Groups of two shards.
fn groups() -> usize {
    std::env::var("SHOAL_BENCH_GROUPS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

fn main() -> anyhow::Result<ExitCode> {
    run(
        World::ControlPlane,
        tests![
            floor::many_objects,
            shoal::many_objects,
            floor::one_object,
            shoal::one_object,
            shoal::ten_pods,
            table::print,
        ],
    )
}
