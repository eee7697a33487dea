//! GGUF files: the header alone, then the file as a model's, or as one of two.

use std::path::Path;

use shoal_worker::model::config::ModelConfig;
use shoal_worker::program::Dtype;
use shoal_worker::weights::WeightsError;
use shoal_worker::weights::checkpoint::Checkpoint;
use shoal_worker::weights::gguf::{self, Header, Metadata};

use super::{place, tokenizers};

#[path = "../../common/gguf.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod writer;

pub(super) use writer::Writer;

/// Names that recipes ask for, one of each way to find a tensor.
const WANTED: [&str; 8] = [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.self_attn.k_b_proj.weight",
    "model.layers.0.mlp.experts.1.gate_proj.weight",
    "model.layers.0.block_sparse_moe.experts.0.w1.weight",
    "model.layers.0.mlp.experts.0.down_proj.bias",
    "model.layers.0.mlp.experts.x.down_proj.bias",
    "model.layers.0",
];

pub(super) fn header(input: &[u8]) -> Result<Header, String> {
    gguf::parse(input.to_vec(), input.len() as u64).map_err(|(problem, _)| format!("{problem:?}"))
}

pub(super) fn read(input: &[u8]) -> Result<(), String> {
    let metadata = header(input)?.metadata;
    for key in metadata.keys() {
        // Every reading of every key, most of which are refused.
        let _ = (metadata.text(key), metadata.whole(key), metadata.float(key), metadata.truth(key));
        let _ = (metadata.numbers(key), metadata.texts(key).map(|texts| texts.map(Iterator::count)));
    }
    let directory = place::directory("gguf")?;
    match number(&metadata) {
        None => {
            let path = directory.join("model.gguf");
            place::write(&path, input)?;
            read_file(&path)
        }
        Some(number) => {
            let path = |number| directory.join(format!("parts-{:05}-of-00002.gguf", number + 1));
            place::write(&path(number), input)?;
            place::write(&path(1 - number), &part(1 - number as u16))?;
            read_file(&path(0))
        }
    }
}

/// Which of two files this one is, from 0.
fn number(metadata: &Metadata) -> Option<usize> {
    let number = metadata.whole("split.no").ok().flatten()?;
    usize::try_from(number).ok().filter(|number| *number < 2)
}

fn read_file(path: &Path) -> Result<(), String> {
    let said = |error: WeightsError| error.to_string().replace(&*path.to_string_lossy(), "");
    let model = gguf::open(path).map_err(said)?;
    let checkpoint = Checkpoint::open(path).map_err(said)?;
    for name in WANTED.into_iter().filter(|name| checkpoint.has(name)) {
        let _ = checkpoint.tensor(name, &[2, 32]);
        let _ = checkpoint.read(name, |_, _| Ok::<_, WeightsError>(()));
    }
    ModelConfig::of_gguf(&model).map(drop)
}

/// Sizes that fit each other, of every family.
fn model(architecture: &str) -> Writer {
    let mut writer = Writer::new(architecture);
    for (part, value) in [
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", 32),
        ("feed_forward_length", 32),
        ("attention.head_count", 4),
        ("expert_count", 8),
        ("expert_used_count", 2),
        ("expert_feed_forward_length", 32),
    ] {
        writer.whole(&format!("{architecture}.{part}"), value);
    }
    writer.float(&format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-6);
    writer.tensor("token_embd.weight", &[2, 32], Dtype::Q8_0, vec![1; 68]);
    writer
}

fn deepseek() -> Writer {
    let mut writer = model("deepseek2");
    for (part, value) in [
        ("attention.kv_lora_rank", 16),
        ("attention.key_length", 24),
        ("attention.value_length", 16),
        ("rope.dimension_count", 8),
        ("expert_shared_count", 1),
        ("leading_dense_block_count", 1),
        ("rope.scaling.original_context_length", 32),
    ] {
        writer.whole(&format!("deepseek2.{part}"), value);
    }
    writer.text("deepseek2.rope.scaling.type", "yarn");
    writer.float("deepseek2.rope.scaling.factor", 4.0);
    writer.float("deepseek2.rope.scaling.yarn_log_multiplier", 0.0707);
    writer.truth("deepseek2.expert_weights_norm", false);
    writer.tensor("blk.0.ffn_gate_exps.weight", &[2, 3, 32], Dtype::Q4_0, vec![2; 108]);
    writer.tensor("blk.0.attn_k_b.weight", &[2, 2, 32], Dtype::F16, vec![3; 256]);
    writer
}

