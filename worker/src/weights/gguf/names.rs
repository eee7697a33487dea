//! From the names in GGUF files to those that recipes ask for, which are Hugging Face's.
//!
//! An expert is one matrix of a stack. A tensor that is not known is refused: a bias that nobody adds would be a
//! wrong answer.

use super::Metadata;
use crate::weights::Entry;

/// How the matrices of a tensor are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// As it is.
    One,
    /// \[n, rows, cols\] as \[n · rows, cols\].
    Flat,
    /// \[experts, …\] as one entry an expert; `{e}` in the name is its number.
    Stack,
}

type Rule = (&'static str, &'static str, As);

const GLOBAL: &[Rule] = &[
    ("token_embd.weight", "model.embed_tokens.weight", As::One),
    ("output_norm.weight", "model.norm.weight", As::One),
    ("output.weight", "lm_head.weight", As::One),
];

/// What every family has.
const COMMON: &[Rule] = &[
    ("attn_norm.weight", "input_layernorm.weight", As::One),
    ("ffn_norm.weight", "post_attention_layernorm.weight", As::One),
    ("attn_output.weight", "self_attn.o_proj.weight", As::One),
];

const DEEPSEEK2: &[Rule] = &[
    ("attn_q.weight", "self_attn.q_proj.weight", As::One),
    ("attn_q_a.weight", "self_attn.q_a_proj.weight", As::One),
    ("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", As::One),
    ("attn_q_b.weight", "self_attn.q_b_proj.weight", As::One),
    ("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", As::One),
    ("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", As::One),
    ("attn_kv_b.weight", "self_attn.kv_b_proj.weight", As::One),
    // [heads, latent, nope] and [heads, value, latent]: the two halves of kv_b, the first transposed.
    ("attn_k_b.weight", "self_attn.k_b_proj.weight", As::Flat),
    ("attn_v_b.weight", "self_attn.v_b_proj.weight", As::Flat),
    ("ffn_gate.weight", "mlp.gate_proj.weight", As::One),
    ("ffn_up.weight", "mlp.up_proj.weight", As::One),
    ("ffn_down.weight", "mlp.down_proj.weight", As::One),
    ("ffn_gate_inp.weight", "mlp.gate.weight", As::One),
    ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", As::One),
    ("ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight", As::Stack),
    ("ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight", As::Stack),
    ("ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight", As::Stack),
    ("ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight", As::One),
    ("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight", As::One),
    ("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight", As::One),
];

/// Qwen3-MoE and OLMoE.
const QWEN3: &[Rule] = &[
    ("attn_q.weight", "self_attn.q_proj.weight", As::One),
    ("attn_k.weight", "self_attn.k_proj.weight", As::One),
    ("attn_v.weight", "self_attn.v_proj.weight", As::One),
    ("attn_q_norm.weight", "self_attn.q_norm.weight", As::One),
    ("attn_k_norm.weight", "self_attn.k_norm.weight", As::One),
    ("ffn_gate_inp.weight", "mlp.gate.weight", As::One),
    ("ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight", As::Stack),
    ("ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight", As::Stack),
    ("ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight", As::Stack),
];

/// Mixtral, which GGUF calls a llama with experts; its q and k rows are permuted, so that rope is interleaved.
const MIXTRAL: &[Rule] = &[
    ("attn_q.weight", "self_attn.q_proj.weight", As::One),
    ("attn_k.weight", "self_attn.k_proj.weight", As::One),
    ("attn_v.weight", "self_attn.v_proj.weight", As::One),
    ("ffn_gate_inp.weight", "block_sparse_moe.gate.weight", As::One),
    ("ffn_gate_exps.weight", "block_sparse_moe.experts.{e}.w1.weight", As::Stack),
    ("ffn_up_exps.weight", "block_sparse_moe.experts.{e}.w3.weight", As::Stack),
    ("ffn_down_exps.weight", "block_sparse_moe.experts.{e}.w2.weight", As::Stack),
];

/// gpt-oss, whose gate and up are apart here and interleaved in its own files.
const GPT_OSS: &[Rule] = &[
    ("post_attention_norm.weight", "post_attention_layernorm.weight", As::One),
    ("attn_q.weight", "self_attn.q_proj.weight", As::One),
    ("attn_q.bias", "self_attn.q_proj.bias", As::One),
    ("attn_k.weight", "self_attn.k_proj.weight", As::One),
    ("attn_k.bias", "self_attn.k_proj.bias", As::One),
    ("attn_v.weight", "self_attn.v_proj.weight", As::One),
    ("attn_v.bias", "self_attn.v_proj.bias", As::One),
    ("attn_output.bias", "self_attn.o_proj.bias", As::One),
    ("attn_sinks.weight", "self_attn.sinks", As::One),
    ("ffn_gate_inp.weight", "mlp.router.weight", As::One),
    ("ffn_gate_inp.bias", "mlp.router.bias", As::One),
    ("ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight", As::Stack),
    ("ffn_gate_exps.bias", "mlp.experts.{e}.gate_proj.bias", As::Stack),
    ("ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight", As::Stack),
    ("ffn_up_exps.bias", "mlp.experts.{e}.up_proj.bias", As::Stack),
    ("ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight", As::Stack),
    ("ffn_down_exps.bias", "mlp.experts.{e}.down_proj.bias", As::Stack),
];

