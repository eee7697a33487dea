//! Room: caps, queues, groups that find none, and groups that stay half made.

use pretty_assertions::assert_eq;

use super::*;

#[test]
fn a_half_made_group_is_completed_and_a_half_removed_one_is_removed() {
    let mut sim = Sim::new(1, 1, 0);
    let group = |index, known, shards| Group { known, shards, ..Group::new((index, 1), "A".into(), 0) };
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

/// Every shard of a group since then without room.
fn no_room(sim: &mut Sim, index: u32) {
    let now = sim.now;
    let group = sim.group(index);
    group.shards = vec![Shard::Pending, Shard::Unschedulable(now)];
    group.note = Some("shard 1: Unschedulable: 0/4 nodes are available".into());
}

#[test]
fn a_cap_on_accelerators_counts_what_ends_and_admits_the_next_group_once_it_is_gone() {
    let mut sim = Sim::settled(2, 0, 1);
    sim.budget.max_accelerators = Some(4);
    sim.edit("B");
    for _ in 0..3 {
        sim.pass();
        sim.pass();
        sim.wait(1);
        sim.pass();
        sim.all_ready();
        sim.wait(5);
    }
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | remove g1 e1 A (superseded), wait accelerators",
            "A0e1+ A1e1-                    | wait accelerators",
            "A0e1+                          | create g1 e1 B, wait starting",
            "A0e1+ B1e1+                    | remove g0 e1 A (superseded), wait accelerators",
            "A0e1- B1e1+                    | wait accelerators",
            "B1e1+                          | create g0 e1 B, wait starting",
            "B0e1+ B1e1+                    | ",
            "B0e1+ B1e1+                    | ",
            "B0e1+ B1e1+                    | "
        ]
    );
}

#[test]
fn a_cap_that_leaves_no_room_for_a_surge_waits_and_touches_nothing() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.budget.max_accelerators = Some(5);
    sim.edit("B");
    sim.pass();
    assert_eq!(sim.table(), ["A0e1+ A1e1+                    | wait accelerators"]);
}

#[test]
fn a_new_group_does_not_take_the_place_of_one_that_comes_back() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.lose(1, LossReason::Exited);
    sim.pass();
    sim.all_ready();
    sim.wait(5);
    sim.lose(1, LossReason::Exited);
    sim.budget.max_accelerators = Some(5);
    sim.edit("B");
    sim.pass();
    sim.wait(1);
    sim.pass();
    sim.wait(10);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1!                    | remove g1 e1 A (lost: CrashLoop), create g1 e2 A, wait starting",
            "A0e1+ A1e2!                    | remove g1 e2 A (lost: CrashLoop), wait accelerators",
            "A0e1+ A1e3_                    | wait accelerators",
            "A0e1+ A1e3_                    | create g1 e3 A, wait accelerators"
        ]
    );
}

#[test]
fn pods_on_an_unreachable_node_hold_no_accelerator() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.budget.max_accelerators = Some(2);
    sim.group(0).shards.fill(Shard::Lost(LossReason::NodeLost));
    sim.pass();
    assert_eq!(
        sim.table(),
        ["A0e1!                          | remove g0 e1 A (lost: NodeLost), create g0 e2 A, wait starting"]
    );
    assert!(sim.observed.groups.iter().any(|group| group.shards == [Shard::Stranded; 2]));
}

