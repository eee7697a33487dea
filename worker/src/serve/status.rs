//! The only place that builds a gRPC status.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::request::RequestError;
use crate::text::TextError;

const DOMAIN: &str = "inference.shoal.dev";
/// A full queue moves within seconds; a group that drains or starts needs a client to look for another one.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// The status of a request that never started: code, message, ErrorInfo, and RetryInfo where sending the same request
/// again can help.
pub(super) fn of(error: &RequestError) -> Status {
    let (code, reason) = classify(error);
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(RETRY_SOON));
    }
    if let RequestError::Limit(limit) = error {
        details.add_bad_request_violation(limit.limit.name, error.to_string());
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn classify(error: &RequestError) -> (Code, &'static str) {
    match error {
        RequestError::UnknownModel { .. } => (Code::NotFound, "MODEL_NOT_SERVED"),
        RequestError::Limit(_) => (Code::InvalidArgument, "OUT_OF_LIMIT"),
        RequestError::NoPrompt => (Code::InvalidArgument, "PROMPT_MISSING"),
        RequestError::Role(_) => (Code::InvalidArgument, "ROLE_UNKNOWN"),
        RequestError::UnknownToken { .. } => (Code::InvalidArgument, "TOKEN_UNKNOWN"),
        RequestError::PromptTooLong { .. } => (Code::InvalidArgument, "PROMPT_TOO_LONG"),
        RequestError::TooManyTokens { .. } => (Code::InvalidArgument, "MAX_TOKENS_TOO_LARGE"),
        RequestError::Text(text) => of_text(text),
        RequestError::TokenisersBusy => (Code::ResourceExhausted, "TOKENISERS_BUSY"),
        RequestError::QueueFull => (Code::ResourceExhausted, "QUEUE_FULL"),
        RequestError::Deadline => (Code::DeadlineExceeded, "DEADLINE_PASSED"),
        RequestError::NotReady(_) => (Code::Unavailable, "NOT_READY"),
        RequestError::NotFirst { .. } => (Code::FailedPrecondition, "NOT_FIRST_STAGE"),
        RequestError::Draining => (Code::Unavailable, "DRAINING"),
    }
}

fn of_text(error: &TextError) -> (Code, &'static str) {
    match error {
        TextError::NoTokenizer => (Code::FailedPrecondition, "NO_TOKENIZER"),
        TextError::NoTemplate => (Code::FailedPrecondition, "NO_CHAT_TEMPLATE"),
        TextError::Template(_) => (Code::InvalidArgument, "TEMPLATE_REFUSED"),
        TextError::Tokenizer | TextError::Read { .. } | TextError::TooLarge { .. } | TextError::Invalid { .. } => {
            (Code::Internal, "TOKENIZER_FAILED")
        }
    }
}
