//! The expert lane: a thread that computes peers' rows one frame at a time, in order of arrival, and never waits for
//! anybody but the device.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use shoal_proto::shard::{ExchangeResponse, Partials, Refused, Rows, exchange_response};
use tokio::sync::mpsc;
use tonic::Status;

use super::frames::{Shape, check_rows};
use super::ports;
use crate::backend::{Backend, BackendError, Control, Executable, Lane};
use crate::engine::fault::Fault;
use crate::engine::stats::EngineStats;
use crate::model::loaded::ServePorts;

/// One frame of a peer's rows with the way back.
#[derive(Debug)]
pub struct Job {
    /// Of the stream that it came on.
    pub epoch: u64,
    /// Not checked yet.
    pub rows: Rows,
    /// The stream's way down; never waited for.
    pub reply: mpsc::Sender<Result<ExchangeResponse, Status>>,
}

/// What the lane works with.
pub struct ExpertLane {
    /// The device, shared with the step lane.
    pub backend: Arc<dyn Backend>,
    /// `Serve(i)` by mixture layer.
    pub serve: Vec<Executable>,
    /// Its ports.
    pub ports: ServePorts,
    /// What a frame may hold.
    pub shape: Shape,
    /// Experts of this shard.
    pub owned: Vec<Range<u32>>,
    /// Counters.
    pub stats: Arc<EngineStats>,
    /// What a test wants broken.
    pub fault: Option<Fault>,
}

impl ExpertLane {
    /// Serves until every sender of jobs is gone.
    pub fn run(self, jobs: &Receiver<Job>) {
        for (served, job) in (0_u64..).zip(jobs) {
            if matches!(self.fault, Some(Fault::HangExpertLaneAfter(limit)) if served >= limit) {
                tracing::warn!(served, "the expert lane hangs, as --fault asks");
                loop {
                    std::thread::park();
                }
            }
            // The stream is gone: its rows come again on the next one.
            if job.reply.is_closed() {
                continue;
            }
            let sequence = job.rows.sequence;
            let frame = match self.serve(&job.rows) {
                Ok(partials) => exchange_response::Frame::Partials(partials),
                Err((code, message)) => {
                    tracing::error!(code, message, "refused a peer's rows");
                    let code = code.to_owned();
                    exchange_response::Frame::Refused(Refused { sequence, code, message, retryable: false })
                }
            };
            // No room or no stream: the requester asks again on its next stream, or gives up on its own deadline.
            drop(job.reply.try_send(Ok(ExchangeResponse { epoch: job.epoch, frame: Some(frame) })));
        }
    }

    fn serve(&self, rows: &Rows) -> Result<Partials, (&'static str, String)> {
        check_rows(rows, &self.shape, &self.owned).map_err(|error| ("INVALID_ARGUMENT", error.to_string()))?;
        let mut partials = self.compute(rows).map_err(|error| ("INTERNAL", error.to_string()))?;
        if self.fault == Some(Fault::ZeroPartials) {
            partials.sum = vec![0; partials.sum.len()].into();
        }
        EngineStats::add(&self.stats.expert_pairs_served, rows.expert.len() as u64);
        Ok(partials)
    }

    fn compute(&self, rows: &Rows) -> Result<Partials, BackendError> {
        ports::write_rows(self.backend.as_ref(), &self.ports.rows, rows)?;
        let ticket = self.backend.submit(self.serve[rows.layer as usize], &Control::default(), Lane::Expert)?;
        let report = self.backend.wait(ticket)?;
        EngineStats::add(&self.stats.experts_read, report.experts_read);
        ports::read_partials(self.backend.as_ref(), &self.ports.partials, rows, self.shape.hidden)
    }
}
