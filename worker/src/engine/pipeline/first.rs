//! The lane of rank 0: schedules while earlier steps are under way through the other stages, and takes what the last of
//! them sampled. Waits no longer than the progress deadline for stages of which none computes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use shoal_proto::shard::Outcome;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::{Onward, StageDevice};
use crate::backend::{NonFinite, Report};
use crate::engine::books::Books;
use crate::engine::handle::Readiness;
use crate::engine::request::Submission;
use crate::engine::stats::EngineStats;
use crate::scheduler::StepPlan;
use crate::shards::frames::FrameError;
use crate::shards::pipeline::frames::Parts;
use crate::shards::pipeline::outcome::{Expected, check};
use crate::shards::pipeline::{merge_faults, plan};

/// A step that other stages compute.
struct InFlight {
    plan: StepPlan,
    expected: Expected,
    /// Of this stage.
    faults: Vec<NonFinite>,
}

/// The lane before it runs.
pub(in crate::engine) struct FirstLane {
    pub(in crate::engine) books: Books,
    pub(in crate::engine) device: StageDevice,
    pub(in crate::engine) onward: Onward,
    pub(in crate::engine) outcomes: mpsc::Receiver<Outcome>,
    /// The rank that they come from.
    pub(in crate::engine) last: u32,
    /// For waiting; drives nothing else.
    pub(in crate::engine) runtime: Runtime,
}

/// What ended a wait.
enum Woken {
    Submission(Submission),
    Outcome(Outcome),
    /// The group is lost.
    Lost,
    /// No outcome and no work within the progress deadline, or some since.
    Late,
    /// Nobody can submit any more.
    Closed,
}

impl FirstLane {
    /// Runs until the front and everybody else has dropped the way in.
    pub(in crate::engine) fn run(self, submissions: mpsc::Receiver<Submission>) {
        let flight = VecDeque::new();
        Running { lane: self, submissions, open: true, flight, progress: Instant::now() }.run();
    }
}

struct Running {
    lane: FirstLane,
    submissions: mpsc::Receiver<Submission>,
    open: bool,
    /// In the order in which they left.
    flight: VecDeque<InFlight>,
    /// When the oldest step in flight left, or the one before it came back.
    progress: Instant,
}

impl Running {
    fn run(mut self) {
        loop {
            while let Ok(submission) = self.submissions.try_recv() {
                self.lane.books.take(submission);
            }
            while let Ok(outcome) = self.lane.outcomes.try_recv() {
                self.finish(outcome);
            }
            let plan = self.lane.books.plan();
            let has_work = !plan.chunks.is_empty();
            if has_work {
                self.begin(plan);
            }
            if self.is_lost() {
                self.flight.clear();
            }
            self.publish();
            if has_work {
                continue;
            }
            match self.wait() {
                Woken::Submission(submission) => self.lane.books.take(submission),
                Woken::Outcome(outcome) => self.finish(outcome),
                Woken::Lost => {}
                Woken::Late => self.give_up(),
                Woken::Closed if self.lane.books.is_idle() && self.flight.is_empty() => return,
                Woken::Closed => self.open = false,
            }
        }
    }

    fn is_lost(&self) -> bool {
        self.lane.books.group.lost().is_some()
    }

    fn begin(&mut self, plan: StepPlan) {
        let FirstLane { books, device, onward, .. } = &mut self.lane;
        let control = books.control(&plan);
        let expected = Expected {
            step: plan.step,
            rows: control.rows,
            top_logprobs: control.samples.iter().map(|sample| sample.top_logprobs).collect(),
        };
        let (report, activation) = match device.run(&control, &[]) {
            Ok(done) => done,
            Err(error) => return books.lose(format!("the device failed: {error}")),
        };
        // Rank 0 keeps what it found: the outcome has what the others find.
        let parts = Parts { step: plan.step, plan: plan::encode(&control), activation, faults: vec![] };
        if let Err(reason) = onward.pass(parts, &device.shape) {
            return books.lose(reason);
        }
        if self.flight.is_empty() {
            self.progress = Instant::now();
        }
        self.flight.push_back(InFlight { plan, expected, faults: report.non_finite });
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.is_lost() {
            return;
        }
        let FirstLane { books, device, last, .. } = &mut self.lane;
        let checked = match self.flight.front() {
            Some(oldest) => check(outcome, &oldest.expected, &device.shape),
            None => Err(FrameError(format!("an outcome of step {} while none is in flight", outcome.step))),
        };
        match (checked, self.flight.pop_front()) {
            (Ok(report), Some(InFlight { plan, faults, .. })) => {
                self.progress = Instant::now();
                let non_finite = merge_faults(faults, report.non_finite);
                books.commit(&plan, Report { non_finite, ..report });
            }
            (Err(FrameError(why)), _) => books.group.accuse(*last, &why),
            (Ok(_), None) => {}
        }
    }

    fn give_up(&mut self) {
        let left = self.patience();
        let Some(oldest) = self.flight.front().filter(|_| left.is_zero()) else { return };
        let (step, seconds) = (oldest.plan.step, self.progress.elapsed().as_secs_f32());
        let text =
            format!("the pipeline stands still: no outcome of step {step} for {seconds:.1} s, and no stage computes");
        self.lane.books.lose(text);
    }

    /// How long the stages may still be without a sign of work. Their heartbeats tell of it late by half an interval, in
    /// the mean.
    fn patience(&self) -> Duration {
        let (group, now) = (&self.lane.books.group, Instant::now());
        let last = group.last_progress().map_or(self.progress, |last| last.max(self.progress));
        let limit = group.timing().progress.saturating_sub(group.timing().heartbeat / 2);
        limit.saturating_sub(now.saturating_duration_since(last))
    }

    fn publish(&self) {
        self.lane.books.publish();
        let (stats, now) = (&self.lane.books.stats, self.flight.len() as u64);
        EngineStats::set(&stats.micro_batches, now);
        EngineStats::raise(&stats.micro_batches_most, now);
    }

    fn wait(&mut self) -> Woken {
        let lost = self.is_lost();
        let limit = self.patience();
        let mut readiness = self.lane.books.group.readiness();
        let is_lost = |readiness: &Readiness| matches!(readiness, Readiness::Lost { .. });
        let FirstLane { runtime, outcomes, .. } = &mut self.lane;
        let (submissions, open, flying) = (&mut self.submissions, self.open, !self.flight.is_empty());
        runtime.block_on(async {
            tokio::select! {
                biased;
                _ = readiness.wait_for(is_lost), if !lost => Woken::Lost,
                Some(outcome) = outcomes.recv() => Woken::Outcome(outcome),
                submission = submissions.recv(), if open => submission.map_or(Woken::Closed, Woken::Submission),
                () = tokio::time::sleep(limit), if flying => Woken::Late,
                else => Woken::Closed,
            }
        })
    }
}
