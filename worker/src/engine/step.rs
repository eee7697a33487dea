//! One step on the device: a whole program, or segments with exchanges between them. Never schedules.

use std::sync::Arc;

use super::stats::EngineStats;
use crate::backend::{Backend, BackendError, Control, Executable, Lane, Report};
use crate::model::loaded::Programs;
use crate::shards::exchange::{Exchange, ExchangeError};

/// Runs steps one after another.
pub(super) struct Stepper {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) programs: Programs,
    /// `None` for a group of one.
    pub(super) exchange: Option<Exchange>,
    pub(super) stats: Arc<EngineStats>,
    pub(super) steps: u64,
}

impl Stepper {
    /// Runs one step to its report.
    ///
    /// # Errors
    /// [`ExchangeError`]: then nothing of the step may be used.
    pub(super) fn run(&mut self, control: &Control) -> Result<Report, ExchangeError> {
        self.steps += 1;
        let report = match (&self.programs, &mut self.exchange) {
            (Programs::Whole(whole), _) => run(self.backend.as_ref(), *whole, control)?,
            (Programs::Sharded { front, local, .. }, Some(exchange)) => {
                sharded(self.backend.as_ref(), (front, local), exchange, control, self.steps)?
            }
            (Programs::Sharded { .. }, None) => {
                return Err(BackendError::Misuse("a sharded model needs its group".into()).into());
            }
        };
        EngineStats::add(&self.stats.steps, 1);
        EngineStats::add(&self.stats.expert_pairs_local, report.expert_pairs);
        EngineStats::add(&self.stats.experts_read, report.experts_read);
        Ok(report)
    }
}

/// front[0] · exchange ∥ local[0] · front[1] · … · front[M]
fn sharded(
    backend: &dyn Backend,
    (front, local): (&[Executable], &[Executable]),
    exchange: &mut Exchange,
    control: &Control,
    step: u64,
) -> Result<Report, ExchangeError> {
    let mut total = Report::default();
    for (layer, &segment) in (0..).zip(front) {
        merge(&mut total, run(backend, segment, control)?);
        let Some(&local) = local.get(layer as usize) else { break };
        let under_way = exchange.send(step, layer)?;
        merge(&mut total, run(backend, local, control)?);
        exchange.collect(under_way)?;
    }
    Ok(total)
}

fn run(backend: &dyn Backend, segment: Executable, control: &Control) -> Result<Report, BackendError> {
    let ticket = backend.submit(segment, control, Lane::Step)?;
    backend.wait(ticket)
}

/// Only the last segment samples.
fn merge(total: &mut Report, part: Report) {
    total.samples = part.samples;
    total.non_finite.extend(part.non_finite);
    total.expert_pairs += part.expert_pairs;
    total.experts_read += part.experts_read;
}
