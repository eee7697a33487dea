//! The lanes of a pipeline: rank 0 schedules and accepts ([`first`]), the others compute what arrives ([`stage`]).

pub(super) mod first;
pub(super) mod join;
pub(super) mod stage;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::stats::EngineStats;
use crate::backend::{Backend, BackendError, Control, Executable, Lane, Report};
use crate::model::loaded::StagePorts;
use crate::shards::group::Group;
use crate::shards::parcel::Parcel;
use crate::shards::pipeline::StageShape;
use crate::shards::pipeline::frames::{Parts, cut};

/// The layers of this stage on their device.
pub(super) struct StageDevice {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) whole: Executable,
    pub(super) ports: StagePorts,
    pub(super) shape: StageShape,
    pub(super) stats: Arc<EngineStats>,
}

impl StageDevice {
    /// Runs one step over the rows that arrived, if any do; its report and the rows that leave.
    ///
    /// # Errors
    /// [`BackendError`]: then nothing of the step may be used.
    fn run(&self, control: &Control, input: &[u8]) -> Result<(Report, Bytes), BackendError> {
        if let Some(port) = self.ports.input {
            self.backend.write_port(port, input)?;
        }
        let ticket = self.backend.submit(self.whole, control, Lane::Step)?;
        let report = self.backend.wait(ticket)?;
        let mut rows = Vec::new();
        if let Some(port) = self.ports.output {
            rows.resize(control.rows * self.shape.row_bytes(), 0);
            self.backend.read_port(port, &mut rows)?;
        }
        EngineStats::add(&self.stats.steps, 1);
        EngineStats::add(&self.stats.expert_pairs_local, report.expert_pairs);
        EngineStats::add(&self.stats.experts_read, report.experts_read);
        Ok((report, rows.into()))
    }
}

/// The way to the rank that continues.
pub(super) struct Onward {
    pub(super) group: Arc<Group>,
    pub(super) rank: u32,
    pub(super) link: mpsc::Sender<Vec<Parcel>>,
    /// Of the next frame.
    pub(super) sequence: u64,
}

impl Onward {
    /// Passes a step on to the next stage; counted first, so that whoever has the answer finds all its rows counted.
    ///
    /// # Errors
    /// Why the group is lost.
    fn pass(&mut self, parts: Parts, shape: &StageShape) -> Result<(), String> {
        let rows = parts.activation.len() / shape.row_bytes().max(1);
        let frames = cut(parts, self.sequence, shape.row_bytes());
        self.sequence += frames.len() as u64;
        EngineStats::add(&self.group.stats().stage_rows, rows as u64);
        self.send(frames.into_iter().map(Parcel::Stage).collect())
    }

    /// Frames that are numbered already.
    fn send(&self, parcels: Vec<Parcel>) -> Result<(), String> {
        let gone = |_| format!("the stream to rank {} takes no more steps", self.rank);
        self.link.try_send(parcels).map_err(gone)
    }
}
