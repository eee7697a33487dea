//! What a group knows, moved by hand: no sockets, no clock.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use pretty_assertions::assert_eq;

use super::*;

/// Rank 1 of 3 with every end of its seam.
struct World {
    group: Group,
    answers: Receiver<Answer>,
    readiness: watch::Receiver<Readiness>,
    streams: Arc<AtomicU32>,
    start: Instant,
}

fn world() -> World {
    let (to_lane, answers) = sync_channel(4);
    let (ready, readiness) = watch::channel(Readiness::Starting);
    let streams = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&streams);
    let parts = GroupParts {
        identity: Identity { rank: 1, size: 3, epoch: 5, ..Identity::default() },
        timing: Timing::default(),
        streams: Arc::new(move || counted.load(Ordering::Relaxed)),
        progress: Arc::new(|| 11),
        answers: to_lane,
        readiness: ready,
        drain: watch::Sender::new(DrainPhase::Accepting),
        leave: CancellationToken::new(),
        stats: Arc::new(EngineStats::default()),
    };
    let start = Instant::now();
    World { group: Group::new(parts, start), answers, readiness, streams, start }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_group_is_complete_when_every_peer_has_joined() {
    let World { group, start, .. } = world();
    group.join(0, start);
    assert!(!group.is_complete());
    group.join(2, start);
    assert!(group.is_complete());
}

#[test]
fn only_joined_peers_can_be_silent_and_a_pause_of_our_own_is_forgiven() {
    let World { group, start, .. } = world();
    group.join(0, start);
    assert!(group.silent(start + seconds(5)).is_empty());
    assert_eq!(group.silent(start + seconds(6)), [0]);
    group.forgive(seconds(2));
    assert!(group.silent(start + seconds(6)).is_empty());
    group.hear(0, start + seconds(7));
    assert!(group.silent(start + seconds(12)).is_empty());
}

#[test]
fn the_first_loss_is_told_once_and_readiness_never_comes_back() {
    let World { group, answers, readiness, .. } = world();
    group.set_ready();
    assert_eq!(*readiness.borrow(), Readiness::Ready);
    group.lose(2, "gone");
    group.lose(0, "gone too");
    group.set_ready();
    let reason = "peer rank 2 is lost: gone".to_owned();
    assert_eq!(*readiness.borrow(), Readiness::Lost { reason });
    assert!(matches!(answers.try_recv(), Ok(Answer::Lost)));
    assert!(answers.try_recv().is_err());
    assert_eq!(EngineStats::get(&group.stats().peer_losses), 1);
}

#[test]
fn a_shard_that_needs_nobody_loses_nobody() {
    let World { group, readiness, streams, .. } = world();
    group.set_ready();
    group.set_phase(DrainPhase::Refusing);
    streams.store(1, Ordering::Relaxed);
    assert!(!group.needs_nobody());
    streams.store(0, Ordering::Relaxed);
    group.lose(2, "gone");
    assert_eq!(*readiness.borrow(), Readiness::Ready);
}

#[test]
fn peers_are_done_when_each_refuses_and_has_no_stream_left() {
    let World { group, start, .. } = world();
    let beat = |streams, draining| Heartbeat { count: 1, streams, draining, progress: 0 };
    group.join(0, start);
    group.join(2, start);
    group.hear_heartbeat(0, &beat(0, true), start);
    group.hear_heartbeat(2, &beat(0, false), start);
    assert!(!group.peers_are_done());
    group.hear_heartbeat(2, &beat(3, true), start);
    assert!(!group.peers_are_done());
    group.hear_heartbeat(2, &beat(0, true), start);
    assert!(group.peers_are_done());
}

#[test]
fn a_peer_has_moved_when_its_heartbeat_says_another_number() {
    let World { group, start, .. } = world();
    let beat = |progress| Heartbeat { progress, ..Heartbeat::default() };
    assert_eq!(group.last_progress(), None);
    group.join(0, start);
    group.join(2, start);
    for (second, rank, progress) in [(1, 0, 5), (2, 2, 9), (3, 0, 5), (4, 2, 9)] {
        group.hear_heartbeat(rank, &beat(progress), start + seconds(second));
    }
    assert_eq!(group.last_progress(), Some(start + seconds(2)));
    group.hear_heartbeat(0, &beat(6), start + seconds(5));
    assert_eq!(group.last_progress(), Some(start + seconds(5)));
}

#[test]
fn a_heartbeat_says_what_is_left_and_whether_more_is_taken() {
    let World { group, streams, .. } = world();
    streams.store(4, Ordering::Relaxed);
    assert_eq!(group.heartbeat(7), Heartbeat { count: 7, streams: 4, draining: false, progress: 11 });
    group.set_phase(DrainPhase::Refusing);
    assert_eq!(group.heartbeat(8), Heartbeat { count: 8, streams: 4, draining: true, progress: 11 });
}
