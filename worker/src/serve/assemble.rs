//! Sampled tokens become the tokens of the wire, each with the text that became certain with it. Pure.
//!
//! Never lets a stop string, or half a character, through.

use shoal_proto::inference as wire;

use crate::engine::request::SampledToken;
use crate::text::{Detokenizer, StopMatcher, Stopped};

/// One answer on its way from ids to text.
#[derive(Debug)]
pub(super) struct Assembler {
    decoder: Detokenizer,
    stop: StopMatcher,
    /// The last token, kept back while text is: if the answer ends here, that text is this token's.
    last: Option<wire::Token>,
}

/// What may be sent now.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Assembled {
    pub(super) tokens: Vec<wire::Token>,
    /// A stop string is complete: the answer ends here.
    pub(super) stopped: bool,
}

impl Assembler {
    pub(super) fn new(decoder: Detokenizer, stop: Vec<String>) -> Self {
        Self { decoder, stop: StopMatcher::new(stop), last: None }
    }

    /// Adds one token.
    pub(super) fn push(&mut self, token: SampledToken) -> Assembled {
        let piece = self.decoder.push(token.id);
        let (text, stopped) = split(self.stop.push(&piece));
        let mut tokens: Vec<_> = self.last.take().into_iter().collect();
        let token = on_the_wire(token, text);
        if !stopped && (self.decoder.is_holding() || self.stop.is_holding()) {
            self.last = Some(token);
        } else {
            tokens.push(token);
        }
        Assembled { tokens, stopped }
    }

    /// The answer is over: what was held back belongs to the last token.
    pub(super) fn finish(&mut self) -> Assembled {
        let (mut text, stopped) = split(self.stop.push(&self.decoder.finish()));
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        let with_text = |mut token: wire::Token| {
            token.text.push_str(&text);
            token
        };
        Assembled { tokens: self.last.take().map(with_text).into_iter().collect(), stopped }
    }
}

fn split(stopped: Stopped) -> (String, bool) {
    match stopped {
        Stopped::No(text) => (text, false),
        Stopped::Yes(text) => (text, true),
    }
}

fn on_the_wire(token: SampledToken, text: String) -> wire::Token {
    let top = token.top.into_iter().map(|(id, logprob)| wire::TopLogprob { id, logprob }).collect();
    wire::Token { id: token.id, text, logprob: token.logprob, top }
}
