//! What is remembered of lost groups, and how long a slot waits before it is formed again.
//!
//! Pure. Counts and times only: the budget per window and giving up belong beside [`Backoff`] and are not built yet.

use std::time::Duration;

use jiff::Timestamp;

use super::rollout::LossReason;

/// The most slots that are remembered.
pub const MAX_REMEMBERED: usize = 64;

/// The memory of one slot whose epoch is above 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The slot.
    pub index: u32,
    /// The epoch that the slot was last told to form.
    pub epoch: u64,
    /// Losses since the slot was last healthy for [`Backoff::healthy`].
    pub failures: u32,
    /// When the first of these losses was seen.
    pub window_start: Timestamp,
    /// When the slot may form again.
    pub next_retry: Timestamp,
    /// Why the last loss happened.
    pub reason: LossReason,
}

/// How fast lost groups come back: the first at once, then `first`, doubled each time up to `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the second loss.
    pub first: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// A slot that has lasted this long starts anew.
    pub healthy: Duration,
}

impl Backoff {
    /// How long a slot with that many losses waits.
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        match failures {
            0 | 1 => Duration::ZERO,
            n => self.first.saturating_mul(1_u32 << (n - 2).min(16)).min(self.cap),
        }
    }

    /// The memory of slot `index` after a loss seen at `now`: it is to form as `epoch`.
    #[must_use]
    pub fn after_loss(&self, before: Option<&Recovery>, lost: (u32, u64, LossReason), now: Timestamp) -> Recovery {
        let (index, epoch, reason) = lost;
        let recent = before.filter(|memory| elapsed(memory.next_retry, now) < self.healthy);
        let failures = recent.map_or(0, |memory| memory.failures).saturating_add(1);
        let window_start = recent.map_or(now, |memory| memory.window_start);
        Recovery { index, epoch, failures, window_start, next_retry: later(now, self.delay(failures)), reason }
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
    use super::*;

    fn backoff() -> Backoff {
        Backoff { first: Duration::from_secs(10), cap: Duration::from_secs(300), healthy: Duration::from_secs(600) }
    }

    #[test]
    fn the_first_loss_waits_not_at_all_and_the_rest_twice_as_long_each_up_to_the_cap() {
        let mut memory = None;
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for epoch in 2..10 {
            let next = backoff().after_loss(memory.as_ref(), (0, epoch, LossReason::Exited), now);
            waits.push(elapsed(now, next.next_retry).as_secs());
            now = later(next.next_retry, Duration::from_secs(5));
            memory = Some(next);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_without_a_loss_start_the_count_anew() {
        let first = backoff().after_loss(None, (3, 2, LossReason::Evicted), Timestamp::UNIX_EPOCH);
        let now = later(Timestamp::UNIX_EPOCH, Duration::from_secs(600));
        assert_eq!(
            backoff().after_loss(Some(&first), (3, 3, LossReason::NodeLost), now),
            Recovery {
                index: 3,
                epoch: 3,
                failures: 1,
                window_start: now,
                next_retry: now,
                reason: LossReason::NodeLost
            }
        );
    }
}
