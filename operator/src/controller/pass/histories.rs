//! Random histories of a whole deployment: edits, losses, full nodes, dying nodes and operators that die between any
//! two writes. Whole passes against a simulated API server, scheduler and kubelet; the status goes through JSON.
//!
//! `SHOAL_HISTORIES` sets how many (10,000), `SHOAL_SEED` which.

mod events;
mod operator;
mod play;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use self::world::World;

/// How many histories each kind of happening occurred in.
#[derive(Default)]
struct Tally {
    histories: usize,
    events: usize,
    kinds: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn add(&mut self, events: usize, world: &World) {
        self.histories += 1;
        self.events += events;
        for kind in &world.seen {
            *self.kinds.entry(kind).or_default() += 1;
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Plays `count` histories; the first that breaks a rule is shrunk and told.
fn play(count: u64, seed: u64, tally: &Mutex<Tally>) {
    let cases = u32::try_from(count).unwrap();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 600, ..Config::default() };
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &bytes));
    let result = runner.run(&events::histories(), |events| {
        let mut world = World::new();
        let told = world.play(&events);
        tally.lock().unwrap().add(events.len(), &world);
        told.map_err(|problem| TestCaseError::fail(format!("{problem}\n{}", world.lines.join("\n"))))
    });
    result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

#[test]
fn whatever_happens_budgets_hold_epochs_rise_no_work_is_done_twice_and_it_converges() {
    let (count, seed) = (number("SHOAL_HISTORIES", 10_000), number("SHOAL_SEED", 1));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let tally = &tally;
            scope.spawn(move || play(count.div_ceil(threads), seed * 1000 + thread, tally));
        }
    });
    let Tally { histories, events, kinds } = tally.into_inner().unwrap();
    println!(
        "{histories} histories of {:.1} happenings each; share of histories in which each kind occurred:",
        events as f64 / histories as f64
    );
    for (kind, n) in &kinds {
        println!("{:6.1} % {kind}", *n as f64 * 100.0 / histories as f64);
    }
    assert!(events >= 30 * histories, "histories are too short");
    let rare: Vec<_> =
        world::KINDS.iter().filter(|kind| kinds.get(*kind).copied().unwrap_or(0) * 20 < histories).collect();
    assert!(rare.is_empty(), "in less than 5 % of histories: {rare:?}");
}
