//! `config.json` parsed into what cannot be wrong: dims, router rule, rotary rule.
//!
//! Anything not understood is refused by name; nothing is guessed.

use std::path::Path;

use super::ModelError;
use super::raw::RawConfig;
use super::rope::RopeRule;
use crate::ops::{GroupScore, RouterRule, Scoring};
use crate::weights::checkpoint::gguf_of;
use crate::weights::gguf::{self, Gguf};

const SUPPORTED: &str = "DeepseekV2ForCausalLM, DeepseekV3ForCausalLM";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Bounds of every whole number in a config: field, smallest, largest.
const BOUNDS: [(&str, u64, u64); 17] = [
    ("vocab_size", 1, 1 << 20),
    ("hidden_size", 1, 1 << 16),
    ("intermediate_size", 1, 1 << 18),
    ("moe_intermediate_size", 1, 1 << 16),
    ("num_hidden_layers", 1, 1024),
    ("num_attention_heads", 1, 1024),
    ("n_shared_experts", 1, 64),
    ("n_routed_experts", 1, 4096),
    ("num_experts_per_tok", 1, 64),
    ("kv_lora_rank", 1, 1 << 14),
    ("q_lora_rank", 1, 1 << 15),
    ("qk_rope_head_dim", 2, 1024),
    ("qk_nope_head_dim", 1, 1024),
    ("v_head_dim", 1, 1024),
    ("n_group", 1, 256),
    ("topk_group", 1, 256),
    ("max_position_embeddings", 1, 1 << 24),
];

/// A DeepSeek model of the V2 or V3 architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `architectures[0]`.
    pub architecture: String,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// Columns of the residual stream.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// The first layers that have one wide MLP instead of experts.
    pub first_dense: usize,
    /// Of the rest, each n-th has experts.
    pub mixture_every: usize,
    /// Width of a dense layer's MLP.
    pub dense_width: usize,
    /// Width of one routed expert.
    pub expert_width: usize,
    /// Width of the shared experts, fused.
    pub shared_width: usize,
    /// Routed experts of a mixture layer.
    pub experts: u32,
    /// Attention.
    pub attention: AttentionDims,
    /// Scores to choices.
    pub router: RouterRule,
    /// Whether the router has a correction bias.
    pub router_bias: bool,
    /// Positions.
    pub rope: RopeRule,
    /// Added to the mean square in the norms of the residual stream.
    pub norm_eps: f32,
    /// Most tokens of a sequence.
    pub max_context: u32,
    /// The embedding is the head too.
    pub tied: bool,
}

/// Dims of multi-head latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionDims {
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
        let third = match architecture.as_str() {
            "DeepseekV2ForCausalLM" => false,
            "DeepseekV3ForCausalLM" => true,
            other => return Err(format!("architecture {other:?} is not supported; supported: {SUPPORTED}")),
        };
        refuse_unsupported(raw)?;
        let moe_width = required("moe_intermediate_size", raw.moe_intermediate_size)?;
        let shared = required("n_shared_experts", raw.n_shared_experts)?;
        let layers = required("num_hidden_layers", raw.num_hidden_layers)?;
        let first_dense = raw.first_k_dense_replace.unwrap_or(if third { 3 } else { 0 });
        Ok(Self {
            vocabulary: required("vocab_size", raw.vocab_size)?,
            hidden: required("hidden_size", raw.hidden_size)?,
            layers,
            first_dense: usize::try_from(first_dense).unwrap_or(layers).min(layers),
            mixture_every: positive("moe_layer_freq", raw.moe_layer_freq)?,
            dense_width: required("intermediate_size", raw.intermediate_size)?,
            expert_width: moe_width,
            shared_width: moe_width * shared,
            experts: u32::try_from(required("n_routed_experts", raw.n_routed_experts)?).expect("should fit: bounded"),
            attention: attention(raw)?,
            router: if third { router_v3(raw)? } else { router_v2(raw)? },
            router_bias: third,
            rope: RopeRule::check(raw)?,
            norm_eps: eps(raw.rms_norm_eps)?,
            max_context: u32::try_from(required("max_position_embeddings", raw.max_position_embeddings)?)
                .expect("should fit: bounded"),
            tied: raw.tie_word_embeddings.unwrap_or(false),
            architecture,
        })
    }

    /// Whether decoder layer `layer` has routed experts.
    #[must_use]
    pub fn is_mixture(&self, layer: usize) -> bool {
        layer >= self.first_dense && layer.is_multiple_of(self.mixture_every)
    }
}

fn refuse_unsupported(raw: &RawConfig) -> Result<(), String> {
    if let Some(quantization) = &raw.quantization_config {
        check_quantization(quantization)?;
    }
    if let Some(act) = raw.hidden_act.as_deref().filter(|act| *act != "silu") {
        return Err(format!("hidden_act {act:?} is not supported; supported: \"silu\""));
    }
    for (field, value) in [("attention_bias", raw.attention_bias), ("mlp_bias", raw.mlp_bias)] {
        if value == Some(true) {
            return Err(format!("{field} true is not supported; supported: false"));
        }
    }
    Ok(())
}

