//! Which groups to create and which to remove: a pure function on plain data, used by the operator and by `shoal up`.
//!
//! ```text
//! observed groups ──► lost? ──► excess? ──► unfinished? ──► room for the target? ──► wait
//!                      │           │            │                  │
//!                 remove + e+1   remove     create again        create
//! ```
//! One call returns every step that the budget permits, in the order in which they must be carried out, and what to
//! remember. Never reads a clock, never talks to anything, never looks inside a revision.

mod budget;
mod create;
mod lose;
mod model;
mod remove;
mod standing;
mod state;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use self::model::{Budget, Cause, Group, Known, LossReason, Observed, Serving, Shard, Step, Target, Turn, Why};
pub use self::standing::Standing;
use self::state::State;
use super::recover::Recovery;

/// What one call of [`step`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// In order; a trailing [`Step::Wait`] says what is waited for. Empty: settled.
    pub steps: Vec<Step>,
    /// The groups that shall exist once the steps are done, by index. Remembered (with [`Known`]) before the steps are
    /// carried out: whatever is not on this list and still there is being removed.
    pub groups: Vec<Group>,
    /// What to remember of lost groups, by index. Remembered before the steps are carried out.
    pub recovery: Vec<Recovery>,
    /// When a lost slot will have been healthy for long enough to be forgotten, or a half-made group is withdrawn.
    pub again: Option<Timestamp>,
}

impl Decision {
    /// True when something is to be created or removed.
    #[must_use]
    pub fn acts(&self) -> bool {
        self.steps.iter().any(|step| !matches!(step, Step::Wait { .. }))
    }

    /// When to look again even if nothing changes; `None`: only a change matters.
    #[must_use]
    pub fn look_again(&self) -> Option<Timestamp> {
        let awaited = self.steps.iter().find_map(|step| match step {
            Step::Wait { until, .. } => *until,
            _ => None,
        });
        awaited.into_iter().chain(self.again).min()
    }
}

/// Decides the next steps towards `target`.
///
/// Rules: a group with a lost shard, or with one that finds no room, is removed whole and formed again once, under the
/// next epoch and its own revision; never more than `replicas + max_surge` groups, nor shards than `max_accelerators`;
/// a group that is available is removed only while `replicas - max_unavailable` others are; never-ready groups of
/// superseded revisions go first; in a pause only lost groups and the number of groups are looked after.
#[must_use]
pub fn step(observed: &Observed, target: &Target, budget: &Budget, now: Timestamp) -> Decision {
    let mut state = State::new(observed, target, budget, now);
    state.forget_healthy();
    state.finish_removals();
    state.remove_excess();
    state.recover_lost();
    state.create_missing();
    state.finish()
}
