//! A byte-level tokenizer as DeepSeek's, small enough to write here. For tests.

use std::path::Path;

use serde_json::json;

/// Every byte is a token (its id), 256 joins `h` and `i`; then `<bos>`, `<eos>`, `<think>`, `</think>`.
pub(crate) fn write_tokenizer(directory: &Path) {
    // The printable alphabet of byte-level BPE (GPT-2): 188 bytes stand for themselves, the others move up.
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut moved = 256;
    let alphabet: Vec<String> = (0..256_u32)
        .map(|byte| {
            let code = if plain(byte) {
                byte
            } else {
                moved += 1;
                moved - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect();
    let mut vocabulary: serde_json::Map<String, serde_json::Value> =
        alphabet.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    vocabulary.insert("hi".into(), json!(256));
    let added: Vec<_> = ["<bos>", "<eos>", "<think>", "</think>"]
        .iter()
        .enumerate()
        .map(|(i, content)| {
            json!({"id": 257 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": ["h i"]},
    });
    std::fs::write(directory.join("tokenizer.json"), file.to_string()).unwrap();
    let config = json!({"bos_token": {"content": "<bos>"}, "eos_token": "<eos>", "add_bos_token": true,
        "chat_template": "{{bos_token}}{% for m in messages %}[{{m.role}}]{{m.content}}{% endfor %}<think>"});
    std::fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
    std::fs::write(directory.join("generation_config.json"), r#"{"eos_token_id": [3, 2]}"#).unwrap();
}
