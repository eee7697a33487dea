//! Between text and token ids: tokenizer, chat template, incremental decoding, stop strings.
//!
//! Never samples and never sees logits. What a model folder says about text is read once, here.

mod believed;
mod detokenizer;
mod expressions;
mod files;
mod gguf;
mod pretokenizers;
mod stop;
mod template;
mod tokenizer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use detokenizer::Detokenizer;
pub use stop::{StopMatcher, Stopped};
pub use template::ChatMessage;
use template::ChatTemplate;
use tokenizer::Tokenizer;

use crate::weights::WeightsError;
use crate::weights::checkpoint::gguf_of;
use crate::weights::gguf::{Metadata, read_metadata};

/// Why text could not become tokens, or a folder's text files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file exists and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is larger than any of its kind.
    #[error("{} has {bytes} bytes; at most {allowed} are allowed", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        allowed: u64,
    },
    /// A file that does not say what it should.
    #[error("{} is not usable: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Text was given to a model without a tokenizer.
    #[error("the model has no tokenizer.json, so only token_ids prompts can be answered")]
    NoTokenizer,
    /// Messages were given to a model without a template.
    #[error("the model has no chat template, so only text and token_ids prompts can be answered")]
    NoTemplate,
    /// The template refused these messages, or would not end.
    #[error("the chat template refuses the messages: {0}")]
    Template(String),
    /// The tokenizer failed on this input; the process lives on.
    #[error("the tokenizer failed on this input")]
    Tokenizer,
}

/// All that a model's folder says about text.
#[derive(Debug)]
pub struct ModelText {
    tokenizer: Option<Arc<Tokenizer>>,
    template: Option<ChatTemplate>,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl ModelText {
    /// Reads `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, `generation_config.json` and
    /// `config.json` of `directory`. All but the last may be absent. A GGUF file says all of it in its metadata, but
    /// what lies beside it counts more.
    ///
    /// # Errors
    /// [`TextError`] when a file is present and not usable.
    pub fn load(directory: &Path) -> Result<Self, TextError> {
        let unreadable =
            |error: WeightsError| TextError::Invalid { path: directory.to_owned(), problem: error.to_string() };
        match gguf_of(directory).map_err(unreadable)? {
            None => Self::new(files::read(directory)?, Tokenizer::load(directory)?),
            Some(path) => Self::of_gguf(&path, &read_metadata(&path).map_err(unreadable)?),
        }
    }

    fn of_gguf(path: &Path, metadata: &Metadata) -> Result<Self, TextError> {
        let invalid = |problem: String| TextError::Invalid { path: path.to_owned(), problem };
        let beside = path.parent().unwrap_or_else(|| Path::new("."));
        let own = gguf::said(metadata).map_err(invalid)?;
        let said = files::read(beside)?.or(own);
        let tokenizer = match Tokenizer::load(beside)? {
            Some(tokenizer) => Some(tokenizer),
            None => {
                let file = gguf::tokenizer(metadata).map_err(invalid)?;
                file.map(|file| Tokenizer::parse(path, &file.to_string())).transpose()?
            }
        };
        Self::new(said, tokenizer)
    }

    fn new(said: files::Said, tokenizer: Option<Tokenizer>) -> Result<Self, TextError> {
        let tokenizer = tokenizer.map(Arc::new);
        let id = |token: &Option<String>| {
            tokenizer.as_ref().zip(token.as_ref()).and_then(|(tokenizer, token)| tokenizer.id(token))
        };
        let bos = match (said.adds_bos, id(&said.bos_token)) {
            (Some(false), _) => None,
            (Some(true), bos) => bos,
            (None, bos) => bos.filter(|&bos| tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.adds_first(bos))),
        };
        let mut eos = said.eos_ids;
        eos.extend(id(&said.eos_token));
        eos.sort_unstable();
        eos.dedup();
        let template = said.template.map(|source| {
            ChatTemplate::new(source, said.bos_token.unwrap_or_default(), said.eos_token.unwrap_or_default())
        });
        Ok(Self { tokenizer, template: template.transpose()?, bos, eos })
    }

    /// A model without any text: only token ids go in and come out.
    #[must_use]
    pub fn none() -> Self {
        Self { tokenizer: None, template: None, bos: None, eos: vec![] }
    }

    /// Ids that end an answer, ascending.
    #[must_use]
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Whether conversations can be answered.
    #[must_use]
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some() && self.tokenizer.is_some()
    }

    /// The ids of a plain text: the tokenizer's BOS, if it has that habit, and nothing else added.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`], [`TextError::Tokenizer`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        ids.extend(self.tokenizer.as_ref().ok_or(TextError::NoTokenizer)?.encode(text)?);
        Ok(ids)
    }

    /// The ids of a conversation, ready for the assistant to speak: what the template writes, and nothing added.
    ///
    /// # Errors
    /// Any [`TextError`] that is not about files.
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, TextError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(TextError::NoTokenizer)?;
        let rendered = self.template.as_ref().ok_or(TextError::NoTemplate)?.render(messages)?;
        tokenizer.encode(&rendered)
    }

    /// Decodes one answer from its first token.
    #[must_use]
    pub fn detokenizer(&self) -> Detokenizer {
        Detokenizer::new(self.tokenizer.clone())
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
#[path = "text/tests.rs"]
mod tests;
