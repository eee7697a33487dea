//! The plain data of a rollout: groups, shards, budgets, steps.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::controller::recover::{Backoff, Recovery};

/// Everything that exists of one model, as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every group of which a shard exists or which was decided on; (index, epoch) is unique.
    pub groups: Vec<Group>,
    /// What was remembered of lost groups.
    pub recovery: Vec<Recovery>,
}

/// The shards that together hold one copy of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The slot, from 0; unique among the groups that are not [`Known::Removed`].
    pub index: u32,
    /// Which formation of the slot, from 1; only rises.
    pub epoch: u64,
    /// Hash of what the user asked for.
    pub revision: String,
    /// What was decided about the group before.
    pub known: Known,
    /// By rank.
    pub shards: Vec<Shard>,
    /// When its first shard was created.
    pub created: Option<Timestamp>,
}

/// What earlier decisions say about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// To be created: a missing shard was never made.
    Forming,
    /// All shards were made: a missing shard is a lost one.
    Formed,
    /// To be removed.
    Removed,
}

/// One shard, as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shard {
    /// Does not exist.
    Missing,
    /// Exists, does not run yet.
    Pending,
    /// Runs, is not ready.
    Running,
    /// Ready since then.
    Ready(Timestamp),
    /// Ended, or known never to come back.
    Lost(LossReason),
    /// Asked to end.
    Terminating,
}

/// Why a shard was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossReason {
    /// The node was short of something.
    Evicted,
    /// Made room for a pod of higher priority.
    Preempted,
    /// Killed for its memory.
    OutOfMemory,
    /// The image cannot be had.
    ImagePull,
    /// The process ended by itself.
    Exited,
    /// The node is unreachable or gone.
    NodeLost,
    /// Somebody deleted it.
    Deleted,
}

impl LossReason {
    /// The word used in status, Events and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "Evicted",
            Self::Preempted => "Preempted",
            Self::OutOfMemory => "OutOfMemory",
            Self::ImagePull => "ImagePull",
            Self::Exited => "CrashLoop",
            Self::NodeLost => "NodeLost",
            Self::Deleted => "Deleted",
        }
    }

    /// The reason that [`Self::as_str`] wrote; an unknown word reads as [`Self::Exited`].
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        [Self::Evicted, Self::Preempted, Self::OutOfMemory, Self::ImagePull, Self::NodeLost, Self::Deleted]
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .unwrap_or(Self::Exited)
    }
}

/// What the user wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The revision that every group shall have.
    pub revision: String,
    /// How many groups.
    pub replicas: u32,
    /// How many shards a group of the target revision has.
    pub shards: usize,
    /// The last revision that was rolled out whole, if it can still be built: its lost groups come back as they were.
    pub serving: Option<String>,
}

/// What a rollout may spend. Groups, not pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Groups beyond `replicas`.
    pub max_surge: u32,
    /// Groups below `replicas`; not both zero.
    pub max_unavailable: u32,
    /// How long a group must be ready to count as available.
    pub min_ready: Duration,
    /// How long the peers of a lost shard may stay pending before their group is given up.
    pub startup: Duration,
    /// How fast lost groups come back.
    pub backoff: Backoff,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make all shards of a group that do not exist.
    CreateGroup {
        /// The slot.
        index: u32,
        /// What to build.
        revision: String,
        /// Which formation.
        epoch: u64,
    },
    /// Delete all shards of a group, gracefully.
    RemoveGroup {
        /// The slot.
        index: u32,
        /// What it is.
        revision: String,
        /// Which formation.
        epoch: u64,
        /// Why.
        cause: Cause,
    },
    /// Nothing more can be done now.
    Wait {
        /// For what.
        why: Why,
        /// When time alone ends the wait.
        until: Option<Timestamp>,
    },
}

/// Why a group is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A shard was lost; the slot is formed again under the next epoch.
    Lost(LossReason),
    /// More groups than wanted.
    Excess,
    /// Another revision took its place.
    Superseded,
    /// Removal was decided before and is not finished.
    Unfinished,
}

/// What a rollout waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A lost group's back-off.
    BackOff,
    /// The pending peers of a lost shard.
    Peers,
    /// Groups that start.
    Starting,
    /// Groups that are ready, but not for long enough.
    MinReady,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateGroup { index, revision, epoch } => write!(f, "create g{index} e{epoch} {revision}"),
            Self::RemoveGroup { index, revision, epoch, cause } => {
                write!(f, "remove g{index} e{epoch} {revision} ({cause})")
            }
            Self::Wait { why, .. } => write!(f, "wait {}", format!("{why:?}").to_lowercase()),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(reason) => write!(f, "lost: {}", reason.as_str()),
            Self::Excess => f.write_str("excess"),
            Self::Superseded => f.write_str("superseded"),
            Self::Unfinished => f.write_str("unfinished"),
        }
    }
}
