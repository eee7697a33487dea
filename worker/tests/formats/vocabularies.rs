//! Tokenizers out of GGUF metadata against llama.cpp, which `tests/gen/vocabularies.py` asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shoal_worker::text::ModelText;

use super::gguf::Writer;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    ids: BTreeMap<String, Vec<Vec<u32>>>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/vocabularies").join(name)
}

#[rstest::rstest]
fn texts_become_the_tokens_that_llama_cpp_makes_of_them_and_texts_again(
    #[values("deepseek-llm", "deepseek-v3", "qwen2", "olmo", "gpt-4o", "llama")] name: &str,
) {
    let expected: Expected = serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
    let model = ModelText::load(&fixture(&format!("{name}.gguf"))).unwrap();
    let bos: &[u32] = if name == "llama" { &[1] } else { &[] };
    for (text, ids) in expected.texts.iter().zip(&expected.ids[name]) {
        let ours = model.encode_text(text).unwrap();
        assert_eq!(ours, [bos, ids].concat(), "{text:?}");
        let mut decoder = model.detokenizer();
        let mut again: String = ids.iter().map(|&id| decoder.push(id)).collect();
        again.push_str(&decoder.finish());
        assert_eq!(again, *text, "{ids:?}");
    }
    assert_eq!(model.eos().len(), 1);
}

/// A file without tensors whose tokenizer is spoilt by one change.
fn spoilt(change: impl FnOnce(&mut Writer)) -> String {
    let mut writer = Writer::new("qwen3moe");
    writer.whole("qwen3moe.block_count", 1);
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", "qwen2");
    writer.texts("tokenizer.ggml.tokens", &["a".to_owned(), "b".to_owned(), "ab".to_owned()]);
    writer.texts("tokenizer.ggml.merges", &["a b".to_owned()]);
    change(&mut writer);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    std::fs::write(&path, writer.bytes()).unwrap();
    let error = ModelText::load(&path).map(drop).map_err(|error| error.to_string());
    let error = error.err().unwrap_or_default();
    error.rsplit_once("is not usable: ").map_or(error.clone(), |(_, problem)| problem.to_owned())
}

#[test]
fn what_a_tokenizer_in_a_file_lacks_is_named_with_what_helps() {
    let hint = "; or put the model's tokenizer.json beside the file";
    let known = "deepseek-llm, deepseek-v3, deepseek-r1, qwen2, olmo, dolma, gpt-4o";
    assert_eq!(spoilt(|_| {}), "");
    assert_eq!(spoilt(|writer| writer.text("tokenizer.ggml.model", "none")), "");
    let table = [
        (
            spoilt(|writer| writer.text("tokenizer.ggml.pre", "tekken")),
            format!("tokenizer.ggml.pre \"tekken\" is not supported; supported: {known}{hint}"),
        ),
        (
            spoilt(|writer| writer.keys.retain(|(key, _)| key != "tokenizer.ggml.pre")),
            format!("tokenizer.ggml.pre \"missing\" is not supported; supported: {known}{hint}"),
        ),
        (
            spoilt(|writer| writer.text("tokenizer.ggml.model", "bert")),
            format!("tokenizer.ggml.model \"bert\" is not supported; supported: gpt2, llama, none{hint}"),
        ),
        (
            spoilt(|writer| writer.text("tokenizer.ggml.model", "llama")),
            "key tokenizer.ggml.scores is missing".to_owned(),
        ),
        (
            spoilt(|writer| writer.texts("tokenizer.ggml.merges", &["ab".to_owned()])),
            "merge 0 of tokenizer.ggml.merges is no pair".to_owned(),
        ),
        (
            spoilt(|writer| writer.wholes("tokenizer.ggml.token_type", &[1])),
            "tokenizer.ggml.token_type has 1 entries for 3 tokens".to_owned(),
        ),
        (
            spoilt(|writer| writer.text("tokenizer.ggml.tokens", "a")),
            "key tokenizer.ggml.tokens is a string; needed: an array of strings".to_owned(),
        ),
    ];
    for (found, expected) in table {
        assert_eq!(found, expected);
    }
}

#[test]
fn a_tokenizer_json_beside_the_file_counts_more() {
    let directory = tempfile::tempdir().unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(tiny.join(name), directory.path().join(name)).unwrap();
    }
    std::fs::copy(fixture("qwen2.gguf"), directory.path().join("model.gguf")).unwrap();
    let (ours, theirs) = (ModelText::load(directory.path()).unwrap(), ModelText::load(&tiny).unwrap());
    assert_eq!(ours.encode_text("12+3").unwrap(), theirs.encode_text("12+3").unwrap());
}
