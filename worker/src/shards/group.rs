//! What one shard knows of its group: who has joined, who was heard when, who leaves, and whether the group still
//! serves. Shared by the streams, the monitor and the step lane; never waits and never dials.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_proto::shard::{Heartbeat, Identity, Partials};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::timing::Timing;
use crate::engine::handle::{DrainPhase, Readiness};
use crate::engine::stats::EngineStats;

/// What reaches the step lane while it waits for peers.
#[derive(Debug)]
pub enum Answer {
    /// Sums from a rank, once per request.
    Partials(u32, Partials),
    /// The group is lost; [`Group::lost`] says why.
    Lost,
}

/// Counts the requests that this shard still has to finish.
pub type CountStreams = Arc<dyn Fn() -> u32 + Send + Sync>;

/// Counts what this shard has computed.
pub type CountProgress = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a [`Group`] is made of.
pub struct GroupParts {
    /// Of this shard.
    pub identity: Identity,
    /// Intervals.
    pub timing: Timing,
    /// Own requests.
    pub streams: CountStreams,
    /// Own work.
    pub progress: CountProgress,
    /// To the step lane; has room for every answer that may be outstanding.
    pub answers: SyncSender<Answer>,
    /// To the front.
    pub readiness: watch::Sender<Readiness>,
    /// To the front and to every stream.
    pub drain: watch::Sender<DrainPhase>,
    /// Cancelled by whoever wants the group to leave.
    pub leave: CancellationToken,
    /// Counters.
    pub stats: Arc<EngineStats>,
}

/// One shard's knowledge of its group.
pub struct Group {
    parts: GroupParts,
    members: Mutex<Vec<Member>>,
    pulse: watch::Sender<u64>,
}

/// What is known of one peer.
#[derive(Debug, Clone, Copy)]
struct Member {
    /// Whether the stream to it has been up once in this epoch.
    joined: bool,
    /// When it was last heard, on either stream.
    heard: Instant,
    /// Requests that it still has to finish.
    streams: u32,
    /// Whether it refuses new requests.
    refusing: bool,
    /// What it has computed, and when that was last another number.
    progress: (u64, Instant),
}

impl Group {
    /// A group that nobody else has joined yet.
    #[must_use]
    pub fn new(parts: GroupParts, now: Instant) -> Self {
        let stranger = Member { joined: false, heard: now, streams: 0, refusing: false, progress: (0, now) };
        let members = Mutex::new(vec![stranger; parts.identity.size as usize]);
        Self { parts, members, pulse: watch::Sender::new(0) }
    }