#[test]
fn a_group_without_room_is_withdrawn_whole_after_ten_seconds_and_tried_again_later_each_time() {
    let mut sim = Sim::new(1, 1, 0);
    sim.pass();
    let mut retries = Vec::new();
    for _ in 0..3 {
        no_room(&mut sim, 0);
        sim.wait(9);
        sim.pass();
        sim.wait(1);
        sim.pass();
        let memory = sim.observed.recovery[0].clone();
        retries.push((memory.epoch, memory.failures, memory.streak, memory.message));
        sim.wait(0);
        sim.now = memory.next_retry;
        sim.pass();
    }
    assert_eq!(
        sim.table(),
        [
            "                               | create g0 e1 A, wait starting",
            "A0e1?                          | wait room",
            "A0e1?                          | remove g0 e1 A (withdrawn: Unschedulable), wait backoff",
            "A0e2_                          | create g0 e2 A, wait starting",
            "A0e2?                          | wait room",
            "A0e2?                          | remove g0 e2 A (withdrawn: Unschedulable), wait backoff",
            "A0e3_                          | create g0 e3 A, wait starting",
            "A0e3?                          | wait room",
            "A0e3?                          | remove g0 e3 A (withdrawn: Unschedulable), wait backoff",
            "A0e4_                          | create g0 e4 A, wait starting"
        ]
    );
    let words = "shard 1: Unschedulable: 0/4 nodes are available".to_owned();
    assert_eq!(retries, [(2, 0, 1, words.clone()), (3, 0, 2, words.clone()), (4, 0, 3, words)]);
}

#[test]
fn withdrawn_groups_are_tried_one_at_a_time() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.target.replicas = 3;
    sim.pass();
    no_room(&mut sim, 1);
    no_room(&mut sim, 2);
    sim.wait(10);
    sim.pass();
    sim.wait(10);
    sim.pass();
    sim.ready(1);
    sim.wait(1);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1+                          | create g1 e1 A, create g2 e1 A, wait starting",
            "A0e1+ A1e1? A2e1?              | remove g1 e1 A (withdrawn: Unschedulable), remove g2 e1 A (withdrawn: Unschedulable), wait backoff",
            "A0e1+ A1e2_ A2e2_              | create g1 e2 A, wait queue",
            "A0e1+ A1e2+ A2e2_              | create g2 e2 A, wait starting"
        ]
    );
}

#[test]
fn a_model_whose_turn_has_not_come_makes_nothing_new_but_completes_what_is_half_made() {
    let mut sim = Sim::new(2, 1, 0);
    let until = Some(later(sim.now, Duration::from_secs(7)));
    sim.budget.turn = Turn::NotYet { until };
    sim.observed.groups = vec![
        Group { shards: vec![Shard::Running, Shard::Missing], ..Group::new((0, 1), "A".into(), 2) },
        Group::new((1, 1), "A".into(), 2),
    ];
    assert_eq!(sim.pass().look_again(), until);
    sim.budget.turn = Turn::May;
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1. A1e1_                    | create g0 e1 A, wait queue",
            "A0e1. A1e1_                    | create g1 e1 A, wait starting"
        ]
    );
}

#[test]
fn a_half_made_group_that_cannot_be_completed_is_withdrawn_within_a_minute() {
    let mut sim = Sim::new(1, 1, 0);
    let half = Group::new((0, 1), "A".into(), 2);
    let refused = |sim: &Sim, epoch| Group {
        epoch,
        shards: vec![Shard::Pending, Shard::Missing],
        created: Some(sim.now),
        note: Some("not allowed to create Pod: exceeded quota".into()),
        ..half.clone()
    };
    sim.observed.groups = vec![refused(&sim, 1)];
    let decision = sim.pass();
    assert_eq!(decision.look_again(), Some(later(sim.now, Duration::from_secs(45))));
    sim.observed.groups = vec![refused(&sim, 1)];
    sim.wait(45);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1.                          | create g0 e1 A, wait starting",
            "A0e1.                          | remove g0 e1 A (withdrawn: Incomplete), wait backoff"
        ]
    );
    assert_eq!(sim.observed.recovery[0].message, "not allowed to create Pod: exceeded quota");
}

#[test]
fn a_scheduling_gate_is_waited_for_without_end() {
    let mut sim = Sim::new(1, 1, 0);
    sim.pass();
    sim.group(0).shards.fill(Shard::Gated);
    sim.wait(100_000);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "                               | create g0 e1 A, wait starting",
            "A0e1.                          | wait gates"
        ]
    );
}
