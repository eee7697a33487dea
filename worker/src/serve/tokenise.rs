//! Prompts become tokens on a bounded pool, so that a long one never holds up a stream.
//!
//! Never grows: beyond its places a prompt is refused at once.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::request::{Prompt, RequestError};
use crate::text::{ModelText, TextError};

/// Prompts that are computed at once.
const RUNNING: usize = 2;
/// Prompts that are computed or wait for it; each may hold a whole received message.
const PLACES: usize = 32;
/// Shorter texts are tokenised where they are: sending them elsewhere costs more.
const SHORT_BYTES: usize = 1024;

/// The pool.
#[derive(Debug)]
pub(super) struct Tokenisers {
    text: Arc<ModelText>,
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Tokenisers {
    pub(super) fn new(text: Arc<ModelText>) -> Self {
        Self { text, places: Arc::new(Semaphore::new(PLACES)), running: Arc::new(Semaphore::new(RUNNING)) }
    }

    /// The model's text.
    pub(super) fn text(&self) -> &ModelText {
        &self.text
    }

    /// The ids of `prompt`.
    pub(super) async fn encode(&self, prompt: Prompt) -> Result<Vec<u32>, RequestError> {
        match prompt {
            Prompt::Ids(ids) => Ok(ids),
            Prompt::Text(text) if text.len() <= SHORT_BYTES => Ok(self.text.encode_text(&text)?),
            Prompt::Text(text) => self.elsewhere(move |model| model.encode_text(&text)).await,
            Prompt::Chat(messages) => self.elsewhere(move |model| model.encode_chat(&messages)).await,
        }
    }

    async fn elsewhere(
        &self,
        work: impl FnOnce(&ModelText) -> Result<Vec<u32>, TextError> + Send + 'static,
    ) -> Result<Vec<u32>, RequestError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| RequestError::TokenisersBusy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| RequestError::TokenisersBusy)?;
        let text = Arc::clone(&self.text);
        let task = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the waiting client: one that leaves frees no place before its work ends.
            let _held = (place, running);
            work(&text)
        });
        Ok(task.await.map_err(|_| TextError::Tokenizer)??)
    }
}