    /// Who this shard is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.parts.identity
    }

    /// The intervals of the group.
    #[must_use]
    pub fn timing(&self) -> &Timing {
        &self.parts.timing
    }

    /// The worker's counters.
    #[must_use]
    pub fn stats(&self) -> &EngineStats {
        &self.parts.stats
    }

    /// The same, for another thread.
    #[must_use]
    pub fn stats_handle(&self) -> Arc<EngineStats> {
        Arc::clone(&self.parts.stats)
    }

    /// Cancelled once anybody in the group wants to leave.
    #[must_use]
    pub fn leave(&self) -> &CancellationToken {
        &self.parts.leave
    }

    /// How far the drain has come.
    #[must_use]
    pub fn phase(&self) -> DrainPhase {
        *self.parts.drain.borrow()
    }

    /// Moves the drain and tells every stream.
    pub fn set_phase(&self, phase: DrainPhase) {
        self.parts.drain.send_replace(phase);
        self.pulse();
    }

    /// Changes whenever a stream should send a heartbeat at once.
    #[must_use]
    pub fn pulses(&self) -> watch::Receiver<u64> {
        self.pulse.subscribe()
    }

    /// Makes every stream send a heartbeat at once.
    pub fn pulse(&self) {
        self.pulse.send_modify(|count| *count += 1);
    }

    /// Requests that this shard still has to finish.
    #[must_use]
    pub fn streams(&self) -> u32 {
        (self.parts.streams)()
    }

    /// The next heartbeat of a stream.
    #[must_use]
    pub fn heartbeat(&self, count: u64) -> Heartbeat {
        let draining = self.phase() >= DrainPhase::Refusing;
        Heartbeat { count, streams: self.streams(), draining, progress: (self.parts.progress)() }
    }

    /// The stream to `rank` is up.
    pub fn join(&self, rank: u32, now: Instant) {
        self.with(rank, |member| {
            member.joined = true;
            member.heard = now;
        });
    }

    /// Whether the stream to `rank` has been up in this epoch.
    #[must_use]
    pub fn has_joined(&self, rank: u32) -> bool {
        self.members().get(rank as usize).is_some_and(|member| member.joined)
    }

    /// Whether every peer has joined.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let own = self.parts.identity.rank as usize;
        self.members().iter().enumerate().all(|(rank, member)| rank == own || member.joined)
    }

    /// Any frame of `rank` has arrived.
    pub fn hear(&self, rank: u32, now: Instant) {
        self.with(rank, |member| member.heard = now);
    }

    /// A heartbeat of `rank` has arrived.
    pub fn hear_heartbeat(&self, rank: u32, heartbeat: &Heartbeat, now: Instant) {
        self.with(rank, |member| {
            member.heard = now;
            member.streams = heartbeat.streams;
            member.refusing = heartbeat.draining;
            if heartbeat.progress != member.progress.0 {
                member.progress = (heartbeat.progress, now);
            }
        });
    }

    /// When a heartbeat last told that a peer had computed; heartbeats come each [`Timing::heartbeat`].
    #[must_use]
    pub fn last_progress(&self) -> Option<Instant> {
        self.members().iter().filter(|member| member.joined).map(|member| member.progress.1).max()
    }

    /// Gives every peer `pause` more: this process did not run for so long, so silence proves nothing.
    pub fn forgive(&self, pause: Duration) {
        self.members().iter_mut().for_each(|member| member.heard += pause);
    }

    /// Joined peers that have been silent for longer than `dead`.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Vec<u32> {
        let own = self.parts.identity.rank;
        let is_silent = |m: &Member| m.joined && now.saturating_duration_since(m.heard) > self.parts.timing.dead;
        let members = self.members();
        (0..).zip(members.iter()).filter(|(rank, m)| *rank != own && is_silent(m)).map(|(rank, _)| rank).collect()
    }

    /// Whether no peer has a request left or takes a new one; those that never joined have none.
    #[must_use]
    pub fn peers_are_done(&self) -> bool {
        let own = self.parts.identity.rank as usize;
        let done = |member: &Member| !member.joined || (member.refusing && member.streams == 0);
        self.members().iter().enumerate().all(|(rank, member)| rank == own || done(member))
    }

    /// Whether the loss of a peer harms nobody: this shard refuses new requests and has finished its own.
    #[must_use]
    pub fn needs_nobody(&self) -> bool {
        self.phase() >= DrainPhase::Refusing && self.streams() == 0
    }

    /// Declares `rank` lost: readiness drops for the rest of the epoch and the step lane ends its streams.
    pub fn lose(&self, rank: u32, reason: &str) {
        if self.needs_nobody() {
            // It has finished and gone, or its fate no longer matters: it owes us nothing.
            self.with(rank, |member| member.joined = false);
            return;
        }
        self.fail(&format!("peer rank {rank} is lost: {reason}"));
    }

    /// Ends the group's service because `rank` breaks the protocol, whoever needs it.
    pub fn accuse(&self, rank: u32, why: &str) {
        self.fail(&format!("peer rank {rank} is lost: it sent {why}"));
    }

    /// Ends the group's service for the rest of the epoch; the first reason stays.
    pub fn fail(&self, reason: &str) {
        let first = self.parts.readiness.send_if_modified(|readiness| {
            let first = !matches!(readiness, Readiness::Lost { .. });
            if first {
                *readiness = Readiness::Lost { reason: reason.to_owned() };
            }
            first
        });
        if first {
            tracing::error!(reason, epoch = self.parts.identity.epoch, "the group can serve no more");
            EngineStats::add(&self.parts.stats.peer_losses, 1);
            // A full channel wakes the step lane as well; it looks at `lost` after every message.
            drop(self.parts.answers.try_send(Answer::Lost));
        }
    }

    /// Why the group can serve no more, once it is so.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        match &*self.parts.readiness.borrow() {
            Readiness::Lost { reason } => Some(reason.clone()),
            Readiness::Starting | Readiness::Ready => None,
        }
    }

    /// Changes when the group becomes ready or is lost.
    #[must_use]
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.parts.readiness.subscribe()
    }

    /// This epoch has answered a real token.
    pub fn set_ready(&self) {
        self.parts.readiness.send_if_modified(|readiness| {
            let starting = *readiness == Readiness::Starting;
            if starting {
                *readiness = Readiness::Ready;
            }
            starting
        });
    }

    /// Hands an answer to the step lane; whether there was room, as the protocol guarantees.
    #[must_use]
    pub fn deliver(&self, rank: u32, partials: Partials) -> bool {
        self.parts.answers.try_send(Answer::Partials(rank, partials)).is_ok()
    }

    fn with(&self, rank: u32, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members().get_mut(rank as usize) {
            change(member);
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "group/tests.rs"]
mod tests;
