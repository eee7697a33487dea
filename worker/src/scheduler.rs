//! Which request gets how many tokens of the next step: plain data out ([`StepPlan`]), plain data in ([`ChunkResult`]).
//!
//! Prefill, decode and chunking are not modes: a sequence knows `prompt + generated` tokens, `computed` of them are in
//! the cache, and each step computes some of the rest. A request is admitted once the tokens that it knows have blocks;
//! whole blocks with which an earlier request of its tenant began are taken over instead of computed. When answers grow
//! and blocks run out, the newest sequence is put back to the queue and computed again later: its answer stays the same.
//!
//! Several plans may be in flight ([`Limits::depth`]): a sequence is in at most one of them, and neither its blocks nor
//! itself go anywhere before that plan's commit. Sequences are divided among plans so that, with as many sequences as plans
//! may be in flight, as many are.
//!
//! std only: never sees a model, a device, a tensor or a channel, and reads no clock (time is an argument).

pub mod blocks;
mod memory;
pub mod plan;
mod queue;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

pub use plan::{Admitted, Chunk, ChunkResult, StepPlan};

use blocks::BlockPool;
use queue::Queue;
use sequence::Sequence;

/// A request that so many later ones have overtaken begins before any other, whatever its priority and its tenant.
pub const OVERTAKEN: u32 = 64;

/// Number of a request within one scheduler; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a scheduler may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most requests that run at once.
    pub running: usize,
    /// Most requests that wait.
    pub waiting: usize,
    /// Most tokens computed in a step, at least 1.
    pub step_tokens: usize,
    /// Most tokens sampled in a step, at least 1.
    pub step_samples: usize,
    /// Cache blocks in all.
    pub blocks: u32,
    /// Tokens of a block.
    pub block_tokens: u32,
    /// Most plans in flight at once, at least 1.
    pub depth: usize,
}

/// A request as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Unique.
    pub id: RequestId,
    /// Tokens, at least 1.
    pub prompt: Vec<u32>,
    /// Most tokens of the answer, at least 1.
    pub max_tokens: u32,
    /// Higher first; among equals the tenant that was served least, then in order of arrival.
    pub priority: i32,
    /// Only its own requests share beginnings.
    pub tenant: String,
    /// The request fails when this has passed.
    pub deadline: Option<Instant>,
}

/// Why a request was not taken. Nothing was started, no block is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many wait as may.
    #[error("the queue is full: {0} requests wait already")]
    QueueFull(usize),
    /// Too late before it began.
    #[error("the deadline has passed already")]
    DeadlinePassed,
    /// It can never fit.
    #[error("the request needs {needed} cache blocks; this worker has {total}")]
    TooLarge {
        /// Blocks for prompt and answer.
        needed: u64,
        /// Blocks in all.
        total: u32,
    },
}

/// Why a request is over; each request that was taken ends exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `max_tokens` were sampled.
    Length,
    /// The last sampled token ends the answer.
    Eos,
    /// [`Scheduler::cancel`].
    Cancelled,
    /// Its deadline passed.
    DeadlinePassed,
    /// A step met a number that is not finite.
    Fault,
}

/// A request that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub id: RequestId,
    /// Why.
    pub end: End,
}

/// How much of the limits is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Blocks held by running requests.
    pub blocks: u32,
    /// Blocks held by nobody that keep a beginning.
    pub idle_blocks: u32,
}

/// Admission, blocks and step plans of one worker.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    blocks: BlockPool,
    queue: Queue,
    running: BTreeMap<RequestId, Sequence>,
    /// Of the plans that are not committed yet, by step.
    in_flight: BTreeMap<u64, Vec<Chunk>>,
    arrivals: u64,
    step: u64,
}

impl Scheduler {
    /// An empty scheduler; limits of zero are raised to one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            running: limits.running.max(1),
            step_tokens: limits.step_tokens.max(1),
            step_samples: limits.step_samples.max(1),
            block_tokens: limits.block_tokens.max(1),
            depth: limits.depth.max(1),
            ..limits
        };
        Self {
            limits,
            blocks: BlockPool::new(limits.blocks),
            queue: Queue::default(),
            running: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            arrivals: 0,
            step: 0,
        }
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// [`Refusal`]; the request then leaves no trace.
    pub fn submit(&mut self, admission: Admission, now: Instant) -> Result<(), Refusal> {
        if admission.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Refusal::DeadlinePassed);
        }
        let needed = self.blocks_for(&admission);
        let countable = admission.prompt.len() as u64 + u64::from(admission.max_tokens) <= u64::from(u32::MAX);
        if needed > u64::from(self.limits.blocks) || !countable {
            return Err(Refusal::TooLarge { needed, total: self.limits.blocks });
        }
        if self.queue.len() >= self.limits.waiting {
            return Err(Refusal::QueueFull(self.queue.len()));
        }
        let tenant = self.queue.open(&admission.tenant);
        self.queue.push(Sequence::new(admission, tenant, self.arrivals));
        self.arrivals += 1;
        Ok(())
    }

    /// Ends a request at its client's wish; its blocks are free at once, or at commit while a step computes it.
    /// `None` when it is over already or its end comes with the commit.
    pub fn cancel(&mut self, id: RequestId) -> Option<Ended> {
        if let Some(sequence) = self.running.get_mut(&id).filter(|sequence| sequence.in_flight) {
            sequence.ending.get_or_insert(End::Cancelled);
            return None;
        }
        (self.withdraw(id) || self.release(id)).then_some(Ended { id, end: End::Cancelled })
    }

    /// Forgets every request and every block, kept beginnings too; the caller tells the clients why.
    pub fn clear(&mut self) -> Vec<RequestId> {
        let running = std::mem::take(&mut self.running);
        let waiting = std::mem::take(&mut self.queue);
        self.in_flight.clear();
        self.blocks = BlockPool::new(self.limits.blocks);
        running.into_keys().chain(waiting.iter().map(Sequence::id)).collect()
    }

    /// How much is in use.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            waiting: self.queue.len(),
            running: self.running.len(),
            blocks: self.blocks.held(),
            idle_blocks: self.blocks.idle(),
        }
    }

    /// Whether nothing waits and nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.running.is_empty()
    }

    fn blocks_for(&self, admission: &Admission) -> u64 {
        (admission.prompt.len() as u64 + u64::from(admission.max_tokens)).div_ceil(u64::from(self.limits.block_tokens))
    }

    /// Drops a waiting request; whether there was one.
    fn withdraw(&mut self, id: RequestId) -> bool {
        let Some(sequence) = self.queue.remove(id) else { return false };
        self.queue.close(&sequence.tenant);
        true
    }
}