/// FP8 weights in tiles of 128 × 128, whose activations nobody has to round. Whatever is not stored so is found by its type.
fn check_quantization(quantization: &serde_json::Value) -> Result<(), String> {
    let text = |field: &str| quantization.get(field).and_then(|value| value.as_str());
    let method = text("quant_method").unwrap_or("unnamed");
    if method != "fp8" {
        return Err(format!("quantization {method:?} is not supported; supported: \"fp8\" in blocks of [128, 128]"));
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

fn required(field: &'static str, value: Option<u64>) -> Result<usize, String> {
    let value = value.ok_or_else(|| format!("{field} is missing"))?;
    let &(_, least, most) =
        BOUNDS.iter().find(|(name, ..)| *name == field).expect("should be in the table: fields are literals");
    if value < least || value > most {
        return Err(format!("{field} is {value}; {least} to {most} are allowed"));
    }
    Ok(usize::try_from(value).expect("should fit: bounded"))
}

fn positive(field: &str, value: Option<u64>) -> Result<usize, String> {
    match value.unwrap_or(1) {
        0 => Err(format!("{field} is 0; 1 or more is allowed")),
        value => usize::try_from(value).map_err(|_| format!("{field} is {value}, which is too large")),
    }
}

fn eps(value: Option<f64>) -> Result<f32, String> {
    let eps = value.unwrap_or(1e-6);
    if eps > 0.0 && eps < 1.0 {
        Ok(eps as f32)
    } else {
        Err(format!("rms_norm_eps is {eps}; above 0 and below 1 is allowed"))
    }
}

fn attention(raw: &RawConfig) -> Result<AttentionDims, String> {
    let rope = required("qk_rope_head_dim", raw.qk_rope_head_dim)?;
    if !rope.is_multiple_of(2) {
        return Err(format!("qk_rope_head_dim is {rope}; an even number is allowed"));
    }
    Ok(AttentionDims {
        heads: required("num_attention_heads", raw.num_attention_heads)?,
        q_lora: raw.q_lora_rank.map(|rank| required("q_lora_rank", Some(rank))).transpose()?,
        kv_lora: required("kv_lora_rank", raw.kv_lora_rank)?,
        nope: required("qk_nope_head_dim", raw.qk_nope_head_dim)?,
        rope,
        value: required("v_head_dim", raw.v_head_dim)?,
    })
}

/// V2: softmax, greedy or group-limited greedy by the best score, scaled and never normalised.
fn router_v2(raw: &RawConfig) -> Result<RouterRule, String> {
    spelled("scoring_func", raw.scoring_func.as_deref(), "softmax")?;
    if raw.norm_topk_prob == Some(true) {
        return Err("norm_topk_prob true is not supported for DeepseekV2ForCausalLM; supported: false".to_owned());
    }
    let grouped = match raw.topk_method.as_deref().unwrap_or("greedy") {
        "greedy" => false,
        "group_limited_greedy" => true,
        other => {
            return Err(format!("topk_method {other:?} is not supported; supported: greedy, group_limited_greedy"));
        }
    };
    let rule = RouterRule {
        scoring: Scoring::Softmax,
        top_k: required("num_experts_per_tok", raw.num_experts_per_tok)?,
        groups: if grouped { required("n_group", raw.n_group)? } else { 1 },
        top_groups: if grouped { required("topk_group", raw.topk_group)? } else { 1 },
        group_score: GroupScore::Max,
        normalise: false,
        scale: scale(raw)?,
    };
    check_groups(&rule, raw, 1)?;
    Ok(rule)
}

/// V3: sigmoid, groups by the sum of their two best biased scores, normalised if asked, then scaled.
fn router_v3(raw: &RawConfig) -> Result<RouterRule, String> {
    spelled("scoring_func", raw.scoring_func.as_deref(), "sigmoid")?;
    spelled("topk_method", raw.topk_method.as_deref(), "noaux_tc")?;
    let rule = RouterRule {
        scoring: Scoring::Sigmoid,
        top_k: required("num_experts_per_tok", raw.num_experts_per_tok)?,
        groups: required("n_group", Some(raw.n_group.unwrap_or(1)))?,
        top_groups: required("topk_group", Some(raw.topk_group.unwrap_or(1)))?,
        group_score: GroupScore::TopTwoSum,
        normalise: raw.norm_topk_prob.unwrap_or(true),
        scale: scale(raw)?,
    };
    check_groups(&rule, raw, 2)?;
    Ok(rule)
}

fn spelled(field: &str, value: Option<&str>, supported: &str) -> Result<(), String> {
    match value {
        Some(other) if other != supported => {
            Err(format!("{field} {other:?} is not supported for this architecture; supported: {supported}"))
        }
        _ => Ok(()),
    }
}

fn scale(raw: &RawConfig) -> Result<f32, String> {
    let scale = raw.routed_scaling_factor.unwrap_or(1.0);
    if scale.is_finite() && scale > 0.0 && scale < 1e6 {
        Ok(scale as f32)
    } else {
        Err(format!("routed_scaling_factor is {scale}; above 0 and below 1e6 is allowed"))
    }
}

fn check_groups(rule: &RouterRule, raw: &RawConfig, least: usize) -> Result<(), String> {
    let experts = required("n_routed_experts", raw.n_routed_experts)?;
    let (groups, kept, top_k) = (rule.groups, rule.top_groups, rule.top_k);
    if !experts.is_multiple_of(groups) || (groups > 1 && experts / groups < least) {
        return Err(format!("n_group {groups} does not divide {experts} experts into groups of at least {least}"));
    }
    if kept > groups {
        return Err(format!("topk_group is {kept}; at most n_group = {groups} is allowed"));
    }
    let choosable = experts / groups * kept;
    if top_k > choosable {
        return Err(format!("num_experts_per_tok is {top_k}; {choosable} experts can be chosen"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
