//! A request inside the step lane: its tokens, what penalties look at, and the way back. Never scheduled here.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::request::{Event, Failure, FinishReason, Request, SampledToken, Submission};
use crate::backend::SampleRow;
use crate::sampling::TokenCounts;

/// Tokens of an answer for which there is room from the start.
const AHEAD: u32 = 256;

/// A request that has not ended.
#[derive(Debug)]
pub(super) struct Active {
    /// Without its prompt, which is in `tokens`.
    request: Request,
    /// Tokens of the prompt.
    prompt: usize,
    /// Prompt, then answer.
    tokens: Vec<u32>,
    counts: Arc<TokenCounts>,
    events: mpsc::Sender<Event>,
}

impl Active {
    pub(super) fn new(submission: Submission) -> Self {
        let Submission { mut request, events } = submission;
        let counts = Arc::new(TokenCounts::of_prompt(&request.prompt));
        let prompt = request.prompt.len();
        let mut tokens = std::mem::take(&mut request.prompt);
        // Or the first token of the answer would double what a long prompt takes.
        tokens.reserve_exact(request.max_tokens.min(AHEAD) as usize);
        Self { request, prompt, tokens, counts, events }
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// Tokens of the prompt.
    pub(super) fn prompt(&self) -> usize {
        self.prompt
    }

    /// The token at each of these positions; the scheduler never asks for one that is not known.
    pub(super) fn tokens(&self, start: u32, count: u32) -> &[u32] {
        &self.tokens[start as usize..(start + count) as usize]
    }

    /// The row of a run whose next token is wanted.
    pub(super) fn sample_row(&self, row: u32) -> SampleRow {
        SampleRow {
            row,
            params: self.request.sampling.clone(),
            history: Arc::clone(&self.counts),
            output_index: self.generated(),
            top_logprobs: self.request.top_logprobs,
        }
    }

    /// Tokens of the answer so far.
    pub(super) fn generated(&self) -> u64 {
        (self.tokens.len() - self.prompt) as u64
    }

    /// The request leaves the queue; so many tokens of its prompt are in the cache already.
    pub(super) fn begin(&self, cached_tokens: u32) {
        drop(self.events.try_send(Event::Began { cached_tokens }));
    }

    /// Takes the next token and sends it; the token that the next step sees, and whether it ends the answer.
    pub(super) fn push(&mut self, token: SampledToken) -> (u32, bool) {
        let is_eos = self.request.eos.contains(&token.id);
        let at = self.tokens.len() - self.prompt;
        let next = self.request.script.as_ref().and_then(|script| script.get(at)).copied().unwrap_or(token.id);
        self.tokens.push(next);
        Arc::make_mut(&mut self.counts).push_generated(next);
        // A client that left is seen by `is_abandoned` before the next step.
        drop(self.events.try_send(Event::Token(token)));
        (next, is_eos)
    }

    /// Whether nobody listens any more, or the listener has stopped making room.
    pub(super) fn is_abandoned(&self) -> bool {
        self.events.is_closed() || self.events.capacity() == 0
    }

    pub(super) fn finish(self, reason: FinishReason) {
        drop(self.events.try_send(Event::Finished(reason)));
    }

    pub(super) fn fail(self, failure: Failure) {
        drop(self.events.try_send(Event::Failed(failure)));
    }
}
