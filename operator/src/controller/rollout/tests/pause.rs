//! A rollout that must not go on.

use pretty_assertions::assert_eq;

use super::*;

/// One group of B beside two of A, then a pause.
fn paused() -> Sim {
    let mut sim = Sim::settled(2, 1, 0);
    sim.edit("B");
    sim.pass();
    sim.all_ready();
    sim.wait(5);
    sim.budget.paused = true;
    sim.lines.clear();
    sim
}

#[test]
fn a_pause_keeps_old_and_new_groups_side_by_side_and_an_end_of_it_goes_on() {
    let mut sim = paused();
    sim.pass();
    sim.budget.paused = false;
    sim.run();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+ B2e1+              | ",
            "A0e1+ A1e1+ B2e1+              | remove g1 e1 A (superseded), create g3 e1 B, wait starting",
            "A0e1+ B2e1+ B3e1+              | remove g0 e1 A (superseded)",
            "B2e1+ B3e1+                    | "
        ]
    );
}

#[test]
fn in_a_pause_lost_groups_come_back_as_they_were() {
    let mut sim = paused();
    sim.lose(0, LossReason::OutOfMemory);
    sim.lose(2, LossReason::Evicted);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1! A1e1+ B2e1!              | remove g0 e1 A (lost: OutOfMemory), remove g2 e1 B (lost: Evicted), create g0 e2 A, create g2 e2 B, wait starting"
        ]
    );
}

#[test]
fn in_a_pause_the_serving_revision_is_scaled() {
    let mut sim = paused();
    sim.target.replicas = 4;
    sim.pass();
    sim.all_ready();
    sim.wait(5);
    sim.target.replicas = 1;
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1+ A1e1+ B2e1+              | create g3 e1 A, wait starting",
            "A0e1+ A1e1+ B2e1+ A3e1+        | remove g3 e1 A (excess), remove g1 e1 A (excess)"
        ]
    );
}

#[test]
fn in_a_pause_the_last_serving_group_stays_beside_the_new_ones() {
    let mut sim = paused();
    sim.budget.paused = false;
    sim.pass();
    sim.all_ready();
    sim.wait(5);
    sim.budget.paused = true;
    sim.lines.clear();
    sim.target.replicas = 1;
    sim.pass();
    assert_eq!(sim.table(), ["A0e1+ B2e1+ B3e1+              | remove g3 e1 B (excess)"]);
}

#[test]
fn an_edit_in_a_pause_makes_nothing_and_removes_only_what_nothing_can_make_whole() {
    let mut sim = paused();
    sim.edit("C");
    sim.pass();
    sim.lose(2, LossReason::Exited);
    sim.pass();
    assert_eq!(
        sim.table(),
        ["A0e1+ A1e1+ B2e1+              | ", "A0e1+ A1e1+ B2e1!              | remove g2 e1 B (excess)"]
    );
}

#[test]
fn a_model_that_is_created_paused_makes_nothing_and_one_without_a_rollout_ignores_the_pause() {
    let mut sim = Sim::new(1, 1, 0);
    sim.budget.paused = true;
    sim.pass();
    let mut settled = Sim::settled(1, 1, 0);
    settled.budget.paused = true;
    settled.target.replicas = 2;
    settled.pass();
    assert_eq!(
        [sim.table(), settled.table()].concat(),
        ["                               | ", "A0e1+                          | create g1 e1 A, wait starting"]
    );
}
