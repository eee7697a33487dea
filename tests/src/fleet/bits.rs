//! Answers as bits, for comparisons that allow no difference at all.

use shoal_proto::inference::Token;

use super::ask::{Answer, End};

/// Id, log-probability and top log-probabilities of a token, floats as bits.
pub type TokenBits = (u32, u32, Vec<(u32, u32)>);

/// The bits of some tokens.
#[must_use]
pub fn of_tokens(tokens: &[Token]) -> Vec<TokenBits> {
    let top = |token: &Token| token.top.iter().map(|top| (top.id, top.logprob.to_bits())).collect();
    tokens.iter().map(|token| (token.id, token.logprob.to_bits(), top(token))).collect()
}

/// The bits of an answer, or `None` when it failed.
#[must_use]
pub fn of_answer(answer: &Answer) -> Option<Vec<TokenBits>> {
    matches!(answer.end, End::Finished(_)).then(|| of_tokens(&answer.tokens))
}
