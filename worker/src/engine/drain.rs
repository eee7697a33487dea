//! The drain of a group: leave together, accept a little longer, finish, keep the experts until nobody needs them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::handle::DrainPhase;
use crate::shards::group::Group;

/// How often the counts are looked at; also how long a request may be between two of them.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until anybody in the group wants to leave, then moves through every [`DrainPhase`].
pub(super) async fn drain(group: Arc<Group>, fault: Option<Fault>) {
    group.leave().cancelled().await;
    let begin = Instant::now();
    tracing::info!("leaving: the group drains");
    group.set_phase(DrainPhase::Leaving);
    if fault == Some(Fault::LeaveAtOnce) {
        return group.set_phase(DrainPhase::Done);
    }
    tokio::time::sleep(group.timing().accept).await;
    group.set_phase(DrainPhase::Refusing);
    finish(&group, begin).await;
    // The peers learn that we are done before our streams close.
    group.pulse();
    tokio::time::sleep(group.timing().linger).await;
    tracing::info!("drained");
    group.set_phase(DrainPhase::Done);
}

/// Until this shard twice in a row, and every peer, has nothing left; or the time is up.
async fn finish(group: &Group, begin: Instant) {
    let mut quiet = 0;
    let mut reported = None;
    loop {
        let streams = group.streams();
        quiet = if streams == 0 { quiet + 1 } else { 0 };
        if reported != Some(streams == 0) {
            reported = Some(streams == 0);
            group.pulse();
        }
        if quiet >= 2 && (group.peers_are_done() || group.lost().is_some()) {
            return;
        }
        if begin.elapsed() >= group.timing().drain {
            return group.fail("the drain took too long");
        }
        tokio::time::sleep(LOOK).await;
    }
}
