//! What a `tokenizer.json` may claim and the tokenizers crate believes, at the price of memory or of sound strings.
//!
//! Never builds anything and never judges what the crate judges itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::expressions;
use crate::limits::EXPRESSION_CLASSES;

#[derive(Deserialize)]
struct File {
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    decoder: Option<Value>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    continuing_subword_prefix: Option<String>,
}

/// Refuses claims that do not hold.
///
/// # Errors
/// The field at fault.
pub(super) fn check(text: &str) -> Result<(), String> {
    let File { normalizer, pre_tokenizer, decoder, model } =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    normalizer.iter().try_for_each(check_maps)?;
    let classes = [&normalizer, &pre_tokenizer, &decoder].into_iter().flatten().map(expressions::classes);
    let classes = classes.fold(0, usize::saturating_add);
    EXPRESSION_CLASSES.check_count(classes).map_err(|error| error.to_string())?;
    match model {
        // It would be cut from every merge by its length, whatever the merge begins with, even within a character.
        Some(Model { r#type, continuing_subword_prefix: Some(prefix) })
            if !prefix.is_empty() && r#type.as_deref() != Some("WordPiece") =>
        {
            Err(format!("continuing_subword_prefix {prefix:?} is not supported for this model; supported: null"))
        }
        _ => Ok(()),
    }
}

/// Wherever it stands in the normaliser.
fn check_maps(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(values) => values.iter().try_for_each(check_maps),
        Value::Object(fields) => {
            fields.get("precompiled_charsmap").map_or(Ok(()), check_map)?;
            fields.values().try_for_each(check_maps)
        }
        _ => Ok(()),
    }
}

/// SentencePiece's map: u32 little-endian size of the trie in bytes, the trie, texts. Room for the trie is made before
/// it is read.
fn check_map(map: &Value) -> Result<(), String> {
    let bytes = map.as_str().and_then(|text| STANDARD.decode(text).ok());
    let bytes = bytes.ok_or("precompiled_charsmap is not base64")?;
    match bytes.split_first_chunk() {
        Some((size, rest)) if u32::from_le_bytes(*size) as usize > rest.len() => {
            let claimed = u32::from_le_bytes(*size);
            Err(format!("precompiled_charsmap claims a trie of {claimed} bytes; {} are there", rest.len()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    fn refused(text: &str) -> String {
        check(text).err().unwrap_or_default()
    }

    #[test]
    fn a_map_of_characters_that_claims_more_than_it_holds_is_refused_wherever_it_stands() {
        let map = |map: &str| format!(r#"{{"type":"Precompiled","precompiled_charsmap":"{map}"}}"#);
        let within = |map: String| format!(r#"{{"normalizer":{{"type":"Sequence","normalizers":[{map}]}}}}"#);
        let claims = "precompiled_charsmap claims a trie of 4294967295 bytes; 0 are there";
        assert_eq!(refused(&format!(r#"{{"normalizer":{}}}"#, map("/////w=="))), claims);
        assert_eq!(refused(&within(map("/////w=="))), claims);
        assert_eq!(refused(&within(map("BAAAAAAAAAA="))), "");
        assert_eq!(refused(&within(map("!"))), "precompiled_charsmap is not base64");
    }

    #[test]
    fn a_prefix_that_merges_would_lose_is_refused_but_for_word_piece() {
        let model = |kind: &str, prefix: &str| {
            format!(r#"{{"model":{{"type":"{kind}","continuing_subword_prefix":{prefix},"vocab":{{"a":0}}}}}}"#)
        };
        let text = r##"continuing_subword_prefix "#" is not supported for this model; supported: null"##;
        assert_eq!(refused(&model("BPE", r##""#""##)), text);
        for (kind, prefix) in [("BPE", "null"), ("BPE", "\"\""), ("WordPiece", r##""#""##)] {
            assert_eq!(refused(&model(kind, prefix)), "", "{kind} {prefix}");
        }
    }

    #[test]
    fn expressions_that_would_fill_the_memory_are_refused() {
        let file = |regex: &str| format!(r#"{{"pre_tokenizer":{{"type":"Split","pattern":{{"Regex":"{regex}"}}}}}}"#);
        let text = "classes of a tokenizer's expressions is 1001; allowed: 0 to 64";
        assert_eq!(refused(&file(r"\\p{L}{1000}")), text);
        assert_eq!(refused(&file(r"\\p{L}{1,3}")), "");
    }

    #[test]
    fn what_is_said_twice_is_refused() {
        assert!(refused(r#"{"normalizer":null,"normalizer":null}"#).starts_with("duplicate field"));
    }
}
