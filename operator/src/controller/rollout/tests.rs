//! Whole sequences, printed: a line per pass, what stands and what is decided.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;
use crate::controller::recover::{Backoff, later};

/// A world that carries out steps at once and lets a test say what happens to groups.
struct Sim {
    observed: Observed,
    target: Target,
    budget: Budget,
    now: Timestamp,
    lines: Vec<String>,
}

impl Sim {
    fn new(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let backoff = Backoff {
            first: Duration::from_secs(10),
            cap: Duration::from_secs(300),
            healthy: Duration::from_secs(600),
        };
        Self {
            observed: Observed::default(),
            target: Target { revision: "A".into(), replicas, shards: 2, serving: None },
            budget: Budget {
                max_surge: surge,
                max_unavailable: unavailable,
                min_ready: Duration::from_secs(5),
                startup: Duration::from_secs(600),
                backoff,
            },
            now: Timestamp::UNIX_EPOCH,
            lines: Vec::new(),
        }
    }

    /// A settled deployment of revision A.
    fn settled(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let mut sim = Self::new(replicas, surge, unavailable);
        sim.pass();
        sim.all_ready();
        sim.wait(5);
        sim.target.serving = Some("A".into());
        sim.lines.clear();
        sim
    }

    fn pass(&mut self) -> Decision {
        let decision = step(&self.observed, &self.target, &self.budget, self.now);
        let steps = decision.steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.lines.push(format!("{:30} | {steps}", self.picture()));
        let mut removed: Vec<Group> = Vec::new();
        for group in &self.observed.groups {
            if !decision.groups.iter().any(|kept| (kept.index, kept.epoch) == (group.index, group.epoch)) {
                let shards = vec![Shard::Terminating; group.shards.len()];
                removed.push(Group { known: Known::Removed, shards, ..group.clone() });
            }
        }
        self.observed.groups = decision.groups.clone();
        for group in &mut self.observed.groups {
            if !group.shards.contains(&Shard::Missing) {
                group.known = Known::Formed;
                group.created.get_or_insert(self.now);
            }
        }
        self.observed.groups.append(&mut removed);
        self.observed.recovery.clone_from(&decision.recovery);
        decision
    }

    fn picture(&self) -> String {
        let mut groups: Vec<_> = self.observed.groups.iter().collect();
        groups.sort_by_key(|group| (group.index, group.epoch));
        let word = |shards: &[Shard]| -> char {
            if shards.iter().all(|s| matches!(s, Shard::Ready(_))) {
                '+'
            } else if shards.contains(&Shard::Terminating) {
                '-'
            } else if shards.iter().any(|s| matches!(s, Shard::Lost(_))) {
                '!'
            } else {
                '.'
            }
        };
        let all: Vec<_> =
            groups.iter().map(|g| format!("{}{}e{}{}", g.revision, g.index, g.epoch, word(&g.shards))).collect();
        all.join(" ")
    }

    fn group(&mut self, index: u32) -> &mut Group {
        let live = |group: &&mut Group| group.index == index && group.known != Known::Removed;
        self.observed.groups.iter_mut().find(live).expect("the test names a live group")
    }

    fn ready(&mut self, index: u32) {
        let now = self.now;
        self.group(index).shards.fill(Shard::Ready(now));
    }

    fn all_ready(&mut self) {
        let now = self.now;
        for group in self.observed.groups.iter_mut().filter(|g| g.known == Known::Formed) {
            for shard in group.shards.iter_mut().filter(|s| !matches!(s, Shard::Ready(_))) {
                *shard = Shard::Ready(now);
            }
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now = later(self.now, Duration::from_secs(seconds));
        self.observed.groups.retain(|group| group.known != Known::Removed);
    }

    fn edit(&mut self, revision: &str) {
        self.target.revision = revision.into();
    }

    /// Everything starts at once and stays healthy until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..100 {
            if self.pass().steps.is_empty() {
                return;
            }
            self.all_ready();
            self.wait(5);
        }
        panic!("does not settle: {:#?}", self.lines);
    }

    fn table(&self) -> Vec<&str> {
        self.lines.iter().map(String::as_str).collect()
    }
}

