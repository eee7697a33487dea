//! Random orders of our writes, their answers, a watch that lags, lists under way and what others do meanwhile. Of what is
//! on the server no pod of ours is ever missing from the shelf, no deletion is taken back, and in the end both agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::json;

use super::super::{ModelKey, PodView};
use super::Shelf;
use crate::controller::rollout::Shard;

const ORDERS: u32 = 2_000;
/// On average.
const TURNS: usize = 100;
const NAMES: usize = 4;
const UNSEEN: Duration = Duration::from_secs(60);
/// What must happen in at least a twentieth of the orders.
const KINDS: [&str; 7] =
    ["answer after its event", "list under way", "overdue", "made anew", "moved", "lag", "gone unasked"];

#[derive(Clone, Copy, Debug)]
enum Turn {
    /// A POST of ours, or a DELETE, reaches the server.
    Make(usize),
    End(usize),
    /// The oldest answer that is due reaches us.
    Answer,
    /// The kubelet, or somebody else: at once gone, or given to another model and back.
    Vanish(usize),
    Move(usize),
    /// The watch shows so many events.
    Show(usize),
    /// A list begins, is answered, ends.
    List,
    Wait(u64),
    /// The server is asked for what is overdue.
    Ask,
}

#[derive(Clone, Debug)]
struct Stored {
    uid: u32,
    version: u64,
    ending: bool,
    ours: bool,
}

enum Listing {
    None,
    Begun,
    Answered,
}

struct World {
    shelf: Shelf<PodView>,
    key: ModelKey,
    now: Instant,
    version: u64,
    pods: BTreeMap<usize, Stored>,
    log: Vec<Event<PodView>>,
    shown: usize,
    listing: Listing,
    answers: Vec<PodView>,
    /// Pods whose creation was answered, and pods that others moved: what the watch tells of those comes late.
    told: BTreeSet<String>,
    moved: BTreeSet<String>,
    /// What the server denied before a watch that far behind had shown its end: the watch brings it back for a while.
    denied: BTreeSet<String>,
    seen: Vec<&'static str>,
}

fn view(name: usize, stored: &Stored) -> PodView {
    let model = if stored.ours { "m" } else { "other" };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": format!("pod-{name}"), "namespace": "n", "uid": format!("uid-{}", stored.uid),
            "resourceVersion": stored.version.to_string(), "labels": {"inference.shoal.dev/model": model},
            "deletionTimestamp": stored.ending.then_some("2026-01-01T00:00:00Z")}
    }))
    .unwrap();
    PodView::from(pod)
}

fn is_named(event: &Event<PodView>, name: usize) -> bool {
    matches!(event, Event::Apply(pod) if pod.meta.name == Some(format!("pod-{name}")))
}

impl World {
    fn new() -> Self {
        let key = ModelKey { namespace: "n".into(), name: "m".into() };
        let mut world = Self {
            shelf: Shelf::new(UNSEEN),
            key,
            now: Instant::now(),
            version: 0,
            pods: BTreeMap::new(),
            log: vec![],
            shown: 0,
            listing: Listing::None,
            answers: vec![],
            told: BTreeSet::new(),
            moved: BTreeSet::new(),
            denied: BTreeSet::new(),
            seen: vec![],
        };
        (0..3).for_each(|_| world.list());
        world.seen.clear();
        world
    }

    fn write(&mut self, name: usize, change: impl FnOnce(&mut Stored)) -> Option<PodView> {
        let stored = self.pods.get_mut(&name)?;
        self.version += 1;
        stored.version = self.version;
        change(stored);
        let view = view(name, stored);
        self.log.push(Event::Apply(view.clone()));
        Some(view)
    }

    fn play(&mut self, turn: Turn) {
        match turn {
            Turn::Make(name) if !self.pods.contains_key(&name) => {
                let anew = self.log.iter().any(|event| is_named(event, name));
                // A name that comes back while a list is under way is not asked for: pods never take one twice.
                if anew && !matches!(self.listing, Listing::None) {
                    return;
                }
                if anew {
                    self.seen.push("made anew");
                }
                let uid = u32::try_from(self.version).unwrap();
                self.pods.insert(name, Stored { uid, version: 0, ending: false, ours: true });
                let answer = self.write(name, |_| ());
                self.answers.extend(answer);
            }
            Turn::End(name) if self.pods.get(&name).is_some_and(|pod| !pod.ending) => {
                let answer = self.write(name, |pod| pod.ending = true);
                self.answers.extend(answer);
            }
            Turn::Answer if !self.answers.is_empty() => self.answer(),
            Turn::Vanish(name) => {
                if let Some(mut stored) = self.pods.remove(&name) {
                    self.version += 1;
                    stored.version = self.version;
                    if !stored.ending {
                        self.seen.push("gone unasked");
                    }
                    self.log.push(Event::Delete(view(name, &stored)));
                }
            }
            Turn::Move(name) => {
                if let Some(pod) = self.write(name, |pod| pod.ours = !pod.ours) {
                    self.seen.push("moved");
                    self.moved.extend(pod.meta.uid);
                }
            }
            Turn::Show(count) if matches!(self.listing, Listing::None) => self.show(count),
            Turn::List => self.list(),
            Turn::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Turn::Ask => self.ask(),
            _ => {}
        }
        if self.log.len() - self.shown > 8 {
            self.seen.push("lag");
        }
    }

