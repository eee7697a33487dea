//! What the JSON files beside a tokenizer say. Never opens the tokenizer or the weights.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::TextError;

const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is said about special tokens and the conversation's form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) bos_token: Option<String>,
    pub(super) eos_token: Option<String>,
    pub(super) adds_bos: Option<bool>,
    pub(super) template: Option<String>,
    pub(super) eos_ids: Vec<u32>,
}

impl Said {
    /// What is not said here is taken from `other`; ids that end an answer from both.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.eos_ids.extend(other.eos_ids);
        Self {
            bos_token: self.bos_token.or(other.bos_token),
            eos_token: self.eos_token.or(other.eos_token),
            adds_bos: self.adds_bos.or(other.adds_bos),
            template: self.template.or(other.template),
            eos_ids: self.eos_ids,
        }
    }
}

pub(super) fn read(directory: &Path) -> Result<Said, TextError> {
    let tokenizer = json(&directory.join("tokenizer_config.json"))?;
    let mut eos_ids = eos_ids(&json(&directory.join("generation_config.json"))?);
    eos_ids.extend(self::eos_ids(&json(&directory.join("config.json"))?));
    let template = match bytes(&directory.join("chat_template.jinja"), MAX_BYTES)? {
        Some(bytes) => Some(utf8(&directory.join("chat_template.jinja"), bytes)?),
        None => template(&tokenizer["chat_template"]),
    };
    Ok(Said {
        bos_token: token(&tokenizer["bos_token"]),
        eos_token: token(&tokenizer["eos_token"]),
        adds_bos: tokenizer["add_bos_token"].as_bool(),
        template,
        eos_ids,
    })
}

/// The whole of a file, or `None` where there is none.
pub(super) fn bytes(path: &Path, allowed: u64) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |source| TextError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let size = file.metadata().map_err(failed)?.len();
    if size > allowed {
        return Err(TextError::TooLarge { path: path.to_owned(), bytes: size, allowed });
    }
    let mut content = Vec::new();
    file.take(allowed).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

/// Bytes as text, or a clear refusal.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, TextError> {
    String::from_utf8(bytes).map_err(|error| TextError::Invalid {
        path: path.to_owned(),
        problem: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })
}

/// `Null` where there is no file, so that every question to it is answered with nothing.
fn json(path: &Path) -> Result<Value, TextError> {
    let Some(bytes) = bytes(path, MAX_BYTES)? else { return Ok(Value::Null) };
    let text = utf8(path, bytes)?;
    serde_json::from_str(&text)
        .map_err(|error| TextError::Invalid { path: path.to_owned(), problem: error.to_string() })
}

/// A token is written plainly, or as an object with its `content`.
fn token(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// One template, or a list of named ones of which `default` counts.
fn template(value: &Value) -> Option<String> {
    let named = || value.as_array()?.iter().find(|entry| entry["name"] == "default")?["template"].as_str();
    value.as_str().or_else(named).map(str::to_owned)
}

/// One id or a list of them.
fn eos_ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match &value["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(id).collect(),
        one => id(one).into_iter().collect(),
    }
}