#[test]
fn a_new_deployment_creates_all_groups_at_once() {
    let mut sim = Sim::new(3, 1, 0);
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "                               | create g0 e1 A, create g1 e1 A, create g2 e1 A, wait starting",
            "A0e1+ A1e1+ A2e1+              | ",
        ]
    );
}

#[test]
fn an_edit_surges_by_one_and_never_removes_an_available_group_too_early() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1+              | remove g1 e1 A (superseded), create g3 e1 B, wait starting",
            "A0e1+ B2e1+ B3e1+              | remove g0 e1 A (superseded)",
            "B2e1+ B3e1+                    | ",
        ]
    );
}

#[test]
fn without_surge_an_edit_removes_first() {
    let mut sim = Sim::settled(2, 0, 1);
    sim.edit("B");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | remove g1 e1 A (superseded), create g2 e1 B, wait starting",
            "A0e1+ B2e1+                    | remove g0 e1 A (superseded), create g1 e1 B, wait starting",
            "B1e1+ B2e1+                    | ",
        ]
    );
}

#[test]
fn a_revert_in_mid_rollout_removes_only_what_never_served() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.edit("A");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1.              | remove g2 e1 B (superseded)",
            "A0e1+ A1e1+                    | ",
        ]
    );
}

#[test]
fn three_quick_edits_replace_only_the_never_ready_groups_of_superseded_revisions() {
    let mut sim = Sim::settled(2, 1, 0);
    for revision in ["B", "C", "D"] {
        sim.edit(revision);
        sim.pass();
    }
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1.              | remove g2 e1 B (superseded), create g3 e1 C, wait starting",
            "A0e1+ A1e1+ B2e1- C3e1.        | remove g3 e1 C (superseded), create g4 e1 D, wait starting",
        ]
    );
}

#[test]
fn a_lost_shard_recreates_its_group_once_and_again_only_after_the_back_off() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.group(1).shards[0] = Shard::Lost(LossReason::OutOfMemory);
    sim.pass();
    sim.pass();
    sim.group(1).shards[1] = Shard::Lost(LossReason::Exited);
    sim.group(1).shards[0] = Shard::Running;
    sim.wait(1);
    sim.pass();
    sim.pass();
    sim.wait(10);
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1!                    | remove g1 e1 A (lost: OutOfMemory), create g1 e2 A, wait starting",
            "A0e1+ A1e1- A1e2.              | wait starting",
            "A0e1+ A1e2!                    | remove g1 e2 A (lost: CrashLoop), wait backoff",
            "A0e1+ A1e2- A1e3.              | wait backoff",
            "A0e1+ A1e3.                    | create g1 e3 A, wait starting",
            "A0e1+ A1e3+                    | ",
        ]
    );
}

#[test]
fn a_group_that_loses_all_its_shards_comes_back_in_the_same_slot() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.group(0).shards.fill(Shard::Terminating);
    sim.pass();
    sim.wait(1);
    sim.group(1).shards.fill(Shard::Missing);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1- A1e1+                    | create g0 e2 A, wait starting",
            "A0e2. A1e1.                    | create g1 e2 A, wait starting",
        ]
    );
}

#[test]
fn a_group_of_the_serving_revision_comes_back_as_it_was_while_a_newer_one_starts() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.group(0).shards[1] = Shard::Lost(LossReason::NodeLost);
    sim.pass();
    sim.ready(0);
    sim.wait(5);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1! A1e1+ B2e1.              | remove g0 e1 A (lost: NodeLost), create g0 e2 A, wait starting",
            "A0e2+ A1e1+ B2e1.              | wait starting",
        ]
    );
}

#[test]
fn a_group_that_still_starts_waits_for_its_peers_before_it_is_given_up() {
    let mut sim = Sim::new(1, 1, 0);
    sim.pass();
    sim.group(0).shards[0] = Shard::Lost(LossReason::ImagePull);
    let waits = sim.pass();
    assert_eq!(waits.look_again(), Some(later(Timestamp::UNIX_EPOCH, Duration::from_secs(600))));
    sim.group(0).shards[1] = Shard::Running;
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "                               | create g0 e1 A, wait starting",
            "A0e1!                          | wait peers",
            "A0e1!                          | remove g0 e1 A (lost: ImagePull), create g0 e2 A, wait starting",
        ]
    );
}

