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
