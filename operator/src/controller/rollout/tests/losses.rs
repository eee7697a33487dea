//! Lost shards: one new epoch for each loss, as fast and as often as the budget says.

use pretty_assertions::assert_eq;

use super::*;

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
            "A0e1+ A1e2- A1e3_              | wait backoff",
            "A0e1+ A1e3_                    | create g1 e3 A, wait starting",
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
            "A0e2. A1e1_                    | create g1 e2 A, wait starting",
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
