//! DeepSeek V2, V2-Lite, V3 and R1: latent attention; dense layers first, then experts beside shared ones.
//! Their router may judge experts in groups. DeepSeek-V2, section 2; DeepSeek-V3, section 2.1.

use crate::model::config::{Attention, Decoder, ExpertTensors, LayerRule, MixtureRule, MlaDims, RouterBias};
use crate::model::fields::{eps, never, positive, required};
use crate::model::raw::RawConfig;
use crate::model::rope::RopeRule;
use crate::ops::{Activation, GroupScore, Pairing, RouterRule, Scoring};

/// V2 and V2-Lite.
pub(super) fn second(raw: &RawConfig) -> Result<Decoder, String> {
    decoder(raw, router_v2(raw)?, RouterBias::None, 0)
}

/// V3 and R1.
pub(super) fn third(raw: &RawConfig) -> Result<Decoder, String> {
    decoder(raw, router_v3(raw)?, RouterBias::Correction, 3)
}

/// `dense` is how many dense layers come first where the config does not say.
fn decoder(raw: &RawConfig, router: RouterRule, router_bias: RouterBias, dense: u64) -> Result<Decoder, String> {
    never("attention_bias", raw.attention_bias)?;
    let layers = required("num_hidden_layers", raw.num_hidden_layers)?;
    let first = usize::try_from(raw.first_k_dense_replace.unwrap_or(dense)).unwrap_or(layers);
    let every = match raw.moe_layer_freq.unwrap_or(1) {
        0 => return Err("moe_layer_freq is 0; 1 or more is allowed".to_owned()),
        every => usize::try_from(every).unwrap_or(usize::MAX),
    };
    let width = required("moe_intermediate_size", raw.moe_intermediate_size)?;
    let layer = |layer: usize| LayerRule { mixture: layer >= first && layer.is_multiple_of(every), window: None };
    let interleaved = raw.rope_interleave.unwrap_or(true);
    let pairing = if interleaved { Pairing::Interleaved } else { Pairing::HalfSplit };
    Ok(Decoder {
        layers: (0..layers).map(layer).collect(),
        dense_width: required("intermediate_size", raw.intermediate_size)?,
        attention: Attention::Mla(attention(raw)?),
        rope: RopeRule::check(raw, 10_000.0, pairing)?,
        norm_eps: eps(raw, 1e-6)?,
        mixture: MixtureRule {
            experts: u32::try_from(required("n_routed_experts", raw.n_routed_experts)?).expect("should fit: bounded"),
            width,
            shared_width: width * required("n_shared_experts", raw.n_shared_experts)?,
            activation: Activation::SwiGlu,
            router,
            router_bias,
            prefix: "mlp",
            router_name: "gate",
            tensors: ExpertTensors::Apart { gate: "gate_proj", up: "up_proj", down: "down_proj" },
        },
    })
}

fn attention(raw: &RawConfig) -> Result<MlaDims, String> {
    let rope = required("qk_rope_head_dim", raw.qk_rope_head_dim)?;
    if !rope.is_multiple_of(2) {
        return Err(format!("qk_rope_head_dim is {rope}; an even number is allowed"));
    }
    Ok(MlaDims {
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
    positive("routed_scaling_factor", raw.routed_scaling_factor.unwrap_or(1.0))
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
