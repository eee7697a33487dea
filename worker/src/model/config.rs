//! `config.json` parsed into what cannot be wrong: dims, layers, router rule, rotary rule.
//!
//! Anything not understood is refused by name; nothing is guessed.

use std::path::Path;

use super::ModelError;
use super::families;
use super::fields::required;
use super::raw::RawConfig;
use super::rope::RopeRule;
use crate::ops::{Activation, RouterRule};
use crate::weights::checkpoint::gguf_of;
use crate::weights::gguf::{self, Gguf};

const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A model of a supported family.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `architectures[0]`.
    pub architecture: String,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Most tokens of a sequence.
    pub max_context: u32,
    /// The embedding is the head too.
    pub tied: bool,
    /// What the family's recipe made of the rest.
    pub decoder: Decoder,
}

/// What differs between families: the layers and their parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    /// Decoder layers, in order.
    pub layers: Vec<LayerRule>,
    /// Width of a dense layer's MLP.
    pub dense_width: usize,
    /// Attention of every layer.
    pub attention: Attention,
    /// Positions.
    pub rope: RopeRule,
    /// Added to the mean square in the norms of the residual stream.
    pub norm_eps: f32,
    /// Experts of every layer that has some.
    pub mixture: MixtureRule,
}

/// One decoder layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerRule {
    /// Has routed experts instead of one dense MLP.
    pub mixture: bool,
    /// Keys seen by a query, its own included; `None` for all.
    pub window: Option<usize>,
}

/// Kind of attention with its dims.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// Multi-head latent attention.
    Mla(MlaDims),
    /// Grouped-query attention.
    Gqa(GqaDims),
}

/// Dims of multi-head latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlaDims {
    /// Heads.
    pub heads: usize,
    /// Rank of the query's low-rank factor; `None` for one `q_proj`.
    pub q_lora: Option<usize>,
    /// Columns of the cached latent.
    pub kv_lora: usize,
    /// Columns of a head without position.
    pub nope: usize,
    /// Columns of a head with position, shared by all heads in the key.
    pub rope: usize,
    /// Columns of a head's value.
    pub value: usize,
}

/// Grouped-query attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GqaDims {
    /// Heads of the query.
    pub heads: usize,
    /// Heads of key and value; divides `heads`.
    pub kv_heads: usize,
    /// Columns of a head; even.
    pub head_dim: usize,
    /// The four projections have biases.
    pub bias: bool,
    /// Norms of q and k before they are rotated.
    pub qk_norm: QkNorm,
    /// Largest magnitude of q, k and v before rotation.
    pub clip: Option<f32>,
    /// A learned score per head takes part in the softmax.
    pub sinks: bool,
}

/// Over what the norms of q and k go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// There are none.
    None,
    /// Each head by itself.
    PerHead,
    /// All heads together.
    Whole,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureRule {
    /// Routed experts.
    pub experts: u32,
    /// Width of one.
    pub width: usize,
    /// Width of the shared experts, fused; 0 without any.
    pub shared_width: usize,
    /// From gate and up to the middle.
    pub activation: Activation,
    /// Scores to choices.
    pub router: RouterRule,
    /// What the router has besides its matrix.
    pub router_bias: RouterBias,
    /// What comes before `.experts` and the router in tensor names, such as `mlp`.
    pub prefix: &'static str,
    /// The router's own name, such as `gate`.
    pub router_name: &'static str,
    /// How the experts are stored.
    pub tensors: ExpertTensors,
}

/// Bias of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterBias {
    /// None.
    None,
    /// `e_score_correction_bias`: for the choice only.
    Correction,
    /// `bias`: part of the logits.
    Linear,
}

/// How the experts of a layer are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertTensors {
    /// Three matrices \[out, in\] each: `experts.E.NAME.weight`.
    Apart {
        /// Name of the gate.
        gate: &'static str,
        /// Name of the matrix beside it.
        up: &'static str,
        /// Name of the last matrix.
        down: &'static str,
    },
    /// `experts.gate_up_proj` \[experts, in, 2 · out\] with gate in the even columns, `experts.down_proj`
    /// \[experts, in, out\], and a bias of each.
    Stacked,
}

