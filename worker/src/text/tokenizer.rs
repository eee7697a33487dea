//! The tokenizer behind the one boundary that survives its panics. Never adds a special token by itself.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{TextError, believed, files};

const FILE: &str = "tokenizer.json";
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Special tokens that are part of the answer's text.
const SPOKEN: [&str; 2] = ["<think>", "</think>"];

/// A loaded `tokenizer.json`.
#[derive(Debug)]
pub(super) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Special tokens that never appear in text.
    silent: HashSet<u32>,
    /// Whether what is no token is written as bytes.
    falls_back: bool,
}

impl Tokenizer {
    /// `None` where the folder has no `tokenizer.json`.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>, TextError> {
        let path = directory.join(FILE);
        let Some(bytes) = files::bytes(&path, MAX_BYTES)? else { return Ok(None) };
        let text = files::utf8(&path, bytes)?;
        Self::parse(&path, &text).map(Some)
    }

    /// The tokenizer that `text`, the content of a `tokenizer.json`, describes; `path` is where it came from.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, TextError> {
        let invalid = |problem: String| TextError::Invalid { path: path.to_owned(), problem };
        believed::check(text).map_err(invalid)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text.as_bytes()))
            .map_err(|_| invalid("the tokenizer cannot be built from it".into()))?
            .map_err(|error| invalid(error.to_string()))?;
        // Both belong to training: a prompt is never cut or filled up silently.
        inner.with_truncation(None).map_err(|error| invalid(error.to_string()))?;
        inner.with_padding(None);
        let silent = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !SPOKEN.contains(&token.content.as_str()))
            .map(|(id, _)| id)
            .collect();
        let falls_back = text.contains("ByteFallback");
        Ok(Self { inner, silent, falls_back })
    }

    /// The id of a token as it is written.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether the tokenizer's own post-processing begins every text with `id`.
    pub(super) fn adds_first(&self, id: u32) -> bool {
        let encoded = guarded(|| self.inner.encode("a", true));
        matches!(encoded, Ok(Ok(encoding)) if encoding.get_ids().first() == Some(&id))
    }

    /// Whether `id` leaves no trace in text.
    pub(super) fn is_silent(&self, id: u32) -> bool {
        self.silent.contains(&id)
    }

    /// Whether what is no token is written as bytes.
    pub(super) fn falls_back(&self) -> bool {
        self.falls_back
    }

    /// The ids of `text` alone.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        match guarded(|| self.inner.encode_fast(text, false)) {
            Ok(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            _ => Err(TextError::Tokenizer),
        }
    }

    /// The text of `ids`; what is no UTF-8 becomes U+FFFD. Silent ids must have been left out.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        match guarded(|| self.inner.decode(ids, false)) {
            Ok(Ok(text)) => Ok(text),
            _ => Err(TextError::Tokenizer),
        }
    }
}

struct Panicked;

/// Foreign code that is fed foreign text: a panic there ends one request, not the process.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // The tokenizer is only read; its caches recover from poisoning or are simply missed.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}
