//! The models that llama.cpp has been compared on, by name.

use shoal_worker::program::Dtype;

use super::families::{gpt_oss, mixtral, olmoe, qwen3};
use super::gguf::Writer;
use super::tiny::{Deepseek, Formats, VOCABULARY, deepseek};

pub(crate) const COMPARED: [&str; 11] = [
    "k-quants",
    "small-blocks",
    "split",
    "qwen3-f32",
    "qwen3-k-quants",
    "olmoe-f32",
    "olmoe-narrow",
    "mixtral-f32",
    "mixtral-mixed",
    "gpt-oss-f32",
    "gpt-oss-mxfp4",
];

const F32: Formats = |_| Dtype::F32;

/// Such a model. DeepSeek's have 27 layers, because llama.cpp takes only that many for a V2-Lite.
pub(crate) fn compared(name: &str) -> Option<Writer> {
    let dims = Deepseek { layers: 27, formats: k_quants, third: false, split: false, seed: 11 };
    let mut writer = match name {
        "k-quants" => deepseek(dims),
        "small-blocks" => deepseek(Deepseek { formats: small, ..dims }),
        "split" => deepseek(Deepseek { split: true, ..dims }),
        "qwen3-f32" => qwen3(F32),
        "qwen3-k-quants" => qwen3(k_quants),
        "olmoe-f32" => olmoe(F32),
        "olmoe-narrow" => olmoe(narrow),
        "mixtral-f32" => mixtral(F32),
        "mixtral-mixed" => mixtral(mixed),
        "gpt-oss-f32" => gpt_oss(F32),
        "gpt-oss-mxfp4" => gpt_oss(mxfp4),
        _ => return None,
    };
    if writer.keys.iter().all(|(key, _)| !key.ends_with(".vocab_size")) {
        // Without a tokenizer llama.cpp asks for it.
        writer.whole("deepseek2.vocab_size", VOCABULARY as u32);
    }
    Some(writer)
}

/// What comes before `.weight`, without the layer.
fn part(name: &str) -> &str {
    name.rsplit('.').nth(1).unwrap_or_default()
}

fn k_quants(name: &str) -> Dtype {
    match part(name) {
        "ffn_down_exps" | "ffn_down" | "output" => Dtype::Q6K,
        "attn_output" | "ffn_up_exps" | "attn_kv_b" | "attn_v_b" => Dtype::Q5K,
        "attn_k_b" => Dtype::Q8_0,
        _ => Dtype::Q4K,
    }
}

fn small(name: &str) -> Dtype {
    match part(name) {
        "ffn_down_exps" | "output" => Dtype::Q8_0,
        "ffn_up_exps" | "attn_kv_b" => Dtype::Q5_1,
        "ffn_gate_exps" | "attn_output" => Dtype::Q5_0,
        "ffn_gate_shexp" | "ffn_up_shexp" | "ffn_gate" | "ffn_up" => Dtype::Iq4Nl,
        "ffn_down_shexp" | "ffn_down" => Dtype::Mxfp4,
        _ => Dtype::Q4_0,
    }
}

/// As llama.cpp quantises what Q4_K does not fit: rows of 96 columns become Q5_0.
fn narrow(name: &str) -> Dtype {
    match part(name) {
        "ffn_down_exps" => Dtype::Q5_0,
        "output" => Dtype::Q6K,
        _ => Dtype::Q4K,
    }
}

fn mixed(name: &str) -> Dtype {
    match part(name) {
        "attn_q" | "attn_v" => Dtype::Q8_0,
        "attn_k" | "attn_output" => Dtype::F16,
        "output" | "token_embd" => Dtype::Bf16,
        "ffn_down_exps" => Dtype::Q4K,
        _ => Dtype::Q4_0,
    }
}

/// As published: experts in MXFP4.
fn mxfp4(name: &str) -> Dtype {
    if name.ends_with("_exps.weight") { Dtype::Mxfp4 } else { Dtype::Q8_0 }
}
