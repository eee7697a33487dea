//! Tokens become text as they come, and never half a character.
//!
//! Never decodes the whole answer again: only a window since the last complete character.

use std::sync::Arc;

use super::tokenizer::Tokenizer;

/// A character has at most four bytes, so at most three of them can be waiting for the rest. Some tokenizers write
/// one U+FFFD for each, others one for all. One that falls back to bytes writes one for each byte of a whole run of them
/// until the run is complete.
const MAX_WAITING: usize = 3;
/// Beyond this, a window without a complete character is garbage and sent as it is.
const MAX_WINDOW: usize = 1024;

/// Decodes one answer. Joined, its pieces are what decoding all tokens at once would give.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Option<Arc<Tokenizer>>,
    /// ```text
    /// window: [ context | new ]     context: sent already, kept because the text of a token can depend on the one before
    ///         0      context  len
    /// ```
    window: Vec<u32>,
    context: usize,
    /// Bytes of the decoded window that were sent.
    sent: usize,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { tokenizer, window: vec![], context: 0, sent: 0 }
    }

    /// Adds a token and returns the text that is certain now, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        let Some(tokenizer) = self.tokenizer.clone() else { return String::new() };
        if tokenizer.is_silent(id) {
            return String::new();
        }
        self.window.push(id);
        let full = self.window.len() >= MAX_WINDOW;
        let Some(text) = self.decode(&tokenizer) else { return String::new() };
        let most = if tokenizer.falls_back() { MAX_WINDOW } else { MAX_WAITING };
        let waiting = if full { 0 } else { waiting_bytes(&text, most) };
        let piece = self.take(&text, text.len() - waiting);
        if waiting == 0 {
            self.slide(&tokenizer);
        }
        piece
    }

    /// Whether part of a character is held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        // After a slide the window ends where its context does.
        self.window.len() > self.context
    }

    /// The answer is over: what is held back will not become a character.
    pub fn finish(&mut self) -> String {
        let Some(tokenizer) = self.tokenizer.clone() else { return String::new() };
        let piece = self.decode(&tokenizer).map_or_else(String::new, |text| self.take(&text, text.len()));
        self.slide(&tokenizer);
        piece
    }

    fn decode(&self, tokenizer: &Tokenizer) -> Option<String> {
        tokenizer.decode(&self.window).ok()
    }

    /// The part of `text` from what was sent up to `end`.
    fn take(&mut self, text: &str, end: usize) -> String {
        let piece = text.get(self.sent..end).unwrap_or_default().to_owned();
        self.sent = self.sent.max(end);
        piece
    }

    /// All is sent: what was new becomes the context of what follows.
    fn slide(&mut self, tokenizer: &Tokenizer) {
        self.window.drain(..self.context);
        self.context = self.window.len();
        self.sent = self.decode(tokenizer).map_or(0, |text| text.len());
    }
}

/// How many bytes at the end of `text` may still change; at most those of `most` characters.
fn waiting_bytes(text: &str, most: usize) -> usize {
    text.chars().rev().take(most).take_while(|&c| c == char::REPLACEMENT_CHARACTER).map(char::len_utf8).sum()
}
