//! Room: caps, queues, groups that find none, and groups that stay half made.

use pretty_assertions::assert_eq;

use super::*;

#[test]
fn a_half_made_group_is_completed_and_a_half_removed_one_is_removed() {
    let mut sim = Sim::new(1, 1, 0);
    let group = |index, known, shards| Group {
        index,
        epoch: 1,
        revision: "A".into(),
        known,
        shards,
        created: None,
        note: None,
    };
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