#[test]
fn scaling_down_removes_the_not_ready_first_then_the_highest_index_and_zero_removes_all() {
    let mut sim = Sim::settled(4, 1, 0);
    sim.group(1).shards[0] = Shard::Running;
    sim.target.replicas = 2;
    sim.pass();
    sim.wait(1);
    sim.target.replicas = 0;
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1. A2e1+ A3e1+        | remove g1 e1 A (excess), remove g3 e1 A (excess)",
            "A0e1+ A2e1+                    | remove g2 e1 A (excess), remove g0 e1 A (excess)",
            "                               | ",
        ]
    );
}

#[test]
fn a_half_made_group_is_completed_and_a_half_removed_one_is_removed() {
    let mut sim = Sim::new(1, 1, 0);
    let group = |index, known, shards| Group { index, epoch: 1, revision: "A".into(), known, shards, created: None };
    sim.observed.groups = vec![
        group(0, Known::Forming, vec![Shard::Running, Shard::Missing]),
        group(1, Known::Removed, vec![Shard::Terminating, Shard::Running]),
    ];
    sim.pass();
    assert_eq!(
        sim.table(),
        ["A0e1. A1e1-                    | remove g1 e1 A (unfinished), create g0 e1 A, wait starting"]
    );
}

#[derive(Clone, Debug)]
enum Happening {
    Edit(u8),
    Scale(u32),
    Lose(u32),
    Ready,
    Wait(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        (0..4_u8).prop_map(Happening::Edit),
        (0..5_u32).prop_map(Happening::Scale),
        (0..6_u32).prop_map(Happening::Lose),
        Just(Happening::Ready),
        (1..20_u64).prop_map(Happening::Wait),
    ];
    prop::collection::vec(one, 1..40)
}

proptest! {
    #[test]
    fn whatever_happens_budgets_hold_epochs_rise_and_it_settles(
        events in happenings(), surge in 0..3_u32, unavailable in 0..3_u32,
    ) {
        let surge = if unavailable == 0 { surge.max(1) } else { surge };
        let mut sim = Sim::settled(2, surge, unavailable);
        let mut epochs: BTreeMap<(u32, String), u64> = BTreeMap::new();
        for event in events {
            match event {
                Happening::Edit(n) => sim.edit(&char::from(b'A' + n).to_string()),
                Happening::Scale(n) => sim.target.replicas = n,
                Happening::Lose(n) => {
                    let live: Vec<u32> = sim.observed.groups.iter().filter(|g| g.known != Known::Removed).map(|g| g.index).collect();
                    if let Some(&index) = live.get(n as usize) {
                        sim.group(index).shards[0] = Shard::Lost(LossReason::Exited);
                    }
                }
                Happening::Ready => sim.all_ready(),
                Happening::Wait(seconds) => sim.wait(seconds),
            }
            let available = |groups: &[Group]| groups.iter().filter(|g| {
                g.available(sim.budget.min_ready, sim.now)
            }).count();
            let before = sim.observed.clone();
            let had = available(&before.groups);
            let decision = step(&before, &sim.target, &sim.budget, sim.now);
            prop_assert_eq!(&step(&before, &sim.target, &sim.budget, sim.now), &decision);
            let floor = sim.target.replicas.saturating_sub(sim.budget.max_unavailable) as usize;
            prop_assert!(available(&decision.groups) >= had.min(floor));
            let live = before.groups.iter().filter(|g| g.known != Known::Removed).count();
            prop_assert!(decision.groups.len() <= live.max((sim.target.replicas + surge) as usize));
            for created in decision.steps.iter() {
                let Step::CreateGroup { index, revision, epoch } = created else { continue };
                let free = before.groups.iter().all(|g| g.index != *index);
                let last = epochs.entry((*index, revision.clone())).or_default();
                prop_assert!(free || *epoch >= *last, "{created} after e{last}");
                *last = *epoch;
            }
            sim.pass();
        }
        sim.all_ready();
        sim.wait(700);
        sim.run();
        prop_assert_eq!(sim.observed.groups.len(), sim.target.replicas as usize);
        prop_assert!(sim.observed.groups.iter().all(|g| g.revision == sim.target.revision));
    }
}
