//! How a group stands: derived from its shards, never stored.

use std::time::Duration;

use jiff::Timestamp;

use super::model::{Group, Known, LossReason, Shard};
use crate::controller::recover::later;

/// How a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Shards are still to be made.
    Incomplete,
    /// All shards exist, not all are ready.
    Starting,
    /// All shards are ready, the last since then.
    Ready(Timestamp),
    /// A shard is gone for good.
    Lost(LossReason),
}

impl Group {
    /// A group of which nothing exists yet.
    #[must_use]
    pub fn new((index, epoch): (u32, u64), revision: String, shards: usize) -> Self {
        let shards = vec![Shard::Missing; shards];
        Self { index, epoch, revision, known: Known::Forming, shards, created: None, note: None, last_note: None }
    }

    /// How the group stands; a deleted shard counts as a loss, whoever deleted it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if let Some(reason) = self.loss() {
            return Standing::Lost(reason);
        }
        if self.shards.contains(&Shard::Missing) {
            return Standing::Incomplete;
        }
        let since = self.shards.iter().map(|shard| match shard {
            Shard::Ready(since) => Some(*since),
            _ => None,
        });
        since
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max())
            .map_or(Standing::Starting, Standing::Ready)
    }

    /// Whether it counts for serving: ready for at least `min_ready`.
    #[must_use]
    pub fn available(&self, min_ready: Duration, now: Timestamp) -> bool {
        matches!(self.standing(), Standing::Ready(since) if later(since, min_ready) <= now)
    }

    /// The most telling reason among the lost shards: a process's own before the deletions that followed.
    pub(super) fn loss(&self) -> Option<LossReason> {
        let reason = |shard: &Shard| match shard {
            Shard::Lost(reason) => Some(*reason),
            Shard::Stranded => Some(LossReason::NodeLost),
            Shard::Terminating => Some(LossReason::Deleted),
            Shard::Missing if self.known == Known::Formed => Some(LossReason::Deleted),
            _ => None,
        };
        let own = self.shards.iter().filter_map(reason).find(|reason| *reason != LossReason::Deleted);
        own.or_else(|| self.shards.iter().find_map(reason))
    }

    /// Since when the scheduler has found no room for one of its shards.
    pub(super) fn unschedulable_since(&self) -> Option<Timestamp> {
        let since = self.shards.iter().filter_map(|shard| match shard {
            Shard::Unschedulable(since) => Some(*since),
            _ => None,
        });
        since.min()
    }

    /// Some of its shards exist, others were never made.
    pub(super) fn is_half_made(&self) -> bool {
        let missing = self.missing();
        self.known == Known::Forming && missing > 0 && missing < self.shards.len()
    }

    /// The scheduler has still to find room for it.
    pub(super) fn is_being_placed(&self) -> bool {
        self.is_half_made() || self.shards.iter().any(|shard| matches!(shard, Shard::Pending | Shard::Unschedulable(_)))
    }

    /// Shards that do not exist.
    pub(super) fn missing(&self) -> usize {
        self.shards.iter().filter(|shard| **shard == Shard::Missing).count()
    }

    /// Shards that count against `maxAccelerators`.
    pub(super) fn accelerators(&self) -> usize {
        self.shards.iter().filter(|shard| shard.holds_accelerator()).count()
    }

    /// Nothing of it is left, or everything that is left was told to end.
    pub(super) fn gone(&self) -> bool {
        self.shards.iter().all(|shard| *shard == Shard::Missing || shard.is_ending())
    }
}
