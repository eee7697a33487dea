//! The plain data of a rollout: groups, shards, budgets, steps.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use crate::controller::recover::{Recovery, Restarts};

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
    /// Why it is not ready, in the words of whoever knows: scheduler, kubelet, API server, a lost process's last lines.
    pub note: Option<String>,
    /// What was told of it last, for when none of its pods is left to tell.
    pub last_note: Option<String>,
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
    /// Held back by a scheduling gate of somebody else: waits, and is no failure.
    Gated,
    /// Pending, and since then the scheduler has said that it fits nowhere; [`Group::note`] holds its words.
    Unschedulable(Timestamp),
    /// Runs, is not ready.
    Running,
    /// Ready since then.
    Ready(Timestamp),
    /// Ended, or known never to come back. [`LossReason::NodeLost`]: its node holds nothing that could be used.
    Lost(LossReason),
    /// Asked to end.
    Terminating,
    /// Asked to end, but its node is unreachable: nobody can say when it is gone, and it holds nothing that could be
    /// used.
    Stranded,
}

impl Shard {
    /// Was told to end.
    #[must_use]
    pub fn is_ending(self) -> bool {
        matches!(self, Self::Terminating | Self::Stranded)
    }

    /// Counts against `maxAccelerators`: exists, and not on an unreachable node.
    #[must_use]
    pub fn holds_accelerator(self) -> bool {
        !matches!(self, Self::Missing | Self::Stranded | Self::Lost(LossReason::NodeLost))
    }
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
    /// Somebody changed its labels or its owner: neither Services nor its group can rely on it any more.
    Altered,
    /// The scheduler found no room for it in time: its group was withdrawn. Not a crash.
    Unschedulable,
    /// It could not be made in time, by quota for example: its half-made group was withdrawn. Not a crash.
    Incomplete,
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
            Self::Altered => "Altered",
            Self::Unschedulable => "Unschedulable",
            Self::Incomplete => "Incomplete",
        }
    }

    /// True when the shard itself failed, and nobody took it away: its peers may yet tell why.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::Exited | Self::OutOfMemory | Self::ImagePull)
    }

    /// True for a group that was withdrawn for want of room, and did not crash: it eats no restart budget.
    #[must_use]
    pub fn is_withdrawal(self) -> bool {
        matches!(self, Self::Unschedulable | Self::Incomplete)
    }

    /// The reason that [`Self::as_str`] wrote; an unknown word reads as [`Self::Exited`].
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let all = [
            Self::Evicted,
            Self::Preempted,
            Self::OutOfMemory,
            Self::ImagePull,
            Self::NodeLost,
            Self::Deleted,
            Self::Altered,
            Self::Unschedulable,
            Self::Incomplete,
        ];
        all.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Exited)
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
    pub serving: Option<Serving>,
}

/// What serves until the target does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Its revision.
    pub revision: String,
    /// How many shards its groups have.
    pub shards: usize,
}

/// What a rollout may spend. Groups, not pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Groups beyond `replicas`.
    pub max_surge: u32,
    /// Groups below `replicas`; not both zero.
    pub max_unavailable: u32,
    /// Shards that may exist at once, those that end included; see [`Shard::holds_accelerator`].
    pub max_accelerators: Option<u32>,
    /// No group of a new revision is made and none of an old one removed.
    pub paused: bool,
    /// Whether groups may be made now.
    pub turn: Turn,
    /// How long a group must be ready to count as available.
    pub min_ready: Duration,
    /// How long the peers of a lost shard may stay pending before their group is given up.
    pub startup: Duration,
    /// How long the scheduler may find no room for a shard before the whole group is withdrawn.
    pub unschedulable: Duration,
    /// How long a group may be half made before what there is of it is withdrawn.
    pub partial: Duration,
    /// How long a rollout may go without progress.
    pub progress: Duration,
    /// How fast and how often lost groups come back.
    pub restarts: Restarts,
}

/// The word of the queue across models: only its head may make pods of which none exists yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Groups may be made.
    #[default]
    May,
    /// Groups may be made, and those that were withdrawn need not wait any longer: room may have come.
    Retry,
    /// Others come first. Half-made groups are completed all the same.
    NotYet {
        /// When to ask again though nothing changed; `None`: the queue itself brings the model back.
        until: Option<Timestamp>,
    },
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

/// What a rollout waits for; of several, the first named here is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The end of the window in which a slot was lost more often than its budget allows.
    GivenUp,
    /// Room under `maxAccelerators`.
    Accelerators,
    /// Its turn, or another group of the model that is being placed.
    Queue,
    /// A shard for which the scheduler finds no room.
    Room,
    /// A lost group's back-off.
    BackOff,
    /// The pending peers of a lost shard.
    Peers,
    /// Whoever holds the scheduling gates.
    Gates,
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
            Self::Lost(reason) if reason.is_withdrawal() => write!(f, "withdrawn: {}", reason.as_str()),
            Self::Lost(reason) => write!(f, "lost: {}", reason.as_str()),
            Self::Excess => f.write_str("excess"),
            Self::Superseded => f.write_str("superseded"),
            Self::Unfinished => f.write_str("unfinished"),
        }
    }
}
