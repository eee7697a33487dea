//! What crosses the one channel between the async front and the engine's threads: plain data both ways.
//!
//! Never holds text: the front tokenises, detokenises and watches for stop strings.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

/// One request for tokens, already checked against the model and the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Unique within the worker, for logs and events.
    pub id: String,
    /// At least one id, all below the vocabulary size, shorter than the context.
    pub prompt: Vec<u32>,
    /// At least 1; prompt + max_tokens never exceeds the context.
    pub max_tokens: u32,
    /// How to choose each token.
    pub sampling: SamplingParams,
    /// How many of the most likely tokens to report, 0 to 20.
    pub top_logprobs: u32,
    /// Token ids that end the answer; empty when the client ignores them.
    pub eos: Vec<u32>,
    /// After this instant the request fails with DEADLINE_EXCEEDED.
    pub deadline: Option<Instant>,
    /// Higher runs earlier among waiting requests.
    pub priority: i32,
    /// Salts whatever is shared between requests.
    pub tenant: String,
    /// What the next step sees in the place of the token that was chosen; beyond its end, and without one, the chosen
    /// token. For measurements: the tokens that a model chooses repeat, and with them its experts.
    pub script: Option<Arc<[u32]>>,
}

/// How a token is chosen from the raw logits; every field is already within its limits.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
    /// Of the counter-based generator; drawn by the front when the client gave none.
    pub seed: u64,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    /// 0 changes nothing.
    pub presence_penalty: f32,
    /// 0 changes nothing.
    pub frequency_penalty: f32,
}

impl SamplingParams {
    /// Whether what was said before has no bearing on the choice.
    #[must_use]
    pub fn is_without_penalties(&self) -> bool {
        self.repetition_penalty == 1.0 && self.presence_penalty == 0.0 && self.frequency_penalty == 0.0
    }
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

/// One sampled token. Log-probabilities are natural, of the raw distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledToken {
    /// The chosen id.
    pub id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// The most likely ids, descending, ties by id.
    pub top: Vec<(u32, f32)>,
}

/// What happens to a request, in order: at most one `Began`, any number of `Token`, then exactly one of the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has left the queue.
    Began {
        /// Tokens of the prompt that an earlier request of the tenant left in the cache.
        cached_tokens: u32,
    },
    /// One more token.
    Token(SampledToken),
    /// The answer is complete.
    Finished(FinishReason),
    /// The answer ends here, through no wish of the client.
    Failed(Failure),
}

/// Why an answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// `max_tokens` or the end of the context was reached.
    Length,
    /// The last token is one of `eos`.
    Eos,
}

/// A typed end of a request; `code` is a canonical gRPC code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub code: FailureCode,
    /// What went wrong, for a person.
    pub message: String,
    /// Whether the same request may succeed if sent again.
    pub retryable: bool,
}

/// The canonical codes that the engine uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// A peer is lost, or the worker drains.
    Unavailable,
    /// The queue is full.
    ResourceExhausted,
    /// The deadline passed.
    DeadlineExceeded,
    /// The client left.
    Cancelled,
    /// A non-finite number, or a broken invariant.
    Internal,
}

impl FailureCode {
    /// The canonical name, such as `UNAVAILABLE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "UNAVAILABLE",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::Internal => "INTERNAL",
        }
    }
}

/// A request with the way back. Dropping the receiver cancels the request within two steps.
#[derive(Debug)]
pub struct Submission {
    /// What to do.
    pub request: Request,
    /// Where its events go; bounded by the front to `max_tokens` + 1, so the engine never waits for a client.
    pub events: mpsc::Sender<Event>,
}
