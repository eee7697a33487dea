//! The tokenizer and the conversation's form out of GGUF metadata, as the `tokenizer.json` that they were made from.
//!
//! Never guesses how text is cut: an unknown pre-tokenizer is refused.

use serde_json::{Map, Value, json};

use super::files::Said;
use super::pretokenizers;
use crate::weights::gguf::Metadata;

const HINT: &str = "put the model's tokenizer.json beside the file";
/// The mark that SentencePiece puts for a space.
const SPACE: &str = "▁";

/// Kinds of tokens, by their number in the file.
const UNKNOWN: u32 = 2;
const CONTROL: u32 = 3;
const USER_DEFINED: u32 = 4;

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    /// Of each token, when the file says.
    kinds: Vec<u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, String> {
        let texts = metadata.texts("tokenizer.ggml.tokens")?.ok_or("key tokenizer.ggml.tokens is missing")?;
        let tokens: Vec<&str> = texts
            .enumerate()
            .map(|(id, text)| text.map_err(|_| format!("token {id} of tokenizer.ggml.tokens is not UTF-8")))
            .collect::<Result<_, _>>()?;
        let kinds = metadata.numbers("tokenizer.ggml.token_type")?.unwrap_or_default();
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let (kinds, tokens) = (kinds.len(), tokens.len());
            return Err(format!("tokenizer.ggml.token_type has {kinds} entries for {tokens} tokens"));
        }
        Ok(Self { tokens, kinds: kinds.into_iter().map(|kind| kind as u32).collect() })
    }

    /// Ids by token; of two alike the first.
    fn ids(&self) -> Map<String, Value> {
        let mut ids = Map::new();
        for (id, &token) in self.tokens.iter().enumerate() {
            ids.entry(token).or_insert(json!(id));
        }
        ids
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        tokens.filter(move |(_, (_, found))| **found == kind).map(|(id, (token, _))| (id, *token))
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self) -> Vec<Value> {
        let added = |(id, content): (usize, &str), special: bool| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special})
        };
        let control = self.of_kind(CONTROL).chain(self.of_kind(UNKNOWN)).map(|token| added(token, true));
        control.chain(self.of_kind(USER_DEFINED).map(|token| added(token, false))).collect()
    }
}

/// The `tokenizer.json` of a model; `None` when it takes token ids only.
///
/// # Errors
/// The key at fault, or what is not supported and what helps.
pub(super) fn tokenizer(metadata: &Metadata) -> Result<Option<Value>, String> {
    let (model, normalizer, pre_tokenizer, decoder, vocabulary) = match metadata.text("tokenizer.ggml.model")? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some("gpt2") => {
            let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or("missing");
            let found = pretokenizers::find(pre).ok_or_else(|| {
                let known = pretokenizers::names().collect::<Vec<_>>().join(", ");
                format!("tokenizer.ggml.pre {pre:?} is not supported; supported: {known}; or {HINT}")
            })?;
            let vocabulary = Vocabulary::read(metadata)?;
            let model = bpe(&vocabulary, merges(metadata)?, None);
            let decoder =
                json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
            (model, found.normalizer(), found.pre_tokenizer(), decoder, vocabulary)
        }
        Some("llama") => {
            let vocabulary = Vocabulary::read(metadata)?;
            let scores = metadata.numbers("tokenizer.ggml.scores")?.ok_or("key tokenizer.ggml.scores is missing")?;
            let merges = merges_by_score(&vocabulary, &scores)?;
            let unknown = vocabulary.of_kind(UNKNOWN).next().map(|(_, token)| token);
            let model = bpe(&vocabulary, merges, Some(unknown.unwrap_or("<unk>")));
            let prefix = metadata.truth("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            (model, sentence_normalizer(prefix), Value::Null, sentence_decoder(prefix), vocabulary)
        }
        Some(other) => {
            return Err(format!(
                "tokenizer.ggml.model {other:?} is not supported; supported: gpt2, llama, none; or {HINT}"
            ));
        }
    };
    Ok(Some(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added(),
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": model,
    })))
}

/// A model with an unknown token falls back to bytes, as SentencePiece does.
fn bpe(vocabulary: &Vocabulary<'_>, merges: Vec<Value>, unknown: Option<&str>) -> Value {
    json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": unknown.is_some(), "byte_fallback": unknown.is_some(),
        "vocab": vocabulary.ids(), "merges": merges})
}

fn merges(metadata: &Metadata) -> Result<Vec<Value>, String> {
    let merges = metadata.texts("tokenizer.ggml.merges")?.ok_or("key tokenizer.ggml.merges is missing")?;
    let pair = |(rank, merge): (usize, Result<&str, &[u8]>)| {
        let pair = merge.ok().and_then(|merge| merge.split_once(' '));
        let (left, right) = pair.ok_or_else(|| format!("merge {rank} of tokenizer.ggml.merges is no pair"))?;
        Ok(json!([left, right]))
    };
    merges.enumerate().map(pair).collect()
}

/// SentencePiece joins the neighbours whose union scores best: as merges, every way to cut a token in two, best first.
fn merges_by_score(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Result<Vec<Value>, String> {
    let tokens = &vocabulary.tokens;
    if scores.len() != tokens.len() {
        return Err(format!("tokenizer.ggml.scores has {} entries for {} tokens", scores.len(), tokens.len()));
    }
    let ids: std::collections::HashMap<&str, usize> =
        tokens.iter().enumerate().map(|(id, &token)| (token, id)).collect();
    let mut found = Vec::new();
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| token.len() <= MOST_PIECE_BYTES) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&one), Some(&other)) = (ids.get(left), ids.get(right)) {
                found.push((scores[id], one, other, left, right));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    Ok(found.into_iter().map(|(_, _, _, left, right)| json!([left, right])).collect())
}

/// Longer pieces are no words; every cut of them would be looked up.
const MOST_PIECE_BYTES: usize = 256;

fn sentence_normalizer(prefix: bool) -> Value {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]})
    } else {
        spaces
    }
}

fn sentence_decoder(prefix: bool) -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": usize::from(prefix), "stop": 0},
    ]})
}

/// What else the metadata says.
///
/// # Errors
/// The key at fault.
pub(super) fn said(metadata: &Metadata) -> Result<Said, String> {
    let id = |part: &str| metadata.whole(&format!("tokenizer.ggml.{part}_token_id"));
    let token = |part: &str| {
        let Some(id) = id(part)? else { return Ok(None) };
        let Some(mut tokens) = metadata.texts("tokenizer.ggml.tokens")? else { return Ok(None) };
        Ok::<_, String>(tokens.nth(usize::try_from(id).unwrap_or(usize::MAX)).and_then(Result::ok).map(str::to_owned))
    };
    let mut eos_ids = Vec::new();
    for part in ["eos", "eot", "eom"] {
        eos_ids.extend(id(part)?.and_then(|id| u32::try_from(id).ok()));
    }
    Ok(Said {
        bos_token: token("bos")?,
        eos_token: token("eos")?,
        // SentencePiece has the habit unless told otherwise.
        adds_bos: metadata
            .truth("tokenizer.ggml.add_bos_token")?
            .or(Some(metadata.text("tokenizer.ggml.model")? == Some("llama"))),
        template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        eos_ids,
    })
}
