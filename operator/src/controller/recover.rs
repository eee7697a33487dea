//! What is remembered of lost groups, how long a slot waits before it is formed again, and when it is given up.
//!
//! Pure. Counts and times only: never decides what becomes of a group.

use std::time::Duration;

use jiff::Timestamp;

use super::rollout::LossReason;

/// The most slots that are remembered.
pub const MAX_REMEMBERED: usize = 64;
/// The longest message of a loss, in characters.
pub const MAX_MESSAGE: usize = 256;

/// The memory of one slot that was lost or withdrawn and has not been healthy since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The slot.
    pub index: u32,
    /// The epoch that the slot was last told to form.
    pub epoch: u64,
    /// Losses since `window_start`, withdrawals not counted: what [`Restarts::budget`] limits.
    pub failures: u32,
    /// Losses in a row, or withdrawals in a row, with no healthy time between: what the back-off grows with.
    pub streak: u32,
    /// When the first of `failures` was seen.
    pub window_start: Timestamp,
    /// When the slot may form again.
    pub next_retry: Timestamp,
    /// Why the last loss happened.
    pub reason: LossReason,
    /// What was said last: log lines of the lost shard, or the scheduler's words; empty when nothing was.
    pub message: String,
}

/// One loss, as the rollout saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The slot.
    pub index: u32,
    /// The epoch that it is to form as.
    pub epoch: u64,
    /// Why.
    pub reason: LossReason,
    /// What was said last; empty when nothing was.
    pub message: String,
}

/// How fast lost groups come back: the first at once, then `first`, doubled each time up to `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the second loss, and after the first withdrawal.
    pub first: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// A slot that was ready for this long starts anew.
    pub healthy: Duration,
}

impl Backoff {
    /// How long a slot with that many losses in a row waits.
    #[must_use]
    pub fn delay(&self, streak: u32) -> Duration {
        match streak {
            0 | 1 => Duration::ZERO,
            n => self.first.saturating_mul(1_u32 << (n - 2).min(16)).min(self.cap),
        }
    }
}

/// How fast and how often lost groups come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarts {
    /// How fast.
    pub backoff: Backoff,
    /// Losses of one slot within `window`; one more, and it is left alone until the window has passed.
    pub budget: u32,
    /// See `budget`.
    pub window: Duration,
}

impl Restarts {
    /// The memory of a slot after a loss seen at `now`.
    #[must_use]
    pub fn after_loss(&self, before: Option<&Recovery>, loss: Loss, now: Timestamp) -> Recovery {
        let withdrawn = loss.reason.is_withdrawal();
        let window = before.filter(|memory| elapsed(memory.window_start, now) < self.window);
        let (window_start, counted) = window.map_or((now, 0), |memory| (memory.window_start, memory.failures));
        let failures = counted.saturating_add(u32::from(!withdrawn));
        // A group that crashes once there is room has not crashed before, and the other way round.
        let same = before.filter(|memory| memory.reason.is_withdrawal() == withdrawn);
        let streak = same.map_or(0, |memory| memory.streak).saturating_add(1);
        let wait = self.backoff.delay(streak.saturating_add(u32::from(withdrawn)));
        let retry = later(now, wait);
        let next_retry = if failures > self.budget { retry.max(later(window_start, self.window)) } else { retry };
        let message = loss.message.chars().take(MAX_MESSAGE).collect();
        let Loss { index, epoch, reason, .. } = loss;
        Recovery { index, epoch, failures, streak, window_start, next_retry, reason, message }
    }

    /// True while a slot is left alone because it was lost too often.
    #[must_use]
    pub fn given_up(&self, memory: &Recovery, now: Timestamp) -> bool {
        memory.failures > self.budget && now < memory.next_retry
    }
}

/// `at + by`, or the end of time.
pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long after `from` it is at `now`; zero before it.
pub(super) fn elapsed(from: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        later(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
    }

    fn restarts() -> Restarts {
        let seconds = Duration::from_secs;
        let backoff = Backoff { first: seconds(10), cap: seconds(300), healthy: seconds(600) };
        Restarts { backoff, budget: 5, window: seconds(600) }
    }

    fn loss(epoch: u64, reason: LossReason) -> Loss {
        Loss { index: 0, epoch, reason, message: String::new() }
    }

    /// Every formation lasts five seconds; the waits before the next ones, in seconds.
    fn waits(reasons: impl IntoIterator<Item = LossReason>) -> Vec<u64> {
        let (mut memory, mut now) = (None, at(0));
        let mut waits = Vec::new();
        for (reason, epoch) in reasons.into_iter().zip(2..) {
            let next = restarts().after_loss(memory.as_ref(), loss(epoch, reason), now);
            waits.push(elapsed(now, next.next_retry).as_secs());
            now = later(next.next_retry, Duration::from_secs(5));
            memory = Some(next);
        }
        waits
    }

    #[test]
    fn the_first_loss_waits_not_at_all_the_rest_twice_as_long_each_and_one_too_many_until_the_window_has_passed() {
        // 0 + 10 + 20 + 40 + 80 seconds of waiting and 5 × 5 of running: the sixth loss comes at 175 of 600 seconds.
        assert_eq!(waits([LossReason::Exited; 8]), [0, 10, 20, 40, 80, 425, 300, 300]);
    }

    #[test]
    fn a_withdrawal_waits_at_once_and_eats_no_budget() {
        assert_eq!(waits([LossReason::Unschedulable; 8]), [10, 20, 40, 80, 160, 300, 300, 300]);
        let [crash, full] = [LossReason::Exited, LossReason::Unschedulable];
        assert_eq!(waits([crash, crash, full, full, crash, full]), [0, 10, 10, 20, 0, 10]);
    }

    #[test]
    fn a_slot_is_given_up_by_the_loss_beyond_its_budget_until_the_window_that_began_with_the_first_has_passed() {
        let before = Recovery {
            index: 0,
            epoch: 6,
            failures: 5,
            streak: 5,
            window_start: at(100),
            next_retry: at(200),
            reason: LossReason::Exited,
            message: "older".into(),
        };
        let last = Loss { message: "x".repeat(300), ..loss(7, LossReason::OutOfMemory) };
        let memory = restarts().after_loss(Some(&before), last, at(250));
        let expected = Recovery {
            epoch: 7,
            failures: 6,
            streak: 6,
            next_retry: at(700),
            reason: LossReason::OutOfMemory,
            message: "x".repeat(256),
            ..before.clone()
        };
        assert_eq!(memory, expected);
        assert_eq!([at(699), at(700)].map(|now| restarts().given_up(&memory, now)), [true, false]);
        assert!(!restarts().given_up(&before, at(150)), "five losses are within the budget");
        let later = restarts().after_loss(Some(&memory), loss(8, LossReason::Exited), at(701));
        assert_eq!((later.failures, later.streak, later.window_start, later.next_retry), (1, 7, at(701), at(1001)));
    }
}
