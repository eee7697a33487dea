//! What a client asks, checked against the table of limits and the served model. Pure: never waits, never tokenises.

use shoal_proto::inference as wire;

use crate::engine::request::SamplingParams;
use crate::limits::{self, OutOfLimit};
use crate::text::{ChatMessage, TextError};

/// Why a request never started.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("model {asked:?} is not served here; served: {served:?}")]
    UnknownModel { asked: String, served: String },
    #[error(transparent)]
    Limit(#[from] OutOfLimit),
    #[error("prompt is missing; allowed: text, chat or token_ids")]
    NoPrompt,
    #[error("the role of chat.messages[{0}] is unknown; allowed: system, user, assistant")]
    Role(usize),
    #[error("token_ids.ids[{position}] is {id}; allowed: 0 to {}", .vocabulary.saturating_sub(1))]
    UnknownToken { position: usize, id: u32, vocabulary: u32 },
    #[error("the prompt has {tokens} tokens, and the context {context}; allowed: 1 to {}", .context - 1)]
    PromptTooLong { tokens: usize, context: u32 },
    #[error("max_tokens is {max_tokens}, and the prompt leaves room for {room}; allowed: 1 to {room}")]
    TooManyTokens { max_tokens: u32, room: u32 },
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("too many prompts are being tokenised; try again")]
    TokenisersBusy,
    #[error("the queue is full; try again")]
    QueueFull,
    #[error("the deadline passed before the request could start")]
    Deadline,
    #[error("not ready: {0}")]
    NotReady(String),
    #[error("this is stage {rank} of a pipeline of {size}; only rank 0 of the group takes requests")]
    NotFirst { rank: u32, size: u32 },
    #[error("this group is shutting down; another one will answer")]
    Draining,
}

/// What requests are compared with.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub(super) model: String,
    pub(super) context_tokens: u32,
    pub(super) vocabulary_size: u32,
}

/// A prompt before it is tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Chat(Vec<ChatMessage>),
    /// At least one, all below the vocabulary size.
    Ids(Vec<u32>),
}

/// A request within its limits, its prompt not yet tokens.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) prompt: Prompt,
    pub(super) max_tokens: Option<u32>,
    pub(super) sampling: SamplingParams,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) top_logprobs: u32,
    pub(super) priority: i32,
    pub(super) tenant: String,
}

/// Checks all of a request that can be checked before its prompt is tokens. `random_seed` is used where the client
/// gave none.
pub(super) fn check(request: wire::GenerateRequest, served: &Served, random_seed: u64) -> Result<Asked, RequestError> {
    check_model(&request.model, served)?;
    if let Some(max_tokens) = request.max_tokens {
        limits::MAX_TOKENS.check(max_tokens)?;
    }
    limits::STOPS.check_count(request.stop.len())?;
    request.stop.iter().try_for_each(|stop| limits::STOP_BYTES.check_count(stop.len()))?;
    limits::TOP_LOGPROBS.check(request.top_logprobs)?;
    limits::PRIORITY.check(request.priority)?;
    limits::TENANT.check_count(request.tenant.len())?;
    Ok(Asked {
        prompt: prompt_of_generate(request.prompt, served)?,
        max_tokens: request.max_tokens,
        sampling: sampling(request.sampling.unwrap_or_default(), random_seed)?,
        stop: request.stop,
        ignore_eos: request.ignore_eos,
        top_logprobs: request.top_logprobs,
        priority: request.priority,
        tenant: request.tenant,
    })
}

/// The empty name is the served model's.
pub(super) fn check_model(asked: &str, served: &Served) -> Result<(), RequestError> {
    if asked.is_empty() || asked == served.model {
        return Ok(());
    }
    let asked = asked.chars().take(64).collect();
    Err(RequestError::UnknownModel { asked, served: served.model.clone() })
}

/// How many tokens may follow a prompt of `tokens`: what was asked, or the rest of the context.
pub(super) fn room(tokens: usize, max_tokens: Option<u32>, served: &Served) -> Result<u32, RequestError> {
    limits::PROMPT_TOKENS.check_count(tokens)?;
    let context = served.context_tokens;
    let too_long = RequestError::PromptTooLong { tokens, context };
    let used = u32::try_from(tokens).ok().filter(|&used| used < context).ok_or(too_long)?;
    let room = context - used;
    match max_tokens {
        None => Ok(room),
        Some(max_tokens) if max_tokens <= room => Ok(max_tokens),
        Some(max_tokens) => Err(RequestError::TooManyTokens { max_tokens, room }),
    }
}

fn sampling(sampling: wire::Sampling, random_seed: u64) -> Result<SamplingParams, RequestError> {
    let params = SamplingParams {
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p.unwrap_or(1.0),
        min_p: sampling.min_p,
        seed: sampling.seed.unwrap_or(random_seed),
        repetition_penalty: sampling.repetition_penalty.unwrap_or(1.0),
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
    };
    limits::TEMPERATURE.check(params.temperature)?;
    limits::TOP_K.check(params.top_k)?;
    limits::TOP_P.check(params.top_p)?;
    limits::MIN_P.check(params.min_p)?;
    limits::REPETITION_PENALTY.check(params.repetition_penalty)?;
    limits::PRESENCE_PENALTY.check(params.presence_penalty)?;
    limits::FREQUENCY_PENALTY.check(params.frequency_penalty)?;
    Ok(params)
}

fn prompt_of_generate(prompt: Option<wire::generate_request::Prompt>, served: &Served) -> Result<Prompt, RequestError> {
    use wire::generate_request::Prompt as Wire;
    match prompt {
        Some(Wire::Text(text)) => Ok(Prompt::Text(text)),
        Some(Wire::Chat(chat)) => conversation(chat),
        Some(Wire::TokenIds(ids)) => token_ids(ids, served),
        None => Err(RequestError::NoPrompt),
    }
}

/// The prompt of `CountTokens`, under the rules of Generate.
pub(super) fn prompt_of_count(
    prompt: Option<wire::count_tokens_request::Prompt>,
    served: &Served,
) -> Result<Prompt, RequestError> {
    use wire::count_tokens_request::Prompt as Count;
    use wire::generate_request::Prompt as Generate;
    let same = prompt.map(|prompt| match prompt {
        Count::Text(text) => Generate::Text(text),
        Count::Chat(chat) => Generate::Chat(chat),
        Count::TokenIds(ids) => Generate::TokenIds(ids),
    });
    prompt_of_generate(same, served)
}

fn conversation(chat: wire::Chat) -> Result<Prompt, RequestError> {
    limits::MESSAGES.check_count(chat.messages.len())?;
    let known = |role: &str| matches!(role, "system" | "user" | "assistant");
    if let Some(index) = chat.messages.iter().position(|message| !known(&message.role)) {
        return Err(RequestError::Role(index));
    }
    let message = |wire::Message { role, content }| ChatMessage { role, content };
    Ok(Prompt::Chat(chat.messages.into_iter().map(message).collect()))
}

fn token_ids(wire::TokenIds { ids }: wire::TokenIds, served: &Served) -> Result<Prompt, RequestError> {
    limits::PROMPT_TOKENS.check_count(ids.len())?;
    let vocabulary = served.vocabulary_size;
    match ids.iter().position(|&id| id >= vocabulary) {
        Some(position) => Err(RequestError::UnknownToken { position, id: ids[position], vocabulary }),
        None => Ok(Prompt::Ids(ids)),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
