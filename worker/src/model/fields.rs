//! Fields that families share, checked: whole numbers within bounds, eps, layers, plain routers, grouped-query dims.

use super::config::{GqaDims, QkNorm};
use super::raw::RawConfig;
use crate::ops::{GroupScore, RouterRule, Scoring};

/// Bounds of every whole number in a config: field, smallest, largest.
const BOUNDS: [(&str, u64, u64); 22] = [
    ("vocab_size", 1, 1 << 20),
    ("hidden_size", 1, 1 << 16),
    ("intermediate_size", 1, 1 << 18),
    ("moe_intermediate_size", 1, 1 << 16),
    ("num_hidden_layers", 1, 1024),
    ("num_attention_heads", 1, 1024),
    ("num_key_value_heads", 1, 1024),
    ("head_dim", 2, 1024),
    ("n_shared_experts", 1, 64),
    ("n_routed_experts", 1, 4096),
    ("num_experts", 1, 4096),
    ("num_experts_per_tok", 1, 64),
    ("decoder_sparse_step", 1, 1024),
    ("sliding_window", 1, 1 << 24),
    ("kv_lora_rank", 1, 1 << 14),
    ("q_lora_rank", 1, 1 << 15),
    ("qk_rope_head_dim", 2, 1024),
    ("qk_nope_head_dim", 1, 1024),
    ("v_head_dim", 1, 1024),
    ("n_group", 1, 256),
    ("topk_group", 1, 256),
    ("max_position_embeddings", 1, 1 << 24),
];

/// A field that must be there.
pub(super) fn required(field: &'static str, value: Option<u64>) -> Result<usize, String> {
    let value = value.ok_or_else(|| format!("{field} is missing"))?;
    let &(_, least, most) =
        BOUNDS.iter().find(|(name, ..)| *name == field).expect("should be in the table: fields are literals");
    if value < least || value > most {
        return Err(format!("{field} is {value}; {least} to {most} are allowed"));
    }
    Ok(usize::try_from(value).expect("should fit: bounded"))
}

/// `rms_norm_eps`; `default` is the family's.
pub(super) fn eps(raw: &RawConfig, default: f64) -> Result<f32, String> {
    let eps = raw.rms_norm_eps.unwrap_or(default);
    if eps > 0.0 && eps < 1.0 {
        Ok(eps as f32)
    } else {
        Err(format!("rms_norm_eps is {eps}; above 0 and below 1 is allowed"))
    }
}

/// A number above 0 that F32 holds.
pub(super) fn positive(field: &str, value: f64) -> Result<f32, String> {
    if value > 0.0 && value < 1e6 {
        Ok(value as f32)
    } else {
        Err(format!("{field} is {value}; above 0 and below 1e6 is allowed"))
    }
}

/// Refuses a flag that the family's definition does not have.
pub(super) fn never(field: &str, value: Option<bool>) -> Result<(), String> {
    if value == Some(true) {
        return Err(format!("{field} true is not supported for this architecture; supported: false"));
    }
    Ok(())
}

/// `num_experts`, which some files call `num_local_experts`.
pub(super) fn experts(raw: &RawConfig) -> Result<u32, String> {
    if let (Some(one), Some(other)) = (raw.num_experts, raw.num_local_experts)
        && one != other
    {
        return Err(format!("num_experts is {one}, num_local_experts is {other}; equal values are allowed"));
    }
    let experts = required("num_experts", raw.num_experts.or(raw.num_local_experts))?;
    Ok(u32::try_from(experts).expect("should fit: bounded"))
}

/// A router without groups and scale.
pub(super) fn plain_router(
    raw: &RawConfig,
    experts: u32,
    scoring: Scoring,
    normalise: bool,
) -> Result<RouterRule, String> {
    let top_k = required("num_experts_per_tok", raw.num_experts_per_tok)?;
    if top_k > experts as usize {
        return Err(format!("num_experts_per_tok is {top_k}; {experts} experts can be chosen"));
    }
    let group_score = GroupScore::Max;
    Ok(RouterRule { scoring, top_k, groups: 1, top_groups: 1, group_score, normalise, scale: 1.0 })
}

/// Heads and their width; no norms, clip, sinks or biases.
pub(super) fn gqa(raw: &RawConfig) -> Result<GqaDims, String> {
    let hidden = required("hidden_size", raw.hidden_size)?;
    let heads = required("num_attention_heads", raw.num_attention_heads)?;
    let kv_heads = raw.num_key_value_heads.map_or(Ok(heads), |heads| required("num_key_value_heads", Some(heads)))?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(format!("num_key_value_heads is {kv_heads}; a divisor of the {heads} heads is allowed"));
    }
    let head_dim = match raw.head_dim {
        Some(columns) => required("head_dim", Some(columns))?,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(format!("head_dim is missing, and {heads} heads do not divide hidden_size {hidden}")),
    };
    if !head_dim.is_multiple_of(2) {
        return Err(format!("head_dim is {head_dim}; an even number is allowed"));
    }
    let (bias, qk_norm, clip, sinks) = (false, QkNorm::None, None, false);
    Ok(GqaDims { heads, kv_heads, head_dim, bias, qk_norm, clip, sinks })
}
