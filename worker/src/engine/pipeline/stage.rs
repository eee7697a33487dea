//! The lane of rank 1 and higher: runs the steps that arrive, in their order, and passes each on. Never schedules and never
//! waits for anybody but the device.

use std::sync::Arc;

use shoal_proto::shard::Stage;
use tokio::sync::mpsc;

use super::{Onward, StageDevice};
use crate::backend::Report;
use crate::engine::fault::Fault;
use crate::shards::frames::FrameError;
use crate::shards::group::Group;
use crate::shards::parcel::Parcel;
use crate::shards::pipeline::frames::{Arrived, Assembly, Parts};
use crate::shards::pipeline::{merge_faults, outcome};

/// The lane before it runs.
pub(in crate::engine) struct StageLane {
    pub(in crate::engine) group: Arc<Group>,
    pub(in crate::engine) device: StageDevice,
    /// To the next stage, or from the last one to rank 0.
    pub(in crate::engine) onward: Onward,
    /// What a test wants broken.
    pub(in crate::engine) fault: Option<Fault>,
}

impl StageLane {
    /// Runs until every sender of frames is gone. Once the group is lost frames are dropped.
    pub(in crate::engine) fn run(mut self, mut frames: mpsc::Receiver<Stage>) {
        let mut assembly = Assembly::new(self.device.shape);
        let mut steps = 0;
        while let Some(frame) = frames.blocking_recv() {
            if self.group.lost().is_some() {
                continue;
            }
            let arrived = match assembly.push(&frame) {
                Ok(Some(arrived)) => arrived,
                Ok(None) => continue,
                Err(FrameError(why)) => {
                    self.group.accuse(self.group.identity().rank.saturating_sub(1), &why);
                    continue;
                }
            };
            self.hang(steps);
            steps += 1;
            match self.step(arrived) {
                // The first token of the epoch has come through here.
                Ok(()) => self.group.set_ready(),
                Err(reason) => self.group.fail(&reason),
            }
        }
    }

    fn step(&mut self, arrived: Arrived) -> Result<(), String> {
        let Arrived { parts: Parts { step, plan, activation, faults }, control } = arrived;
        let done = self.device.run(&control, &activation);
        let (report, activation) = done.map_err(|error| format!("the device failed: {error}"))?;
        let faults = merge_faults(faults, report.non_finite);
        if self.device.ports.output.is_some() {
            return self.onward.pass(Parts { step, plan, activation, faults }, &self.device.shape);
        }
        let report = Report { non_finite: faults, ..report };
        let outcome = outcome::to_wire(step, self.onward.sequence, report);
        self.onward.sequence += 1;
        self.onward.send(vec![Parcel::Outcome(outcome)])
    }

    fn hang(&self, steps: u64) {
        if matches!(self.fault, Some(Fault::HangStageAfter(limit)) if steps >= limit) {
            tracing::warn!(steps, "the stage hangs, as --fault asks");
            loop {
                std::thread::park();
            }
        }
    }
}

impl Drop for StageLane {
    /// A panic ends the group's service.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.group.fail("the stage lane has stopped");
        }
    }
}
