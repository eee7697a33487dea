//! One step: which sequences compute how many tokens, and what came of it. Never decides who may enter the queue.

use std::time::Instant;

use super::blocks::BlockPool;
use super::sequence::Sequence;
use super::{End, Ended, RequestId, Scheduler};

/// Consecutive tokens of one sequence that a step computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Whose.
    pub id: RequestId,
    /// Position of the first token.
    pub start: u32,
    /// How many, at least 1.
    pub count: u32,
    /// Whether the next token is sampled from the last one.
    pub sample: bool,
    /// Cache blocks of the sequence from position 0 up to and with this chunk.
    pub blocks: Vec<u32>,
}

/// What to run now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Number of the step; rises.
    pub step: u64,
    /// Empty when there is nothing to compute.
    pub chunks: Vec<Chunk>,
    /// Requests whose deadline has passed.
    pub ended: Vec<Ended>,
    /// Requests that begin with this step.
    pub admitted: Vec<Admitted>,
    /// Requests that were put back to the queue for want of blocks; they go on later, with the same answer.
    pub preempted: Vec<RequestId>,
}

/// A request that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Which.
    pub id: RequestId,
    /// Tokens of its prompt that need not be computed, in whole blocks.
    pub cached: u32,
}

/// What a step made of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkResult {
    /// Computed, nothing sampled.
    Computed,
    /// Computed and sampled.
    Sampled {
        /// The token.
        token: u32,
        /// Whether it ends the answer.
        eos: bool,
    },
    /// A number was not finite: the request cannot go on.
    Fault,
}

impl Scheduler {
    /// Plans the next step; nothing is computed while as many plans as may be are in flight. A plan with chunks is in
    /// flight until its commit.
    ///
    /// Sequences that waited longest for a turn go first, among equals the shortest: a long prompt does not hold up
    /// the sequences that decode, and nobody starves when the budget is smaller than the number of sequences.
    pub fn schedule(&mut self, now: Instant) -> StepPlan {
        let ended = self.expire(now);
        if self.in_flight.len() >= self.limits.depth {
            return StepPlan { ended, ..StepPlan::default() };
        }
        let preempted = self.grow();
        let admitted = self.admit();
        self.step += 1;
        let step = self.step;
        let chunks = self.chunks();
        if !chunks.is_empty() {
            self.in_flight.insert(step, chunks.clone());
        }
        StepPlan { step, chunks, ended, admitted, preempted }
    }

    fn chunks(&mut self) -> Vec<Chunk> {
        let block_tokens = self.limits.block_tokens;
        let ready = self.running.values().filter(|one| !one.in_flight && one.has_room(block_tokens));
        let mut turns: Vec<(u64, u32, RequestId)> =
            ready.map(|sequence| (sequence.last_step, sequence.pending(), sequence.id())).collect();
        turns.sort_unstable();
        // Neither more than an even share of all, nor so many that a plan after this one would find nobody.
        let free = self.limits.depth - self.in_flight.len();
        let most = turns.len().div_ceil(free).min(self.running.len().div_ceil(self.limits.depth));
        let mut tokens = u32::try_from(self.limits.step_tokens).unwrap_or(u32::MAX);
        let mut samples = self.limits.step_samples;
        let mut chunks = Vec::new();
        for (_, pending, id) in turns {
            if chunks.len() == most {
                break;
            }
            let wanted = pending.min(tokens);
            // Without a sample left a sequence may still compute all but its last token.
            let count = if wanted == pending && samples == 0 { wanted.saturating_sub(1) } else { wanted };
            let Some(sequence) = self.running.get_mut(&id).filter(|_| count > 0) else { continue };
            let sample = count == pending;
            samples -= usize::from(sample);
            tokens -= count;
            sequence.last_step = self.step;
            sequence.in_flight = true;
            let held = (sequence.computed + count).div_ceil(block_tokens) as usize;
            let blocks = sequence.blocks[..held].to_vec();
            chunks.push(Chunk { id, start: sequence.computed, count, sample, blocks });
        }
        chunks
    }

    /// Takes the results of the plan of `step`, in its order; a missing result means that the chunk was not run.
    pub fn commit(&mut self, step: u64, results: &[ChunkResult]) -> Vec<Ended> {
        let chunks = self.in_flight.remove(&step).unwrap_or_default();
        let block_tokens = self.limits.block_tokens as usize;
        let mut ended = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let Some(sequence) = self.running.get_mut(&chunk.id) else { continue };
            let result = results.get(index);
            if result.is_some() {
                self.queue.served(&sequence.tenant, chunk.count);
            }
            let end = advance(sequence, chunk, result, (&mut self.blocks, block_tokens));
            sequence.in_flight = false;
            if let Some(end) = sequence.ending.or(end) {
                self.release(chunk.id);
                ended.push(Ended { id: chunk.id, end });
            }
        }
        ended
    }

    fn expire(&mut self, now: Instant) -> Vec<Ended> {
        let late = |sequence: &&Sequence| sequence.admission.deadline.is_some_and(|deadline| deadline <= now);
        let waiting: Vec<RequestId> = self.queue.iter().filter(late).map(Sequence::id).collect();
        for sequence in self.running.values_mut().filter(|sequence| sequence.in_flight && late(&&**sequence)) {
            sequence.ending.get_or_insert(End::DeadlinePassed);
        }
        let idle = self.running.values().filter(|sequence| !sequence.in_flight);
        let running: Vec<RequestId> = idle.filter(late).map(Sequence::id).collect();
        for &id in &waiting {
            self.withdraw(id);
        }
        for &id in &running {
            self.release(id);
        }
        waiting.into_iter().chain(running).map(|id| Ended { id, end: End::DeadlinePassed }).collect()
    }
}

/// Moves a sequence past a chunk; its end, if this was it.
fn advance(
    sequence: &mut Sequence,
    chunk: &Chunk,
    result: Option<&ChunkResult>,
    (pool, block_tokens): (&mut BlockPool, usize),
) -> Option<End> {
    let sampled = match *result? {
        ChunkResult::Fault => return Some(End::Fault),
        ChunkResult::Computed => None,
        ChunkResult::Sampled { token, eos } => Some((token, eos)),
    };
    sequence.computed += chunk.count;
    sequence.keep_full_blocks(pool, block_tokens);
    let (token, eos) = sampled?;
    sequence.tokens.push(token);
    sequence.generated += 1;
    if eos {
        return Some(End::Eos);
    }
    (sequence.generated >= sequence.admission.max_tokens).then_some(End::Length)
}
