//! Models in the formats that people have, through the library's own loader.
#![expect(clippy::unwrap_used, reason = "all of it is tests, also what is no #[test]")]

mod bench;
#[path = "../common/compared.rs"]
mod compared;
#[path = "../common/families.rs"]
mod families;
mod fp8;
#[path = "../common/gguf.rs"]
#[allow(dead_code, reason = "the fuzzer uses the rest")]
mod gguf;
mod llama;
mod malformed_gguf;
mod malformed_safetensors;
mod model;
mod mxfp4;
#[path = "../common/noise.rs"]
mod noise;
#[path = "../common/page.rs"]
mod page;
mod parity;
mod readers;
#[path = "../common/tiny.rs"]
mod tiny;
mod twins;
mod vocabularies;
