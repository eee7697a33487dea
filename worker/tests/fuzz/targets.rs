//! What is fed, and with what it begins.

use std::fs::File;
use std::path::{Path, PathBuf};

use prost::Message as _;
use shoal_proto::shard::{Outcome, Partials, Rows, Stage};
use shoal_worker::backend::{Control, Report, TokenSource};
use shoal_worker::engine::request::SampledToken;
use shoal_worker::model::config::ModelConfig;
use shoal_worker::program::Bucket;
use shoal_worker::shards::frames::{Label, RowBatch, Shape, check_partials, check_rows, cut};
use shoal_worker::shards::pipeline::frames::{Assembly, Parts};
use shoal_worker::shards::pipeline::outcome::{Expected, check, to_wire};
use shoal_worker::shards::pipeline::{StageShape, frames as stage_frames, plan};
use shoal_worker::text::ModelText;
use shoal_worker::weights::{gguf, safetensors};

#[path = "../common/gguf.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod writer;

use shoal_worker::program::Dtype;
use writer::Writer;

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) corpus: fn() -> Vec<Vec<u8>>,
    /// What it says to the input.
    pub(crate) run: fn(&[u8]) -> Result<(), String>,
}

pub(crate) const TARGETS: [Target; 6] = [
    Target { name: "gguf", corpus: gguf_files, run: read_gguf },
    Target { name: "gguf-tokenizer", corpus: gguf_tokenizers, run: read_gguf_tokenizer },
    Target { name: "safetensors", corpus: safetensors_headers, run: read_safetensors },
    Target { name: "config", corpus: configs, run: read_config },
    Target { name: "tokenizer", corpus: tokenizers, run: read_tokenizer },
    Target { name: "frames", corpus: frames, run: read_frame },
];

fn header(input: &[u8]) -> Result<gguf::Header, String> {
    gguf::parse(input.to_vec(), input.len() as u64).map_err(|(problem, _)| format!("{problem:?}"))
}

fn read_gguf(input: &[u8]) -> Result<(), String> {
    let header = header(input)?;
    let metadata = header.metadata;
    for key in metadata.keys() {
        // Every reading of every key, most of which are refused.
        let _ = (metadata.text(key), metadata.whole(key), metadata.float(key), metadata.truth(key));
        let _ = (metadata.numbers(key), metadata.texts(key).map(|texts| texts.map(Iterator::count)));
    }
    let names = gguf::Names::new(&metadata)?;
    let file = File::open("/dev/null").map_err(|error| error.to_string())?;
    let part = gguf::Part { path: PathBuf::new(), file, len: input.len() as u64, tensors: header.tensors };
    ModelConfig::of_gguf(&gguf::Gguf { metadata, names, parts: vec![part] }).map(drop)
}

fn read_gguf_tokenizer(input: &[u8]) -> Result<(), String> {
    let text = ModelText::of_metadata(&header(input)?.metadata).map_err(|error| error.to_string())?;
    round(&text)
}

fn read_safetensors(input: &[u8]) -> Result<(), String> {
    let len = 8 + input.len() as u64 + 64;
    safetensors::parse_header(input, len).map(drop)
}

fn read_config(input: &[u8]) -> Result<(), String> {
    ModelConfig::parse(input).map(drop)
}

fn read_tokenizer(input: &[u8]) -> Result<(), String> {
    let input = std::str::from_utf8(input).map_err(|error| error.to_string())?;
    let text = ModelText::of_tokenizer(input).map_err(|error| error.to_string())?;
    round(&text)
}

fn round(text: &ModelText) -> Result<(), String> {
    let ids = text.encode_text("Hi, 12 wörlds!\n  \u{4e00}").map_err(|error| error.to_string())?;
    let mut decoder = text.detokenizer();
    for id in ids.into_iter().take(64).chain([0, 1, 255, u32::MAX]) {
        decoder.push(id);
    }
    decoder.finish();
    Ok(())
}

