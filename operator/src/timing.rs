//! Every interval of the operator, in one place: tests of whole clusters divide them all.
//!
//! Never the intervals that a user writes in a spec; those are scaled through [`Timing::scale`] where they are read.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::controller::recover::Backoff;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long an unchanged lease is respected.
    pub lease: Duration,
    /// How long a leader tries to renew before it gives up; shorter than `lease`.
    pub renew: Duration,
    /// Between two tries to acquire or renew.
    pub retry: Duration,
    /// How fast lost groups come back.
    pub backoff: Backoff,
    /// How long an image may take to be pulled, beside what the weights need.
    pub startup: Duration,
    /// How long the scheduler may find no room for a shard before its whole group is withdrawn.
    pub unschedulable: Duration,
    /// How long a group may be half made before it is withdrawn; short of the minute after which none may exist.
    pub partial: Duration,
    /// How much longer than its start a rollout may go without progress, where the spec does not say.
    pub progress: Duration,
    /// The wait after the first failed pass of an object, doubled each time up to `error_cap`.
    pub error_first: Duration,
    /// The longest wait after a failed pass.
    pub error_cap: Duration,
    /// How long a write of ours that no watch has shown is believed before the server is asked about it.
    pub unseen: Duration,
    divisor: NonZeroU32,
}

impl Timing {
    /// The published intervals, divided.
    #[must_use]
    pub fn divided(divisor: NonZeroU32) -> Self {
        let seconds = |s: u64| Duration::from_secs(s) / divisor.get();
        Self {
            // However much is divided: a busy machine does not answer every half second.
            lease: seconds(15).max(Duration::from_millis(2500)),
            renew: seconds(10).max(Duration::from_millis(2000)),
            retry: seconds(2),
            backoff: Backoff { first: seconds(10), cap: seconds(300), healthy: seconds(600) },
            startup: seconds(600),
            unschedulable: seconds(10),
            // As above: a successor waits for the lease before it can complete what it finds half made.
            partial: seconds(45).max(Duration::from_secs(8)),
            progress: seconds(600),
            error_first: seconds(1),
            error_cap: seconds(60),
            unseen: seconds(60),
            divisor,
        }
    }

    /// An interval from a spec, divided like the others.
    #[must_use]
    pub fn scale(&self, interval: Duration) -> Duration {
        interval / self.divisor.get()
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::divided(NonZeroU32::MIN)
    }
}
