//! Edits: what is made and what goes, in which order.

use pretty_assertions::assert_eq;

use super::*;

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
fn with_both_budgets_an_edit_adds_and_removes_in_one_pass() {
    let mut sim = Sim::settled(3, 1, 1);
    sim.edit("B");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+ A2e1+              | remove g2 e1 A (superseded), create g3 e1 B, create g4 e1 B, wait starting",
            "A0e1+ A1e1+ B3e1+ B4e1+        | remove g1 e1 A (superseded), remove g0 e1 A (superseded), create g2 e1 B, wait starting",
            "B2e1+ B3e1+ B4e1+              | "
        ]
    );
}

#[test]
fn scaling_up_in_mid_rollout_makes_only_groups_of_the_new_revision() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.target.replicas = 4;
    sim.pass();
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1.              | create g3 e1 B, create g4 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1. B3e1. B4e1.  | wait starting",
            "A0e1+ A1e1+ B2e1+ B3e1+ B4e1+  | remove g1 e1 A (superseded), create g5 e1 B, wait starting",
            "A0e1+ B2e1+ B3e1+ B4e1+ B5e1+  | remove g0 e1 A (superseded)",
            "B2e1+ B3e1+ B4e1+ B5e1+        | "
        ]
    );
}

#[test]
fn scaling_down_in_mid_rollout_removes_the_old_first() {
    let mut sim = Sim::settled(4, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.target.replicas = 2;
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+ A2e1+ A3e1+        | create g4 e1 B, wait starting",
            "A0e1+ A1e1+ A2e1+ A3e1+ B4e1.  | remove g3 e1 A (superseded), remove g2 e1 A (superseded), wait starting",
            "A0e1+ A1e1+ B4e1+              | remove g1 e1 A (superseded), create g2 e1 B, wait starting",
            "A0e1+ B2e1+ B4e1+              | remove g0 e1 A (superseded)",
            "B2e1+ B4e1+                    | "
        ]
    );
}

#[test]
fn a_third_revision_in_mid_rollout_replaces_what_never_served_first_and_what_serves_last() {
    let mut sim = Sim::settled(3, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.all_ready();
    sim.wait(5);
    sim.pass();
    sim.edit("C");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+ A2e1+              | create g3 e1 B, wait starting",
            "A0e1+ A1e1+ A2e1+ B3e1+        | remove g2 e1 A (superseded), create g4 e1 B, wait starting",
            "A0e1+ A1e1+ A2e1- B3e1+ B4e1.  | remove g4 e1 B (superseded), create g5 e1 C, wait starting",
            "A0e1+ A1e1+ B3e1+ C5e1+        | remove g3 e1 B (superseded), create g2 e1 C, wait starting",
            "A0e1+ A1e1+ C2e1+ C5e1+        | remove g1 e1 A (superseded), create g3 e1 C, wait starting",
            "A0e1+ C2e1+ C3e1+ C5e1+        | remove g0 e1 A (superseded)",
            "C2e1+ C3e1+ C5e1+              | "
        ]
    );
}

#[test]
fn a_broken_image_stops_at_its_first_group_and_a_revert_removes_only_that() {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    for seconds in [0, 5, 15] {
        sim.pass();
        sim.wait(seconds);
        sim.lose(2, LossReason::Exited);
        sim.group(2).shards[1] = Shard::Running;
        sim.pass();
        sim.wait(40);
    }
    sim.edit("A");
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+                    | create g2 e1 B, wait starting",
            "A0e1+ A1e1+ B2e1!              | remove g2 e1 B (lost: CrashLoop), create g2 e2 B, wait starting",
            "A0e1+ A1e1+ B2e2.              | wait starting",
            "A0e1+ A1e1+ B2e2!              | remove g2 e2 B (lost: CrashLoop), wait backoff",
            "A0e1+ A1e1+ B2e3_              | create g2 e3 B, wait starting",
            "A0e1+ A1e1+ B2e3!              | remove g2 e3 B (lost: CrashLoop), wait backoff",
            "A0e1+ A1e1+ B2e4_              | remove g2 e4 B (superseded)",
            "A0e1+ A1e1+                    | "
        ]
    );
}

#[test]
fn an_old_revision_that_does_not_work_gives_way_to_a_new_one_that_does_and_not_before() {
    let mut sim = Sim::settled(2, 1, 0);
    for index in [0, 1] {
        sim.lose(index, LossReason::Exited);
    }
    sim.pass();
    sim.edit("B");
    sim.pass();
    sim.wait(1);
    sim.pass();
    sim.ready(2);
    sim.wait(5);
    for _ in 0..4 {
        sim.pass();
        sim.ready_of("B");
        sim.wait(5);
    }
    assert_eq!(
        sim.table(),
        [
            "A0e1! A1e1!                    | remove g0 e1 A (lost: CrashLoop), remove g1 e1 A (lost: CrashLoop), create g0 e2 A, create g1 e2 A, wait starting",
            "A0e1- A0e2. A1e1- A1e2.        | create g2 e1 B, wait starting",
            "A0e2. A1e2. B2e1.              | wait starting",
            "A0e2. A1e2. B2e1+              | remove g1 e2 A (superseded), create g3 e1 B, wait starting",
            "A0e2. B2e1+ B3e1+              | remove g0 e2 A (superseded)",
            "B2e1+ B3e1+                    | ",
            "B2e1+ B3e1+                    | "
        ]
    );
}
