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
    /// How the group stands; a deleted shard counts as a loss, whoever deleted it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let lost = self.shards.iter().find_map(|shard| match shard {
            Shard::Lost(reason) => Some(*reason),
            Shard::Terminating => Some(LossReason::Deleted),
            Shard::Missing if self.known == Known::Formed => Some(LossReason::Deleted),
            _ => None,
        });
        if let Some(reason) = lost {
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

    /// Nothing of it is left, or everything that is left was told to end.
    pub(super) fn gone(&self) -> bool {
        self.shards.iter().all(|shard| matches!(shard, Shard::Missing | Shard::Terminating))
    }

    /// The most telling reason among the lost shards: a process's own before the deletions that followed.
    pub(super) fn loss(&self) -> Option<LossReason> {
        let own = self.shards.iter().find_map(|shard| match shard {
            Shard::Lost(reason) => Some(*reason),
            _ => None,
        });
        match self.standing() {
            Standing::Lost(reason) => Some(own.unwrap_or(reason)),
            _ => None,
        }
    }
}
