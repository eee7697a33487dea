//! The books of whoever schedules: scheduler, sequences and the ways back to their clients. Never runs a step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::active::Active;
use super::control::{Outcome, control, outcomes};
use super::request::{Event, Failure, FailureCode, FinishReason, Submission};
use super::stats::EngineStats;
use crate::backend::{Control, Report};
use crate::scheduler::{
    Admission, Admitted, Chunk, ChunkResult, End, Ended, Limits, Refusal, RequestId, Scheduler, StepPlan,
};
use crate::shards::group::Group;

/// What a lane knows of its requests.
pub(super) struct Books {
    scheduler: Scheduler,
    active: BTreeMap<RequestId, Active>,
    next_id: u64,
    pub(super) group: Arc<Group>,
    pub(super) stats: Arc<EngineStats>,
}

impl Books {
    pub(super) fn new(limits: Limits, group: Arc<Group>) -> Self {
        let stats = group.stats_handle();
        EngineStats::set(&stats.kv_blocks_total, u64::from(limits.blocks));
        Self { scheduler: Scheduler::new(limits), active: BTreeMap::new(), next_id: 0, group, stats }
    }

    /// Whether nothing waits and nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    pub(super) fn take(&mut self, submission: Submission) {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        let request = &submission.request;
        let admission = Admission {
            id,
            prompt: request.prompt.clone(),
            max_tokens: request.max_tokens,
            priority: request.priority,
            tenant: request.tenant.clone(),
            deadline: request.deadline,
        };
        match self.scheduler.submit(admission, Instant::now()) {
            Ok(()) => {
                self.active.insert(id, Active::new(submission));
                self.publish();
            }
            // Nobody listening any more is no reason to stop.
            Err(refusal) => drop(submission.events.try_send(Event::Failed(refused(&refusal)))),
        }
    }

    /// What to run now, once clients that left and a group that is lost have been seen to.
    pub(super) fn plan(&mut self) -> StepPlan {
        if let Some(reason) = self.group.lost() {
            self.fail_all(&unavailable(reason));
        }
        self.drop_abandoned();
        let plan = self.scheduler.schedule(Instant::now());
        self.end_all(&plan.ended);
        self.note(&plan);
        plan
    }

    /// What the device is told of a plan.
    pub(super) fn control(&self, plan: &StepPlan) -> Control {
        control(plan, &self.active)
    }

    /// Takes what came of a plan and tells the clients.
    pub(super) fn commit(&mut self, plan: &StepPlan, report: Report) {
        let prefill = plan.chunks.iter().filter(|chunk| self.is_prefill(chunk));
        EngineStats::add(&self.stats.prompt_rows, prefill.map(|chunk| u64::from(chunk.count)).sum());
        let outcomes = outcomes(&plan.chunks, report);
        let results: Vec<ChunkResult> =
            plan.chunks.iter().zip(outcomes).map(|(chunk, outcome)| self.settle(chunk, outcome)).collect();
        let ended = self.scheduler.commit(plan.step, &results);
        self.end_all(&ended);
    }

    /// Ends the group's service and every stream with it.
    pub(super) fn lose(&mut self, reason: String) {
        self.group.fail(&reason);
        self.fail_all(&unavailable(reason));
    }

    fn drop_abandoned(&mut self) {
        let abandoned = self.active.iter().filter(|(_, active)| active.is_abandoned()).map(|(&id, _)| id);
        for id in abandoned.collect::<Vec<_>>() {
            let ended = self.scheduler.cancel(id);
            self.end_all(ended.as_slice());
        }
    }

    /// Who begins learns what need not be computed.
    fn note(&self, plan: &StepPlan) {
        for Admitted { id, cached } in &plan.admitted {
            EngineStats::add(&self.stats.prompt_tokens_cached, u64::from(*cached));
            self.active.get(id).into_iter().for_each(|active| active.begin(*cached));
        }
        EngineStats::add(&self.stats.preemptions, plan.preempted.len() as u64);
    }

    fn is_prefill(&self, chunk: &Chunk) -> bool {
        let prompt = self.active.get(&chunk.id).map_or(0, Active::prompt);
        (chunk.start as usize) < prompt
    }

    fn settle(&mut self, chunk: &Chunk, outcome: Outcome) -> ChunkResult {
        match outcome {
            Outcome::Computed => ChunkResult::Computed,
            Outcome::Sampled(token) => {
                EngineStats::add(&self.stats.generated_tokens, 1);
                let id = token.id;
                let (token, eos) = self.active.get_mut(&chunk.id).map_or((id, false), |active| active.push(token));
                ChunkResult::Sampled { token, eos }
            }
            Outcome::Fault(place) => {
                EngineStats::add(&self.stats.numeric_faults, 1);
                let id = self.active.get(&chunk.id).map(|active| active.request().id.as_str());
                tracing::error!(request = id, ?place, "NumericFault: a number is not finite");
                ChunkResult::Fault
            }
        }
    }

    fn end_all(&mut self, ended: &[Ended]) {
        for Ended { id, end } in ended {
            let Some(active) = self.active.remove(id) else { continue };
            match end {
                End::Length => active.finish(FinishReason::Length),
                End::Eos => active.finish(FinishReason::Eos),
                End::Cancelled => active.fail(failure(FailureCode::Cancelled, "the client left")),
                End::DeadlinePassed => active.fail(failure(FailureCode::DeadlineExceeded, "the deadline has passed")),
                End::Fault => {
                    active.fail(failure(FailureCode::Internal, "NumericFault: a number is not finite"));
                }
            }
        }
    }

    fn fail_all(&mut self, failure: &Failure) {
        self.scheduler.clear();
        for active in std::mem::take(&mut self.active).into_values() {
            active.fail(failure.clone());
        }
    }

    /// Shows how much is in use.
    pub(super) fn publish(&self) {
        let load = self.scheduler.load();
        EngineStats::set(&self.stats.waiting, load.waiting as u64);
        EngineStats::set(&self.stats.running, load.running as u64);
        EngineStats::set(&self.stats.kv_blocks_used, u64::from(load.blocks));
        EngineStats::set(&self.stats.kv_blocks_idle, u64::from(load.idle_blocks));
    }
}

impl Drop for Books {
    /// Whatever ends the lane, a panic included, ends the group's service and every stream with it.
    fn drop(&mut self) {
        if !self.active.is_empty() {
            let reason = "the step lane has stopped";
            self.group.fail(reason);
            self.fail_all(&failure(FailureCode::Internal, reason));
        }
    }
}

fn failure(code: FailureCode, message: &str) -> Failure {
    Failure { code, message: message.to_owned(), retryable: false }
}

fn unavailable(reason: String) -> Failure {
    Failure { code: FailureCode::Unavailable, message: reason, retryable: true }
}

fn refused(refusal: &Refusal) -> Failure {
    let (code, retryable) = match refusal {
        Refusal::QueueFull(_) => (FailureCode::ResourceExhausted, true),
        Refusal::TooLarge { .. } => (FailureCode::ResourceExhausted, false),
        Refusal::DeadlinePassed => (FailureCode::DeadlineExceeded, false),
    };
    Failure { code, message: refusal.to_string(), retryable }
}
