//! What a rollout may spend, from the wishes of a spec.
//!
//! Never decides: it turns user's units into those of [`super::step`] and divides intervals like all others.

use std::time::Duration;

use super::model::{Budget, Turn};
use crate::controller::recover::Restarts;
use crate::crd::{RecoveryWishes, Rollout, Span};
use crate::timing::Timing;

impl Budget {
    /// `load`: how long the weights of a shard may take to be read.
    #[must_use]
    pub fn new(rollout: &Rollout, recovery: &RecoveryWishes, timing: &Timing, load: Duration) -> Self {
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let window = recovery.window.duration().or_else(|| RecoveryWishes::default().window.duration());
        Self {
            max_surge: number(rollout.max_surge),
            max_unavailable: number(rollout.max_unavailable),
            max_accelerators: rollout.max_accelerators.map(number),
            paused: rollout.paused,
            turn: Turn::May,
            min_ready: timing.scale(Duration::from_secs(number(rollout.min_ready_seconds).into())),
            startup: timing.startup + timing.scale(load),
            unschedulable: timing.unschedulable,
            partial: timing.partial,
            progress: progress(rollout, timing, load),
            restarts: Restarts {
                backoff: timing.backoff,
                budget: number(recovery.restart_budget),
                window: timing.scale(window.unwrap_or_default()),
            },
        }
    }
}

fn progress(rollout: &Rollout, timing: &Timing, load: Duration) -> Duration {
    let asked = rollout.progress_deadline.as_ref().and_then(Span::duration).map(|asked| timing.scale(asked));
    asked.unwrap_or_else(|| timing.startup + timing.scale(load) + timing.progress)
}