/// Groups and sigmoid, widths of latent attention, a layer that predicts further tokens.
fn deepseek_3() -> Writer {
    let mut writer = deepseek();
    for (part, value) in [
        ("block_count", 3),
        ("nextn_predict_layers", 1),
        ("expert_gating_func", 2),
        ("expert_group_count", 2),
        ("expert_group_used_count", 1),
        ("attention.q_lora_rank", 16),
        ("attention.key_length_mla", 24),
        ("attention.value_length_mla", 16),
    ] {
        writer.whole(&format!("deepseek2.{part}"), value);
    }
    writer.truth("deepseek2.expert_weights_norm", true);
    writer.float("deepseek2.expert_weights_scale", 2.5);
    writer.tensor("blk.2.nextn.eh_proj.weight", &[1], Dtype::F32, vec![0; 4]);
    writer.tensor("output.weight", &[2, 32], Dtype::Bf16, vec![0; 128]);
    writer.version = 2;
    writer
}

fn grouped(architecture: &str) -> Writer {
    let mut writer = model(architecture);
    writer.whole(&format!("{architecture}.attention.head_count_kv"), 2);
    writer.whole(&format!("{architecture}.attention.key_length"), 8);
    writer.whole(&format!("{architecture}.attention.sliding_window"), 16);
    writer.float(&format!("{architecture}.rope.freq_base"), 1e6);
    writer.tensor("blk.0.ffn_gate_exps.weight", &[2, 3, 32], Dtype::Mxfp4, vec![2; 102]);
    writer
}

fn olmoe() -> Writer {
    let mut writer = grouped("olmoe");
    writer.whole("olmoe.attention.sliding_window", 0);
    writer.float("olmoe.attention.clamp_kqv", 8.0);
    writer.text("olmoe.rope.scaling.type", "none");
    writer.tensor("blk.0.attn_norm.weight", &[32], Dtype::F32, vec![0; 128]);
    writer
}

fn gpt_oss() -> Writer {
    let mut writer = grouped("gpt-oss");
    writer.text("gpt-oss.rope.scaling.type", "yarn");
    writer.float("gpt-oss.rope.scaling.factor", 32.0);
    writer.whole("gpt-oss.rope.scaling.original_context_length", 4096);
    writer.tensor("blk.0.ffn_down_exps.bias", &[2, 32], Dtype::F32, vec![0; 256]);
    writer
}

/// A value of every type, alone and in arrays; a tensor of every format; a wider alignment.
fn types() -> Writer {
    let mut writer = grouped("qwen3moe");
    writer.alignment = 64;
    writer.whole("general.alignment", 64);
    for (kind, size) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)] {
        let value = vec![1; size];
        writer.raw(&format!("one.{kind}"), kind, &value);
        let array = [&kind.to_le_bytes()[..], &2_u64.to_le_bytes(), &value, &value].concat();
        writer.raw(&format!("two.{kind}"), 9, &array);
    }
    writer.floats("x.floats", &[0.5, f32::NAN]);
    writer.wholes("x.wholes", &[1, -2, 3]);
    writer.texts("x.texts", &["a".to_owned(), String::new()]);
    let name = |part: &str| format!("blk.0.ffn_{part}_exps.weight");
    writer.tensor(&name("up"), &[2, 1, 256], Dtype::Q4K, vec![0; 288]);
    writer.tensor(&name("down"), &[2, 1, 256], Dtype::Q6K, vec![0; 420]);
    writer.tensor("blk.0.attn_q.weight", &[1, 256], Dtype::Q5K, vec![0; 176]);
    writer.tensor("blk.0.attn_k.weight", &[1, 32], Dtype::Iq4Nl, vec![0; 18]);
    writer.tensor("blk.0.attn_v.weight", &[1, 32], Dtype::Q5_0, vec![0; 22]);
    writer.tensor("blk.0.attn_output.weight", &[1, 32], Dtype::Q5_1, vec![0; 24]);
    writer
}

/// File `number` of two.
fn part(number: u16) -> Vec<u8> {
    let mut writer = if number == 0 { grouped("qwen3moe") } else { Writer::new("qwen3moe") };
    writer.raw("split.no", 2, &number.to_le_bytes());
    writer.raw("split.count", 2, &2_u16.to_le_bytes());
    writer.raw("split.tensors.count", 5, &3_i32.to_le_bytes());
    if number == 1 {
        writer.tensor("output.weight", &[1], Dtype::F32, vec![0; 4]);
    }
    writer.bytes()
}

pub(super) fn files() -> Vec<Vec<u8>> {
    let llama = grouped("llama");
    let models = [deepseek(), deepseek_3(), grouped("qwen3moe"), olmoe(), llama, gpt_oss(), types()];
    let mut files: Vec<Vec<u8>> = models.iter().map(Writer::bytes).collect();
    files.extend([part(0), part(1)]);
    files.extend(tokenizers::of_gguf().into_iter().take(2));
    files
}
