//! Which request gets how many tokens of the next step: plain data out ([`StepPlan`]), plain data in ([`ChunkResult`]).
//!
//! Prefill, decode and chunking are not modes: a sequence knows `prompt + generated` tokens, `computed` of them are in
//! the cache, and each step computes some of the rest. A request is admitted once all the blocks that it can ever need
//! are free, and keeps them to its end, so a running request never waits for memory.
//!
//! std only: never sees a model, a device, a tensor or a channel, and reads no clock (time is an argument).

pub mod blocks;
pub mod plan;
mod sequence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Instant;

pub use plan::{Chunk, ChunkResult, StepPlan};

use blocks::BlockPool;
use sequence::{Sequence, Waiting};

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
}

/// A request as the scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Unique.
    pub id: RequestId,
    /// Tokens of the prompt, at least 1.
    pub prompt: u32,
    /// Most tokens of the answer, at least 1.
    pub max_tokens: u32,
    /// Higher first among waiting requests; equal ones in order of arrival.
    pub priority: i32,
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
}

/// Admission, blocks and step plans of one worker.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    blocks: BlockPool,
    /// Highest priority first, then arrival.
    waiting: BTreeMap<(std::cmp::Reverse<i32>, u64), Waiting>,
    running: BTreeMap<RequestId, Sequence>,
    /// Of the plan that is not committed yet.
    in_flight: Vec<Chunk>,
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
            ..limits
        };
        Self {
            limits,
            blocks: BlockPool::new(limits.blocks),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            in_flight: Vec::new(),
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
        if needed > u64::from(self.limits.blocks) {
            return Err(Refusal::TooLarge { needed, total: self.limits.blocks });
        }
        if self.waiting.len() >= self.limits.waiting {
            return Err(Refusal::QueueFull(self.waiting.len()));
        }
        let key = (std::cmp::Reverse(admission.priority), self.arrivals);
        self.arrivals += 1;
        let blocks = u32::try_from(needed).expect("should fit: it is at most the limit, a u32");
        self.waiting.insert(key, Waiting { admission, blocks });
        Ok(())
    }

    /// Ends a request at its client's wish; its blocks are free at once, or at commit while a step computes it.
    /// `None` when it is over already or its end comes with the commit.
    pub fn cancel(&mut self, id: RequestId) -> Option<Ended> {
        let key = self.waiting.iter().find(|(_, waiting)| waiting.admission.id == id).map(|(key, _)| *key);
        if let Some(key) = key {
            self.waiting.remove(&key);
            return Some(Ended { id, end: End::Cancelled });
        }
        if self.in_flight.iter().any(|chunk| chunk.id == id) {
            if let Some(sequence) = self.running.get_mut(&id) {
                sequence.cancelled = true;
            }
            return None;
        }
        self.release(id).then_some(Ended { id, end: End::Cancelled })
    }

    /// Forgets every request and frees every block; the caller tells the clients why.
    pub fn clear(&mut self) -> Vec<RequestId> {
        let waiting = std::mem::take(&mut self.waiting).into_values().map(|waiting| waiting.admission.id);
        let running: Vec<RequestId> = self.running.keys().copied().collect();
        self.in_flight.clear();
        for &id in &running {
            self.release(id);
        }
        running.into_iter().chain(waiting).collect()
    }

    /// How much is in use.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { waiting: self.waiting.len(), running: self.running.len(), blocks: self.blocks.used() }
    }

    /// Whether nothing waits and nothing runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn blocks_for(&self, admission: &Admission) -> u64 {
        (u64::from(admission.prompt) + u64::from(admission.max_tokens)).div_ceil(u64::from(self.limits.block_tokens))
    }

    /// Drops a running request; whether there was one.
    fn release(&mut self, id: RequestId) -> bool {
        let Some(sequence) = self.running.remove(&id) else { return false };
        self.blocks.give_back(sequence.blocks);
        true
    }
}
