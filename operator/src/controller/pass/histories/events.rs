//! What may happen, and how often.

use proptest::prelude::*;

use crate::controller::rollout::LossReason;

/// One thing that happens to a deployment, its cluster or its operator.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The user asks for another revision.
    Edit(u8),
    /// The user asks for what serves.
    Revert,
    /// The user asks for that many groups.
    Scale(i32),
    /// The user changes surge and unavailable.
    Budgets(i32, i32),
    /// The user limits accelerators to so many more than one group has, or lifts the limit.
    Cap(Option<i32>),
    /// The user pauses, or ends the pause.
    Pause(bool),
    /// The n-th shard that runs ends.
    Lose(usize, LossReason),
    /// Somebody deletes the n-th pod.
    Delete(usize),
    /// The n-th ready shard is not ready for a moment.
    Flap(usize),
    /// From now on images take so many seconds.
    Pull(u64),
    /// A node becomes unreachable with all its pods.
    NodeDown(u8),
    /// All nodes are back.
    NodesUp,
    /// The nodes hold so many pods.
    Room(usize),
    /// New pods are gated, or all gates are opened.
    Gate(bool),
    /// The model's turn in the queue comes, or goes.
    Turn(bool),
    /// The namespace may hold so many pods.
    Quota(Option<usize>),
    /// The operator makes a pass and dies in it.
    Crash(Crash),
    /// An operator makes a pass on what it saw before the last event.
    Stale,
    /// Seconds pass.
    Wait(u64),
}

/// Where a pass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// Before its first write.
    Before,
    /// After the decision was remembered.
    Remembered,
    /// After so many of its writes.
    Within(usize),
    /// After its last write but the status.
    Unsaid,
}

fn loss() -> impl Strategy<Value = LossReason> {
    prop::sample::select(vec![
        LossReason::Exited,
        LossReason::OutOfMemory,
        LossReason::Evicted,
        LossReason::Preempted,
        LossReason::ImagePull,
    ])
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![Just(Crash::Before), Just(Crash::Remembered), (1..5_usize).prop_map(Crash::Within), Just(Crash::Unsaid),]
}

fn event() -> impl Strategy<Value = Event> {
    let user = prop_oneof![
        4 => (0..5_u8).prop_map(Event::Edit),
        1 => Just(Event::Revert),
        2 => (0..5_i32).prop_map(Event::Scale),
        1 => (0..3_i32, 0..3_i32).prop_map(|(surge, unavailable)| Event::Budgets(surge, unavailable)),
        1 => prop::option::of(0..10_i32).prop_map(Event::Cap),
        1 => any::<bool>().prop_map(Event::Pause),
    ];
    let cluster = prop_oneof![
        7 => (0..16_usize, loss()).prop_map(|(nth, reason)| Event::Lose(nth, reason)),
        2 => (0..16_usize).prop_map(Event::Delete),
        1 => (0..16_usize).prop_map(Event::Flap),
        1 => (0..90_u64).prop_map(Event::Pull),
        2 => (0..4_u8).prop_map(Event::NodeDown),
        1 => Just(Event::NodesUp),
        3 => (0..14_usize).prop_map(Event::Room),
        1 => any::<bool>().prop_map(Event::Gate),
        1 => any::<bool>().prop_map(Event::Turn),
        3 => prop::option::weighted(0.8, 1..10_usize).prop_map(Event::Quota),
    ];
    let operator = prop_oneof![4 => crash().prop_map(Event::Crash), 1 => Just(Event::Stale)];
    let time = prop_oneof![4 => (0..20_u64).prop_map(Event::Wait), 1 => (20..900_u64).prop_map(Event::Wait)];
    prop_oneof![3 => user, 5 => cluster, 2 => operator, 6 => time]
}

/// Forty happenings on average.
pub(super) fn histories() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 20..=60)
}