const SHAPE: Shape = Shape { hidden: 4, top_k: 2, experts: 8, layers: 3, rows: 16 };
const OWNED: [std::ops::Range<u32>; 2] = [0..3, 4..8];

fn batch() -> RowBatch {
    RowBatch {
        row: vec![0, 2, 5],
        pairs: vec![2, 1, 1],
        expert: vec![0, 4, 2, 7],
        weight: vec![0.5, 0.25, 1.0, -0.0],
        activation: vec![0; 3 * 4 * 4].into(),
    }
}

/// The first byte says which kind of frame follows.
fn read_frame(input: &[u8]) -> Result<(), String> {
    let (&kind, frame) = input.split_first().ok_or("empty")?;
    match kind % 4 {
        2 => return read_stage(frame),
        3 => return read_outcome(frame),
        _ => {}
    }
    if kind % 2 == 0 {
        let rows = Rows::decode(frame).map_err(|error| error.to_string())?;
        return check_rows(&rows, &SHAPE, &OWNED).map_err(|error| error.to_string());
    }
    let partials = Partials::decode(frame).map_err(|error| error.to_string())?;
    let requests = cut(&batch(), &SHAPE, &OWNED, Label { step: 1, layer: 2, sequence: 3 });
    check_partials(&partials, &requests[0], &SHAPE).map_err(|error| error.to_string())
}

const STAGE: StageShape = include!("../common/stage_shape.rs");

fn read_stage(frame: &[u8]) -> Result<(), String> {
    let stage = Stage::decode(frame).map_err(|error| error.to_string())?;
    Assembly::new(STAGE).push(&stage).map(drop).map_err(|error| error.to_string())
}

fn expected() -> Expected {
    Expected { step: 9, rows: 4, top_logprobs: vec![2] }
}

fn read_outcome(frame: &[u8]) -> Result<(), String> {
    let outcome = Outcome::decode(frame).map_err(|error| error.to_string())?;
    check(outcome, &expected(), &STAGE).map(drop).map_err(|error| error.to_string())
}

fn frames_of_a_pipeline() -> [Vec<u8>; 2] {
    let control = Control {
        rows: 2,
        tokens: vec![TokenSource::Host(0); 2],
        positions: vec![63, 64],
        kv_slots: vec![319, 128],
        sequence_starts: vec![0, 2],
        block_tables: vec![vec![4, 2]],
        samples: vec![],
    };
    let parts = Parts { step: 9, plan: plan::encode(&control), activation: vec![0; 16].into(), faults: vec![] };
    let stage = stage_frames::cut(parts, 0, STAGE.row_bytes()).swap_remove(0);
    let token = SampledToken { id: 7, logprob: -0.5, top: vec![(7, -0.5), (9, -1.5)] };
    let outcome = to_wire(9, 0, Report { samples: vec![Some(token)], ..Report::default() });
    [[&[2][..], &stage.encode_to_vec()].concat(), [&[3][..], &outcome.encode_to_vec()].concat()]
}

fn frames() -> Vec<Vec<u8>> {
    let requests = cut(&batch(), &SHAPE, &OWNED, Label { step: 1, layer: 2, sequence: 3 });
    let request = &requests[0];
    let (lo, hi) = request.bounds.iter().copied().unzip();
    let partials = Partials {
        step: request.rows.step,
        layer: request.rows.layer,
        sequence: request.rows.sequence,
        nodes: request.nodes.clone(),
        lo,
        hi,
        sum: vec![0; request.bounds.len() * SHAPE.hidden * 4].into(),
    };
    let [stage, outcome] = frames_of_a_pipeline();
    let rows = [&[0][..], &request.rows.encode_to_vec()].concat();
    vec![rows, [&[1][..], &partials.encode_to_vec()].concat(), stage, outcome]
}

fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn configs() -> Vec<Vec<u8>> {
    let names: [&str; 15] = include!("../../../tests/fixtures/names.rs");
    names.iter().map(|name| fixture(&format!("tests/fixtures/{name}/config.json"))).collect()
}

