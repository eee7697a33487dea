//! Tokenizers: a `tokenizer.json` with the files beside it, and what GGUF metadata says instead.

use std::path::{Path, PathBuf};

use shoal_worker::text::{ModelText, TextError};

use super::gguf::{Writer, header};
use super::place;

/// What a folder says about text. An input is the first, or all of them with a zero byte between two.
const FILES: [&str; 4] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
/// Beside an input that is a `tokenizer.json` alone: it is asked whether it begins texts with this token.
const BESIDE: &[u8] = br#"{"bos_token":"<s>"}"#;

pub(super) fn read_gguf(input: &[u8]) -> Result<(), String> {
    // Most are refused here, without a file.
    header(input)?;
    let path = place::directory("gguf-tokenizer")?.join("model.gguf");
    place::write(&path, input)?;
    load(&path)
}

pub(super) fn read(input: &[u8]) -> Result<(), String> {
    let mut parts = input.split(|&byte| byte == 0);
    if !input.contains(&0) {
        let directory = place::directory("tokenizer")?;
        let beside = directory.join(FILES[1]);
        if !beside.is_file() {
            place::write(&beside, BESIDE)?;
        }
        place::write(&directory.join(FILES[0]), input)?;
        return load(&directory);
    }
    let directory = place::directory("folder")?;
    for name in FILES {
        place::write(&directory.join(name), parts.next().unwrap_or(b"{}"))?;
    }
    load(&directory)
}

fn load(directory: &Path) -> Result<(), String> {
    let said = |error: TextError| error.to_string().replace(&*directory.to_string_lossy(), "");
    round(&ModelText::load(directory).map_err(said)?)
}

/// To tokens and back, with tokens among them that no text has.
fn round(text: &ModelText) -> Result<(), String> {
    let ids = text.encode_text("Hi, 12 wörlds!\n  \u{4e00}").map_err(|error| error.to_string())?;
    let mut decoder = text.detokenizer();
    for id in ids.into_iter().take(64).chain([0, 1, 255, u32::MAX]) {
        decoder.push(id);
    }
    decoder.finish();
    Ok(())
}

/// Every kind of model, and between them every kind of normaliser, pre-tokenizer, post-processor and decoder; folders.
pub(super) fn files() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/tokenizer");
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<Vec<u8>> = paths.iter().map(read).collect();
    let folder = |parts: [&str; 3]| [&files[0][..], b"\0", parts.join("\0").as_bytes()].concat();
    let config = r#"{"bos_token":{"content":"<s>"},"eos_token":"Hi","add_bos_token":true,
        "chat_template":[{"name":"default","template":"{{ messages[0].content|trim }}"}]}"#;
    let template = "{%- for m in messages if m.role != 'system' -%}{{ m['content'].strip() }}{%- else -%}{{ raise_exception('a') }}\
        {%- endfor -%}{% set ns = namespace(a=1) %}{% if ns.a is defined and not false %}{{ bos_token ~ ns.a[1:] }}{% endif %}";
    let folders = [
        folder([config, r#"{"eos_token_id":[3,2]}"#, ""]),
        folder([r#"{"eos_token":"<s>","add_bos_token":false}"#, r#"{"eos_token_id":3}"#, template]),
    ];
    files.extend(folders);
    files
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|word| (*word).to_owned()).collect()
}

/// Cut by one of the expressions that have a name.
fn byte_level(pre: &str) -> Writer {
    let mut writer = Writer::new("qwen3moe");
    writer.whole("qwen3moe.block_count", 1);
    writer.text("tokenizer.ggml.model", "gpt2");
    writer.text("tokenizer.ggml.pre", pre);
    writer.texts("tokenizer.ggml.tokens", &words(&["H", "i", "Hi", "Ġ", "1", "<eos>", "<u>"]));
    writer.wholes("tokenizer.ggml.token_type", &[1, 1, 1, 1, 1, 3, 4]);
    writer.texts("tokenizer.ggml.merges", &words(&["H i"]));
    writer.whole("tokenizer.ggml.eos_token_id", 5);
    writer
}

/// Pieces with scores.
fn sentence() -> Writer {
    let mut writer = Writer::new("llama");
    writer.whole("llama.block_count", 1);
    writer.text("tokenizer.ggml.model", "llama");
    writer.texts("tokenizer.ggml.tokens", &words(&["<unk>", "<s>", "</s>", "<0x0A>", "▁", "H", "i", "Hi", "▁Hi"]));
    writer.wholes("tokenizer.ggml.token_type", &[2, 3, 3, 6, 1, 1, 1, 1, 1]);
    writer.floats("tokenizer.ggml.scores", &[0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0]);
    writer.whole("tokenizer.ggml.bos_token_id", 1);
    writer
}

pub(super) fn of_gguf() -> Vec<Vec<u8>> {
    let mut template = byte_level("deepseek-v3");
    template.text("tokenizer.chat_template", "{% for m in messages %}{{ m.content|trim }}{% endfor %}");
    template.truth("tokenizer.ggml.add_bos_token", true);
    template.whole("tokenizer.ggml.bos_token_id", 0);
    let mut plain = sentence();
    plain.truth("tokenizer.ggml.add_space_prefix", false);
    plain.truth("tokenizer.ggml.add_bos_token", false);
    plain.whole("tokenizer.ggml.eot_token_id", 2);
    let mut none = Writer::new("llama");
    none.text("tokenizer.ggml.model", "none");
    let mut files = vec![template.bytes(), sentence().bytes(), plain.bytes(), none.bytes()];
    files.extend(["deepseek-llm", "qwen2", "olmo", "gpt-4o"].map(|pre| byte_level(pre).bytes()));
    files
}