impl ModelConfig {
    /// Reads `config.json` of `directory`, or what a GGUF file says instead; returns its bytes too, for the digest.
    ///
    /// # Errors
    /// [`ModelError::Io`] or [`ModelError::Config`], naming the field and what is allowed.
    pub fn read(directory: &Path) -> Result<(Self, Vec<u8>), ModelError> {
        if let Some(path) = gguf_of(directory)? {
            let refused = |problem: String| ModelError::Config { path: path.clone(), problem };
            return Self::of_gguf(&gguf::open(&path)?).map_err(refused);
        }
        let path = directory.join("config.json");
        let io = |source| ModelError::Io { path: path.clone(), source };
        let refused = |problem: String| ModelError::Config { path: path.clone(), problem };
        let len = std::fs::metadata(&path).map_err(io)?.len();
        if len > MAX_CONFIG_BYTES {
            return Err(refused(format!("{len} bytes; at most {MAX_CONFIG_BYTES} are allowed")));
        }
        let bytes = std::fs::read(&path).map_err(io)?;
        Ok((Self::parse(&bytes).map_err(refused)?, bytes))
    }

    /// The config that `bytes`, the content of a `config.json`, describe.
    ///
    /// # Errors
    /// The field at fault and what is allowed.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw = serde_json::from_slice(bytes).map_err(|error| format!("not a model config: {error}"))?;
        Self::check(&raw)
    }

    /// The config of a GGUF model, and the `config.json` that says the same.
    ///
    /// # Errors
    /// The key or field at fault and what is allowed.
    pub fn of_gguf(model: &Gguf) -> Result<(Self, Vec<u8>), String> {
        let bytes = super::gguf::config(model)?.to_string().into_bytes();
        Ok((Self::parse(&bytes)?, bytes))
    }

    fn check(raw: &RawConfig) -> Result<Self, String> {
        let architecture = raw.architectures.as_ref().and_then(|names| names.first()).cloned().unwrap_or_default();
        let recipe = families::recipe(&architecture)?;
        refuse_unsupported(raw)?;
        Ok(Self {
            vocabulary: required("vocab_size", raw.vocab_size)?,
            hidden: required("hidden_size", raw.hidden_size)?,
            max_context: u32::try_from(required("max_position_embeddings", raw.max_position_embeddings)?)
                .expect("should fit: bounded"),
            tied: raw.tie_word_embeddings.unwrap_or(false),
            decoder: recipe(raw)?,
            architecture,
        })
    }
}

/// What no family has.
fn refuse_unsupported(raw: &RawConfig) -> Result<(), String> {
    if let Some(quantization) = &raw.quantization_config {
        let of_gpt_oss = raw.architectures.iter().flatten().any(|name| name == "GptOssForCausalLM");
        check_quantization(quantization, of_gpt_oss)?;
    }
    if let Some(act) = raw.hidden_act.as_deref().filter(|act| *act != "silu") {
        return Err(format!("hidden_act {act:?} is not supported; supported: \"silu\""));
    }
    if raw.mlp_bias == Some(true) {
        return Err("mlp_bias true is not supported; supported: false".to_owned());
    }
    Ok(())
}

/// FP8 weights in tiles of 128 × 128, whose activations nobody has to round; MXFP4 experts as gpt-oss stores them.
/// Whatever is not stored so is found by its type.
fn check_quantization(quantization: &serde_json::Value, of_gpt_oss: bool) -> Result<(), String> {
    let text = |field: &str| quantization.get(field).and_then(|value| value.as_str());
    let method = text("quant_method").unwrap_or("unnamed");
    match method {
        "mxfp4" if of_gpt_oss => return Ok(()),
        "fp8" => {}
        _ => {
            let supported = "\"fp8\" in blocks of [128, 128], and \"mxfp4\" of GptOssForCausalLM";
            return Err(format!("quantization {method:?} is not supported; supported: {supported}"));
        }
    }
    match quantization.get("weight_block_size") {
        Some(size) if *size == serde_json::json!([128, 128]) => {}
        Some(size) => return Err(format!("weight_block_size {size} is not supported; supported: [128, 128]")),
        None => return Err("fp8 without weight_block_size is not supported; supported: [128, 128]".to_owned()),
    }
    let fields =
        [("fmt", ["e4m3", "e4m3"]), ("activation_scheme", ["dynamic", "none"]), ("scale_fmt", ["ue8m0", "float"])];
    for (field, known) in fields {
        if let Some(value) = text(field).filter(|value| !known.contains(value)) {
            let [first, _] = known;
            return Err(format!("quantization's {field} {value:?} is not supported; supported: {first:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