fn safetensors_headers() -> Vec<Vec<u8>> {
    let whole = fixture("tests/fixtures/formats.safetensors");
    let header = whole[8..].split(|&byte| byte == b' ').next().unwrap_or_default().to_vec();
    let small = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,6],"data_offsets":[0,48]},
        "b":{"dtype":"F8_E4M3","shape":[2,8],"data_offsets":[48,64]}}"#;
    vec![header, small.as_bytes().to_vec()]
}

fn tokenizers() -> Vec<Vec<u8>> {
    let small = r#"{"version":"1.0","added_tokens":[{"id":3,"content":"<s>","single_word":false,"lstrip":false,
        "rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence",
        "pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},
        {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},"post_processor":null,
        "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE",
        "dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
        "byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;
    vec![fixture("models/tiny/tokenizer.json"), small.as_bytes().to_vec()]
}

fn gguf_files() -> Vec<Vec<u8>> {
    let mut writer = Writer::new("deepseek2");
    for key in ["block_count", "context_length", "embedding_length", "feed_forward_length", "expert_count"] {
        writer.whole(&format!("deepseek2.{key}"), 32);
    }
    for key in ["attention.head_count", "attention.kv_lora_rank", "attention.key_length", "attention.value_length"] {
        writer.whole(&format!("deepseek2.{key}"), 16);
    }
    for key in ["expert_used_count", "rope.dimension_count", "expert_shared_count", "expert_feed_forward_length"] {
        writer.whole(&format!("deepseek2.{key}"), 2);
    }
    writer.text("deepseek2.rope.scaling.type", "yarn");
    writer.float("deepseek2.rope.scaling.factor", 4.0);
    writer.whole("deepseek2.rope.scaling.original_context_length", 32);
    writer.float("deepseek2.attention.layer_norm_rms_epsilon", 1e-6);
    writer.truth("deepseek2.expert_weights_norm", false);
    writer.wholes("x.wholes", &[1, -2, 3]);
    writer.floats("x.floats", &[0.5, f32::NAN]);
    writer.tensor("token_embd.weight", &[2, 32], Dtype::Q8_0, vec![1; 68]);
    writer.tensor("blk.0.ffn_gate_exps.weight", &[2, 3, 32], Dtype::Q4_0, vec![2; 108]);
    [vec![writer.bytes()], gguf_tokenizers()].concat()
}

fn gguf_tokenizers() -> Vec<Vec<u8>> {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut bytes = Writer::new("qwen3moe");
    bytes.whole("qwen3moe.block_count", 1);
    bytes.text("tokenizer.ggml.model", "gpt2");
    bytes.text("tokenizer.ggml.pre", "deepseek-v3");
    bytes.texts("tokenizer.ggml.tokens", &words(&["H", "i", "Hi", "Ġ", "1", "<eos>"]));
    bytes.wholes("tokenizer.ggml.token_type", &[1, 1, 1, 1, 1, 3]);
    bytes.texts("tokenizer.ggml.merges", &words(&["H i"]));
    bytes.whole("tokenizer.ggml.eos_token_id", 5);
    bytes.text("tokenizer.chat_template", "{{ messages[0].content }}");
    let mut pieces = Writer::new("llama");
    pieces.whole("llama.block_count", 1);
    pieces.text("tokenizer.ggml.model", "llama");
    pieces.texts("tokenizer.ggml.tokens", &words(&["<unk>", "<s>", "</s>", "<0x0A>", "▁", "H", "i", "Hi", "▁Hi"]));
    pieces.wholes("tokenizer.ggml.token_type", &[2, 3, 3, 6, 1, 1, 1, 1, 1]);
    pieces.floats("tokenizer.ggml.scores", &[0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0]);
    pieces.whole("tokenizer.ggml.bos_token_id", 1);
    vec![bytes.bytes(), pieces.bytes()]
}
