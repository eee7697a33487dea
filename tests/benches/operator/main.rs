//! The operator beside a dumb client that makes the same objects and beside LeaderWorkerSet, on the control plane of the
//! tests: `make bench-operator`.
//!
//! Run by hand: it takes minutes of both cores. Prints one table and writes `target/bench/operator.json`. Cases run one
//! after the other (`--test-threads=1`). `SHOAL_BENCH_GROUPS` (500) sizes them, `SHOAL_BENCH_FLEET` (1,000) and
//! `SHOAL_BENCH_FOREIGN` (50,000) the one of a large fleet; the operator is the release binary.

mod fleet;
mod floor;
mod lws;
mod served;
mod shoal;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use shoal_tests::inside::{World, main_within as run};
use shoal_tests::tests;

/// What a case may take: tens of thousands of pods are made one by one.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Groups of two shards.
fn groups() -> usize {
    size("SHOAL_BENCH_GROUPS", 500)
}

fn size(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() -> anyhow::Result<ExitCode> {
    run(
        DEADLINE,
        World::ControlPlane,
        tests![
            floor::many_objects,
            shoal::many_objects,
            lws::many_objects,
            floor::many_with_a_service_each,
            floor::one_object,
            shoal::one_object,
            shoal::ten_pods,
            fleet::large_fleet,
            table::print,
        ],
        Vec::new(),
    )
}