    /// As the operator notes what a write returned.
    fn answer(&mut self) {
        let pod = self.answers.remove(0);
        let shown =
            self.log[..self.shown].iter().any(|event| matches!(event, Event::Apply(shown) if shown.meta == pod.meta));
        if shown {
            self.seen.push("answer after its event");
        }
        if pod.shard == Shard::Terminating {
            self.shelf.note_ending(pod, self.now);
        } else {
            self.told.extend(pod.meta.uid.clone());
            self.shelf.note(pod, self.now);
        }
    }

    fn show(&mut self, count: usize) {
        for event in self.log[self.shown..].iter().take(count).cloned() {
            self.shelf.take(event, self.now);
            self.shown += 1;
        }
    }

    fn list(&mut self) {
        self.seen.push("list under way");
        self.listing = match self.listing {
            Listing::None => {
                self.shelf.take(Event::Init, self.now);
                Listing::Begun
            }
            Listing::Begun => {
                for (name, stored) in &self.pods {
                    self.shelf.take(Event::InitApply(view(*name, stored)), self.now);
                }
                self.shown = self.log.len();
                Listing::Answered
            }
            Listing::Answered => {
                self.shelf.take(Event::InitDone, self.now);
                Listing::None
            }
        };
    }

    fn ask(&mut self) {
        for asked in self.shelf.overdue(&self.key, self.now) {
            self.seen.push("overdue");
            let there = self.pods.iter().map(|(name, stored)| view(*name, stored));
            let there = there.into_iter().find(|pod| pod.meta.name == asked.meta.name);
            if there.is_none() {
                self.denied.extend(asked.meta.uid.clone());
            }
            self.shelf.settle(&asked, there, self.now);
        }
    }

    /// Name, uid and whether it ends, of what the shelf knows.
    fn known(&self) -> Vec<(String, String, bool)> {
        let (of, overdue) = (self.shelf.of(&self.key, self.now), self.shelf.overdue(&self.key, self.now));
        let known =
            |pod: &PodView| (pod.meta.name.clone().unwrap(), pod.meta.uid.clone().unwrap(), pod.shard.is_ending());
        let mut all: Vec<_> = of.iter().chain(&overdue).map(|pod| known(pod)).collect();
        all.sort_unstable();
        all
    }

    fn stored(&self) -> Vec<(String, String, bool)> {
        let ours = self.pods.iter().filter(|(_, stored)| stored.ours);
        ours.map(|(name, stored)| (format!("pod-{name}"), format!("uid-{}", stored.uid), stored.ending)).collect()
    }
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let name = 0..NAMES;
    let turn = prop_oneof![
        6 => name.clone().prop_map(Turn::Make),
        3 => name.clone().prop_map(Turn::End),
        8 => Just(Turn::Answer),
        2 => name.clone().prop_map(Turn::Vanish),
        1 => name.prop_map(Turn::Move),
        4 => (1..4_usize).prop_map(Turn::Show),
        2 => Just(Turn::List),
        2 => (1..50_u64).prop_map(Turn::Wait),
        2 => Just(Turn::Ask),
    ];
    prop::collection::vec(turn, 0..2 * TURNS)
}

fn check(turns: Vec<Turn>) -> Result<Vec<&'static str>, TestCaseError> {
    let mut world = World::new();
    let mut ended: Vec<(String, String)> = Vec::new();
    for (index, turn) in turns.into_iter().enumerate() {
        world.play(turn);
        let known = world.known();
        for (name, uid, _) in world.stored() {
            let told = world.told.contains(&uid) && !world.moved.contains(&uid);
            let there = known.iter().any(|(other, same, _)| (other, same) == (&name, &uid));
            prop_assert!(there || !told, "after turn {index}, {turn:?}, {name} {uid} is missing: {known:?}");
        }
        for (name, uid, ending) in
            known.into_iter().filter(|(_, uid, _)| !world.moved.contains(uid) && !world.denied.contains(uid))
        {
            let one = (name, uid);
            prop_assert!(ending || !ended.contains(&one), "after turn {index}, {turn:?}, {one:?} is alive again");
            if ending {
                ended.push(one);
            }
        }
    }
    while !matches!(world.listing, Listing::None) {
        world.list();
    }
    (0..world.answers.len()).for_each(|_| world.answer());
    world.show(usize::MAX);
    world.now += UNSEEN;
    world.ask();
    prop_assert_eq!(world.known(), world.stored());
    Ok(world.seen)
}

#[test]
fn however_answers_events_and_lists_cross_no_pod_of_ours_is_missed_and_none_that_ended_lives() {
    let config = Config { cases: ORDERS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &[7; 16]));
    let tally: Mutex<BTreeMap<&str, u32>> = Mutex::default();
    let result = runner.run(&turns(), |turns| {
        let mut seen = check(turns)?;
        seen.sort_unstable();
        seen.dedup();
        for kind in seen {
            *tally.lock().unwrap().entry(kind).or_default() += 1;
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error:?}"));
    let tally = tally.into_inner().unwrap();
    println!("of {ORDERS} orders: {tally:?}");
    let rare: Vec<_> = KINDS.iter().filter(|kind| tally.get(*kind).copied().unwrap_or(0) * 20 < ORDERS).collect();
    assert_eq!(rare, Vec::<&&str>::new(), "{tally:?}");
}