const FAMILIES: [(&str, &[Rule]); 5] =
    [("deepseek2", DEEPSEEK2), ("qwen3moe", QWEN3), ("olmoe", QWEN3), ("llama", MIXTRAL), ("gpt-oss", GPT_OSS)];

/// The names of one architecture.
#[derive(Debug)]
pub struct Names {
    rules: &'static [Rule],
    architecture: &'static str,
    /// Layers from this one on are not part of the decoder.
    layers: u64,
}

impl Names {
    /// For the architecture that a file names.
    ///
    /// # Errors
    /// An architecture that is not known, or a key that is missing.
    pub fn new(metadata: &Metadata) -> Result<Self, String> {
        let found = metadata.text("general.architecture")?.ok_or("key general.architecture is missing")?;
        let Some((architecture, rules)) = FAMILIES.into_iter().find(|(name, _)| *name == found) else {
            let known = FAMILIES.map(|(name, _)| name).join(", ");
            return Err(format!("architecture {found:?} is not supported; supported: {known}"));
        };
        let whole = |part: &str| metadata.whole(&format!("{architecture}.{part}"));
        let extra = whole("nextn_predict_layers")?.unwrap_or(0);
        let layers = whole("block_count")?.ok_or_else(|| format!("key {architecture}.block_count is missing"))?;
        Ok(Self { rules, architecture, layers: layers.saturating_sub(extra) })
    }

    /// Refuses a tensor of the file that no recipe could ask for; layers that predict further tokens aside.
    ///
    /// # Errors
    /// Its name.
    pub(super) fn check(&self, tensor: &str) -> Result<(), String> {
        let known = match tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            None => GLOBAL.iter().any(|(name, ..)| *name == tensor),
            Some((layer, part)) => match layer.parse::<u64>() {
                Ok(layer) if layer >= self.layers => true,
                Ok(_) => self.rules().any(|(name, ..)| *name == part),
                Err(_) => false,
            },
        };
        if known {
            return Ok(());
        }
        let architecture = self.architecture;
        Err(format!("tensor {tensor} is not known in files of {architecture}, and what is not known is not left out"))
    }

    fn rules(&self) -> impl Iterator<Item = &'static Rule> {
        self.rules.iter().chain(COMMON)
    }

    /// The name in the file of a tensor that a recipe asks for, and which part of it is meant.
    pub(in crate::weights) fn find(&self, wanted: &str) -> Option<(String, Slice)> {
        if let Some((name, ..)) = GLOBAL.iter().find(|(_, name, _)| *name == wanted) {
            return Some(((*name).to_owned(), Slice::Whole));
        }
        let (layer, wanted) = wanted.strip_prefix("model.layers.")?.split_once('.')?;
        let (name, part) = self.rules().find_map(|(name, pattern, seen)| {
            let part = match (seen, pattern.split_once("{e}")) {
                (As::Stack, Some((before, after))) => {
                    Slice::Expert(wanted.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?)
                }
                (As::Flat, _) if *pattern == wanted => Slice::Flat,
                _ if *pattern == wanted => Slice::Whole,
                _ => return None,
            };
            Some((*name, part))
        })?;
        Some((format!("blk.{layer}.{name}"), part))
    }
}

/// Which part of a tensor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::weights) enum Slice {
    /// All of it.
    Whole,
    /// All of it, \[n, rows, cols\] as \[n · rows, cols\].
    Flat,
    /// One matrix of a stack.
    Expert(usize),
}

impl Slice {
    /// The entry of this part, called `name`; `None` when the tensor has no such part.
    pub(in crate::weights) fn of(self, tensor: &Entry, name: &str) -> Option<Entry> {
        let whole = Entry { name: name.to_owned(), ..tensor.clone() };
        match (self, tensor.shape.as_slice()) {
            (Self::Whole, _) => Some(whole),
            (Self::Flat, &[stack, rows, cols]) => Some(Entry { shape: vec![stack * rows, cols], ..whole }),
            (Self::Expert(expert), [count, rest @ ..]) if expert < *count && !rest.is_empty() => {
                let len = tensor.len / *count as u64;
                Some(Entry { shape: rest.to_vec(), offset: tensor.offset + expert as u64 * len, len, ..whole })
            }
            _ => None,
        }
    }
}
