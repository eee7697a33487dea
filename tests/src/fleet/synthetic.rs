//! A DeepSeek-V3 of any size with random BF16 weights: as large as a test needs, saying nothing.
//!
//! Weights are so small that every number stays finite.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};

/// What decides its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Layers; the first has no experts.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Routed experts of a layer.
    pub experts: u64,
    /// Inner columns of an expert.
    pub width: u64,
}

const HEADS: u64 = 8;
const NOPE: u64 = 64;
const ROPE: u64 = 32;
const VALUE: u64 = 64;
const LATENT: u64 = 256;
const VOCABULARY: u64 = 8192;

/// Numbers that a token leaves in the cache of a layer.
pub const CACHED: u64 = LATENT + ROPE;

impl Synthetic {
    /// Its `config.json`.
    #[must_use]
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": VOCABULARY,
            "hidden_size": self.hidden, "intermediate_size": 2 * self.hidden, "moe_intermediate_size": self.width,
            "num_hidden_layers": self.layers, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": null,
            "kv_lora_rank": LATENT, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": VALUE,
            "n_routed_experts": self.experts, "n_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 1,
            "topk_group": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": true,
            "routed_scaling_factor": 1.0, "hidden_act": "silu", "rms_norm_eps": 1e-6, "attention_bias": false,
            "max_position_embeddings": 4096, "rope_theta": 10000.0, "tie_word_embeddings": false,
            "bos_token_id": 0, "eos_token_id": 1,
        })
    }

    /// Bytes of the tensors whose name `owned` takes.
    #[must_use]
    pub fn bytes(&self, owned: impl Fn(&str) -> bool) -> u64 {
        let tensors = self.tensors();
        let own = tensors.iter().filter(|(name, _)| owned(name));
        own.map(|(name, shape)| shape.iter().product::<u64>() * stored(name).1).sum()
    }

    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let Self { hidden, experts, width, .. } = *self;
        let mlp = |prefix: &str, width: u64| {
            [("gate_proj", [width, hidden]), ("up_proj", [width, hidden]), ("down_proj", [hidden, width])]
                .map(|(part, shape)| (format!("{prefix}.{part}.weight"), shape.to_vec()))
        };
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, hidden]),
            ("lm_head.weight".to_owned(), vec![VOCABULARY, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            let attention = [
                ("q_proj", vec![HEADS * (NOPE + ROPE), hidden]),
                ("kv_a_proj_with_mqa", vec![LATENT + ROPE, hidden]),
                ("kv_a_layernorm", vec![LATENT]),
                ("kv_b_proj", vec![HEADS * (NOPE + VALUE), LATENT]),
                ("o_proj", vec![hidden, HEADS * VALUE]),
            ];
            let at = |part: &str| format!("model.layers.{layer}.{part}");
            all.extend(attention.map(|(part, shape)| (at(&format!("self_attn.{part}.weight")), shape)));
            all.extend(
                ["input_layernorm", "post_attention_layernorm"]
                    .map(|part| (at(&format!("{part}.weight")), vec![hidden])),
            );
            if layer == 0 {
                all.extend(mlp(&at("mlp"), 2 * hidden));
                continue;
            }
            all.push((at("mlp.gate.weight"), vec![experts, hidden]));
            all.push((at("mlp.gate.e_score_correction_bias"), vec![experts]));
            all.extend(mlp(&at("mlp.shared_experts"), width));
            (0..experts).for_each(|expert| all.extend(mlp(&at(&format!("mlp.experts.{expert}")), width)));
        }
        all
    }

    /// Writes `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("config.json"), self.config().to_string()).context("config.json")?;
        let tensors = self.tensors();
        let mut table = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in &tensors {
            let begin = end;
            let (dtype, bytes) = stored(name);
            end += shape.iter().product::<u64>() * bytes;
            table.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}));
        }
        let header = Value::Object(table).to_string();
        let mut file = BufWriter::new(File::create(folder.join("model.safetensors")).context("model.safetensors")?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        // Drawn once and repeated: what the numbers are does not matter.
        let mut piece = vec![0; 1 << 20];
        StdRng::seed_from_u64(1).fill_bytes(&mut piece);
        piece.chunks_exact_mut(2).for_each(small);
        while end > 0 {
            let length = piece.len().min(usize::try_from(end)?);
            file.write_all(&piece[..length])?;
            end -= length as u64;
        }
        file.flush().context("model.safetensors")
    }
}

/// Element type of a tensor and its bytes. A correction bias is F32 in every published file.
fn stored(name: &str) -> (&'static str, u64) {
    if name.ends_with("_bias") { ("F32", 4) } else { ("BF16", 2) }
}

/// Keeps sign and mantissa of random bits: a number between 2⁻⁷ and 2⁻⁶, or its negative.
fn small(bits: &mut [u8]) {
    let number = u16::from_le_bytes([bits[0], bits[1]]) & 0x807f | 0x3c00;
    bits.copy_from_slice(&number.to_le_bytes());
}
