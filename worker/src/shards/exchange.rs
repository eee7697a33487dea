//! The step lane's side of an exchange: packed rows out to every peer that was chosen, checked sums back into ports.
//!
//! A step waits only for peers that it sent rows to, and for none of them longer than the progress deadline.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use shoal_proto::shard::Partials;
use tokio::sync::mpsc;

use super::frames::{FrameError, Label, Request, Shape, check_partials, cut};
use super::group::{Answer, Group};
use super::parcel::Parcel;
use super::ports;
use crate::backend::{Backend, BackendError};
use crate::engine::stats::EngineStats;
use crate::model::loaded::PeerPorts;

/// Why an exchange failed; the step is void.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A port failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The group lost a peer, or gives up on one now.
    #[error("{0}")]
    Lost(String),
}

/// A peer that owns experts.
pub struct Owner {
    /// Its rank.
    pub rank: u32,
    /// Its experts.
    pub owned: Vec<Range<u32>>,
    /// Between its rows and our device.
    pub ports: PeerPorts,
    /// To its link.
    pub link: mpsc::Sender<Vec<Parcel>>,
}

/// All that the step lane needs to exchange rows.
pub struct Exchange {
    /// What this shard knows of its group.
    pub group: Arc<Group>,
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// Sizes of rows and frames.
    pub shape: Shape,
    /// Peers that own experts.
    pub owners: Vec<Owner>,
    /// From every link.
    pub answers: Receiver<Answer>,
    /// Next sequence number of every owner's pair.
    pub sequences: Vec<u64>,
}

/// What one peer still owes.
struct Debt {
    requests: Vec<Request>,
    answers: Vec<Option<Partials>>,
    progress: Instant,
}

impl Debt {
    fn open(&self) -> bool {
        self.answers.iter().any(Option::is_none)
    }
}

/// Rows under way; one entry per owner.
pub struct UnderWay {
    debts: Vec<Debt>,
}

impl Exchange {
    /// Sends the rows that the last segment packed for mixture layer `layer`.
    ///
    /// # Errors
    /// [`ExchangeError`]; nothing of the step may be used then.
    pub fn send(&mut self, step: u64, layer: u32) -> Result<UnderWay, ExchangeError> {
        let mut debts = Vec::with_capacity(self.owners.len());
        for (owner, sequence) in self.owners.iter().zip(&mut self.sequences) {
            let batch = ports::read_rows(self.backend.as_ref(), &owner.ports.rows, self.shape.hidden)?;
            EngineStats::add(&self.group.stats().expert_pairs_remote, batch.expert.len() as u64);
            let requests = cut(&batch, &self.shape, &owner.owned, Label { step, layer, sequence: *sequence });
            *sequence += requests.len() as u64;
            if !requests.is_empty() {
                let rows = requests.iter().map(|request| Parcel::Rows(request.rows.clone())).collect();
                let gone = |_| ExchangeError::Lost(format!("the stream to rank {} has ended", owner.rank));
                owner.link.try_send(rows).map_err(gone)?;
            }
            debts.push(Debt { answers: vec![None; requests.len()], requests, progress: Instant::now() });
        }
        Ok(UnderWay { debts })
    }

    /// Waits for every sum that is due and writes it where the next segment reads it.
    ///
    /// # Errors
    /// [`ExchangeError`] after at most the progress deadline; nothing of the step may be used then.
    pub fn collect(&mut self, mut under_way: UnderWay) -> Result<(), ExchangeError> {
        while under_way.debts.iter().any(Debt::open) {
            match self.answers.recv_timeout(self.patience(&under_way)) {
                Ok(Answer::Partials(rank, partials)) => self.take(rank, partials, &mut under_way)?,
                Ok(Answer::Lost) => {}
                Err(_) => self.give_up_on_the_slowest(&under_way),
            }
            if let Some(reason) = self.group.lost() {
                return Err(ExchangeError::Lost(reason));
            }
        }
        for (owner, debt) in self.owners.iter().zip(under_way.debts) {
            let frames: Vec<Partials> = debt.answers.into_iter().flatten().collect();
            ports::write_partials(self.backend.as_ref(), &owner.ports.partials, &frames)?;
        }
        Ok(())
    }

    /// Until the first progress deadline.
    fn patience(&self, under_way: &UnderWay) -> Duration {
        let limit = self.group.timing().progress;
        let left = |debt: &Debt| limit.saturating_sub(debt.progress.elapsed());
        under_way.debts.iter().filter(|debt| debt.open()).map(left).min().unwrap_or(limit)
    }

    fn give_up_on_the_slowest(&self, under_way: &UnderWay) {
        let limit = self.group.timing().progress;
        for (owner, debt) in self.owners.iter().zip(&under_way.debts) {
            if debt.open() && debt.progress.elapsed() >= limit {
                let seconds = limit.as_secs_f32();
                self.group.fail(&format!("peer rank {} is lost: no answer to its rows for {seconds:.1} s", owner.rank));
            }
        }
    }

    fn take(&self, rank: u32, partials: Partials, under_way: &mut UnderWay) -> Result<(), ExchangeError> {
        let Some(index) = self.owners.iter().position(|owner| owner.rank == rank) else { return Ok(()) };
        let debt = &mut under_way.debts[index];
        let Some(place) = debt.requests.iter().position(|request| request.rows.sequence == partials.sequence) else {
            return Ok(());
        };
        check_partials(&partials, &debt.requests[place], &self.shape).map_err(|FrameError(why)| {
            let reason = format!("it answered wrongly: {why}");
            self.group.lose(rank, &reason);
            ExchangeError::Lost(format!("peer rank {rank} is lost: {reason}"))
        })?;
        debt.answers[place] = Some(partials);
        debt.progress = Instant::now();
        Ok(())
    }
}
