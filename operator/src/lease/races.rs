//! Random schedules of three candidates on skewed clocks against one server: requests that land late or never answer,
//! candidates that sleep, die, give the lease back or are cut off. Never do two of them lead at one moment.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::elector::{Elector, Wish};
use crate::timing::Timing;

/// Schedules, and turns in each.
const SCHEDULES: u32 = 2_000;
const TURNS: usize = 150;
/// What must happen in at least a twentieth of the schedules.
const KINDS: [&str; 7] = ["taken over", "refused", "landed late", "unanswered", "died", "given back", "slept"];

/// One turn: who, after how many milliseconds, and what becomes of it.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// The candidate does the next thing of its loop.
    Step(usize),
    /// Its request reaches the server.
    Land(usize),
    /// It waits no longer for the answer.
    GiveUp(usize),
    /// Nobody does anything for most of a lease.
    Sleep,
    /// It is killed, and comes back under another name.
    Die(usize),
    /// It gives the lease back, and ends.
    Release(usize),
}

#[derive(Clone, Debug)]
enum Doing {
    Idle,
    /// The server has answered a read with this.
    Reads(Option<Lease>),
    /// Under way to the server since then.
    Sends(Lease, Instant),
    /// The server has answered a write: what it stored, or a conflict.
    Wrote(Option<Lease>, Instant),
}

struct Candidate {
    elector: Elector,
    doing: Doing,
    skew: SignedDuration,
}

struct World {
    start: Instant,
    now: Instant,
    lease: Option<Lease>,
    version: u64,
    candidates: Vec<Candidate>,
    /// Requests of the dead and of those who gave up: they may land yet.
    strays: Vec<Lease>,
    names: usize,
    seen: Vec<&'static str>,
}

impl World {
    fn new(skews: [i64; 3]) -> Self {
        let start = Instant::now();
        let (lease, candidates, strays, seen) = (None, Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { start, now: start, lease, version: 0, candidates, strays, names: 0, seen };
        for seconds in skews {
            let elector = world.elector();
            world.candidates.push(Candidate { elector, doing: Doing::Idle, skew: SignedDuration::from_secs(seconds) });
        }
        world
    }

    fn elector(&mut self) -> Elector {
        self.names += 1;
        Elector::new(format!("candidate-{}", self.names), Timing::default())
    }

    fn store(&mut self, mut lease: Lease) -> Option<Lease> {
        let current = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if lease.metadata.resource_version != current {
            self.seen.push("refused");
            return None;
        }
        let holder =
            |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let before = self.lease.as_ref().map(holder).unwrap_or_default();
        if !before.is_empty() && before != holder(&lease) && !holder(&lease).is_empty() {
            self.seen.push("taken over");
        }
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Some(lease)
    }

    fn play(&mut self, turn: Turn, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        match turn {
            Turn::Step(who) => self.step(who),
            Turn::Land(who) => {
                if let Doing::Sends(lease, sent) = self.candidates[who].doing.clone() {
                    let stored = self.store(lease);
                    self.candidates[who].doing = Doing::Wrote(stored, sent);
                } else if let Some(stray) = self.strays.pop() {
                    self.seen.push("landed late");
                    self.store(stray);
                }
            }
            Turn::GiveUp(who) => {
                if let Doing::Sends(lease, _) = std::mem::replace(&mut self.candidates[who].doing, Doing::Idle) {
                    self.seen.push("unanswered");
                    self.strays.push(lease);
                }
            }
            Turn::Sleep => {
                self.seen.push("slept");
                self.now += Timing::default().lease.mul_f64(0.7);
            }
            Turn::Die(who) => {
                self.seen.push("died");
                self.end(who);
            }
            Turn::Release(who) => {
                let given_back = self.candidates[who].elector.release(self.wall(who));
                if let Some(lease) = given_back.filter(|_| self.candidates[who].elector.leads(self.now)) {
                    self.seen.push("given back");
                    self.store(lease);
                    self.end(who);
                }
            }
        }
    }

    fn end(&mut self, who: usize) {
        if let Doing::Sends(lease, _) = std::mem::replace(&mut self.candidates[who].doing, Doing::Idle) {
            self.strays.push(lease);
        }
        self.candidates[who].elector = self.elector();
    }

    /// As [`super::try_once`], cut where it waits for the server.
    fn step(&mut self, who: usize) {
        let (now, wall) = (self.now, self.wall(who));
        let candidate = &mut self.candidates[who];
        let elector = &mut candidate.elector;
        candidate.doing = match std::mem::replace(&mut candidate.doing, Doing::Idle) {
            Doing::Idle if !elector.may_skip_reading(now) => Doing::Reads(self.lease.clone()),
            doing @ (Doing::Idle | Doing::Reads(_)) => {
                if let Doing::Reads(lease) = doing {
                    elector.read(lease, now);
                }
                match elector.wish("l", now, wall) {
                    Wish::Nothing => Doing::Idle,
                    Wish::Create(lease) | Wish::Replace(lease) => Doing::Sends(lease, now),
                }
            }
            Doing::Wrote(Some(lease), sent) => {
                elector.wrote(lease, sent);
                Doing::Idle
            }
            Doing::Wrote(None, _) => {
                elector.refused();
                Doing::Idle
            }
            doing @ Doing::Sends(..) => doing,
        };
    }

    fn wall(&self, who: usize) -> Timestamp {
        Timestamp::UNIX_EPOCH
            + SignedDuration::from_secs(1_000_000)
            + (self.now - self.start)
            + self.candidates[who].skew
    }

    fn leaders(&self) -> usize {
        self.candidates.iter().filter(|candidate| candidate.elector.leads(self.now)).count()
    }
}

fn turns() -> impl Strategy<Value = Vec<(Turn, u64)>> {
    let who = 0..3_usize;
    let turn = prop_oneof![
        30 => who.clone().prop_map(Turn::Step),
        20 => who.clone().prop_map(Turn::Land),
        1 => who.clone().prop_map(Turn::GiveUp),
        1 => Just(Turn::Sleep),
        1 => who.clone().prop_map(Turn::Die),
        1 => who.prop_map(Turn::Release),
    ];
    prop::collection::vec((turn, prop_oneof![4 => 0..50_u64, 2 => 0..1_500_u64, 1 => 0..6_000_u64]), TURNS)
}

#[test]
fn whatever_the_clocks_and_the_network_do_two_never_lead_at_once() {
    let config = Config { cases: SCHEDULES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]));
    let tally: Mutex<BTreeMap<&str, u32>> = Mutex::default();
    let result = runner.run(&([-30..=30_i64, -30..=30, -30..=30], turns()), |(skews, turns)| {
        let mut world = World::new(skews);
        for (index, (turn, milliseconds)) in turns.into_iter().enumerate() {
            world.play(turn, milliseconds);
            let leaders = world.leaders();
            prop_assert!(leaders < 2, "after turn {index}, {turn:?}, {leaders} lead");
        }
        world.seen.sort_unstable();
        world.seen.dedup();
        for kind in &world.seen {
            *tally.lock().unwrap().entry(kind).or_default() += 1;
        }
        Ok::<(), TestCaseError>(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let tally = tally.into_inner().unwrap();
    println!("of {SCHEDULES} schedules: {tally:?}");
    for kind in KINDS {
        assert!(tally.get(kind).copied().unwrap_or(0) * 20 >= SCHEDULES, "{kind} is rare: {tally:?}");
    }
}
