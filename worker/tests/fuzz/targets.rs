//! What is fed, and with what it begins.

mod frames;
mod gguf;
mod json;
pub(crate) mod place;
mod steps;
mod tokenizers;

use std::path::Path;

/// One way in for foreign bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) corpus: fn() -> Vec<Vec<u8>>,
    /// What it says to the input.
    pub(crate) run: fn(&[u8]) -> Result<(), String>,
}

pub(crate) const TARGETS: [Target; 6] = [
    Target { name: "gguf", corpus: gguf::files, run: gguf::read },
    Target { name: "gguf-tokenizer", corpus: tokenizers::of_gguf, run: tokenizers::read_gguf },
    Target { name: "safetensors", corpus: json::safetensors, run: json::read_safetensors },
    Target { name: "config", corpus: json::configs, run: json::read_config },
    Target { name: "tokenizer", corpus: tokenizers::files, run: tokenizers::read },
    Target { name: "frames", corpus: frames::all, run: frames::read },
];

fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
