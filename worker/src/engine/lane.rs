//! The step lane: the thread that owns scheduler and sequences. It takes requests, runs steps, sends events, and waits
//! for nobody but the device and the peers it sent rows to.

use tokio::sync::mpsc;

use super::books::Books;
use super::request::Submission;
use super::step::Stepper;
use crate::scheduler::StepPlan;
use crate::shards::exchange::ExchangeError;

/// The step lane before it runs.
pub(super) struct StepLane {
    pub(super) books: Books,
    pub(super) stepper: Stepper,
}

impl StepLane {
    /// Runs until the front and everybody else has dropped the way in.
    pub(super) fn run(mut self, mut submissions: mpsc::Receiver<Submission>) {
        loop {
            if self.books.is_idle() {
                let Some(submission) = submissions.blocking_recv() else { return };
                self.books.take(submission);
            }
            while let Ok(submission) = submissions.try_recv() {
                self.books.take(submission);
            }
            let plan = self.books.plan();
            if !plan.chunks.is_empty() {
                self.step(&plan);
            }
            self.books.publish();
        }
    }

    fn step(&mut self, plan: &StepPlan) {
        let control = self.books.control(plan);
        match self.stepper.run(&control) {
            Ok(report) => {
                drop(control);
                self.books.commit(plan, report);
            }
            Err(ExchangeError::Lost(reason)) => self.books.lose(reason),
            Err(ExchangeError::Backend(error)) => self.books.lose(format!("the device failed: {error}")),
        }
    }
}
