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

#[test]
fn a_shard_that_was_taken_away_is_not_waited_for_however_long_its_peers_take() {
    let mut sim = Sim::new(2, 1, 0);
    sim.pass();
    sim.lose(0, LossReason::Preempted);
    sim.group(1).shards[0] = Shard::Terminating;
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "                               | create g0 e1 A, create g1 e1 A, wait starting",
            "A0e1! A1e1-                    | remove g0 e1 A (lost: Preempted), remove g1 e1 A (lost: Deleted), create g0 e2 A, create g1 e2 A, wait starting",
        ]
    );
}

#[test]
fn a_slot_that_is_lost_more_often_than_its_budget_is_left_alone_until_the_window_has_passed() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.budget.restarts.budget = 2;
    for _ in 0..4 {
        sim.lose(0, LossReason::Exited);
        let until = sim.pass().look_again();
        sim.now = until.unwrap_or(sim.now);
        sim.wait(0);
        sim.pass();
        sim.ready(0);
        sim.wait(3);
    }
    assert_eq!(
        sim.table(),
        [
            "A0e1!                          | remove g0 e1 A (lost: CrashLoop), create g0 e2 A, wait starting",
            "A0e2.                          | wait starting",
            "A0e2!                          | remove g0 e2 A (lost: CrashLoop), wait backoff",
            "A0e3_                          | create g0 e3 A, wait starting",
            "A0e3!                          | remove g0 e3 A (lost: CrashLoop), wait givenup",
            "A0e4_                          | create g0 e4 A, wait starting",
            "A0e4!                          | remove g0 e4 A (lost: CrashLoop), wait backoff",
            "A0e5_                          | create g0 e5 A, wait starting"
        ]
    );
    let memory = &sim.observed.recovery[0];
    assert_eq!((memory.failures, memory.streak), (1, 4));
}

#[test]
fn ten_healthy_minutes_make_a_slot_as_good_as_new_and_a_clock_reminds_of_them() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.lose(0, LossReason::Exited);
    sim.pass();
    sim.ready(0);
    sim.wait(5);
    let decision = sim.pass();
    assert_eq!(decision.look_again(), Some(later(Timestamp::UNIX_EPOCH, Duration::from_secs(605))));
    assert_eq!(decision.recovery.len(), 1);
    sim.wait(600);
    let decision = sim.pass();
    assert_eq!((decision.look_again(), decision.recovery), (None, vec![]));
    sim.lose(0, LossReason::Exited);
    sim.pass();
    assert_eq!(
        sim.table(),
        [
            "A0e1!                          | remove g0 e1 A (lost: CrashLoop), create g0 e2 A, wait starting",
            "A0e2+                          | ",
            "A0e2+                          | ",
            "A0e2!                          | remove g0 e2 A (lost: CrashLoop), create g0 e3 A, wait starting"
        ]
    );
}

#[test]
fn the_last_words_of_a_lost_shard_outlive_its_pod() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.lose(0, LossReason::OutOfMemory);
    sim.group(0).note = Some("shard 0: OOMKilled (exit code 137) last line".into());
    sim.pass();
    sim.wait(1);
    let decision = sim.pass();
    let told: Vec<_> = decision.recovery.iter().map(|m| (m.epoch, m.reason, m.message.as_str())).collect();
    assert_eq!(told, [(2, LossReason::OutOfMemory, "shard 0: OOMKilled (exit code 137) last line")]);
    // Gone before any pass could look at what it became: what was told of it last is left.
    let mut sim = Sim::settled(1, 1, 0);
    sim.group(0).shards[0] = Shard::Missing;
    sim.group(0).last_note = Some("shard 0: loading layer 12".into());
    let decision = sim.pass();
    let told: Vec<_> = decision.recovery.iter().map(|m| (m.reason, m.message.as_str())).collect();
    assert_eq!(told, [(LossReason::Deleted, "shard 0: loading layer 12")]);
}

#[test]
fn an_epoch_is_higher_than_everything_remembered_and_everything_seen() {
    let mut sim = Sim::settled(1, 1, 0);
    sim.lose(0, LossReason::NodeLost);
    let leftover = Group { known: Known::Removed, shards: vec![Shard::Stranded], ..Group::new((0, 7), "A".into(), 1) };
    sim.observed.groups.push(leftover);
    sim.pass();
    assert_eq!(
        sim.table(),
        ["A0e1! A0e7-                    | remove g0 e1 A (lost: NodeLost), create g0 e8 A, wait starting"]
    );
}

#[test]
fn of_more_memories_than_are_kept_those_that_delay_least_go() {
    let most = u32::try_from(crate::controller::recover::MAX_REMEMBERED).unwrap();
    let mut sim = Sim::settled(most + 3, 1, 0);
    let memory = |index: u32| Recovery {
        index,
        epoch: 1,
        failures: 1,
        streak: 1,
        window_start: sim.now,
        next_retry: later(sim.now, Duration::from_secs(u64::from(index))),
        reason: LossReason::Exited,
        message: String::new(),
    };
    sim.observed.recovery = (0..most + 3).map(memory).collect();
    let kept: Vec<u32> = sim.pass().recovery.iter().map(|memory| memory.index).collect();
    assert_eq!(kept, (3..most + 3).collect::<Vec<_>>());
}

#[test]
fn of_a_group_that_is_being_deleted_the_shard_that_failed_by_itself_says_why() {
    let mut sim = Sim::settled(1, 1, 0);
    let group = sim.group(0);
    group.shards = vec![Shard::Terminating, Shard::Lost(LossReason::OutOfMemory)];
    assert_eq!(group.loss(), Some(LossReason::OutOfMemory));
    group.shards = vec![Shard::Terminating, Shard::Ready(Timestamp::UNIX_EPOCH)];
    assert_eq!(group.loss(), Some(LossReason::Deleted));
}
