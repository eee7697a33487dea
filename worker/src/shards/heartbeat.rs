//! Watches for silence. Never sends: every stream sends its own heartbeats.

use std::sync::Arc;
use std::time::Instant;

use super::group::Group;
use crate::engine::handle::DrainPhase;

/// Declares joined peers dead after `Timing::dead` of silence; ends with the drain.
///
/// When this very process was not running (stopped, or starved), the time lost is not held against the peers.
pub async fn monitor(group: Arc<Group>) {
    let period = group.timing().heartbeat / 4;
    let mut last = Instant::now();
    while group.phase() < DrainPhase::Done {
        tokio::time::sleep(period).await;
        let now = Instant::now();
        let pause = now.duration_since(last).saturating_sub(period * 2);
        last = now;
        if !pause.is_zero() {
            group.forgive(pause);
        }
        for rank in group.silent(now) {
            group.lose(rank, &format!("no sign of life for {:.1} s", group.timing().dead.as_secs_f32()));
        }
    }
}
