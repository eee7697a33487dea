//! OLMoE: attention whose q and k are normed over all heads, then clipped if the config says so; experts in every layer.
//! Muennighoff et al. 2024, "OLMoE".

use crate::model::config::{Attention, Decoder, ExpertTensors, GqaDims, LayerRule, MixtureRule, QkNorm, RouterBias};
use crate::model::fields::{eps, experts, gqa, plain_router, positive, required};
use crate::model::raw::RawConfig;
use crate::model::rope::RopeRule;
use crate::ops::{Activation, Pairing, Scoring};

pub(super) fn recipe(raw: &RawConfig) -> Result<Decoder, String> {
    let experts = experts(raw)?;
    let hidden = required("hidden_size", raw.hidden_size)?;
    let heads = gqa(raw)?;
    // Its norms are as wide as the residual, whatever head_dim says.
    if heads.heads * heads.head_dim != hidden {
        let GqaDims { heads, head_dim, .. } = heads;
        return Err(format!(
            "head_dim is {head_dim}; hidden_size / num_attention_heads = {hidden} / {heads} is allowed"
        ));
    }
    if let Some(window) = raw.sliding_window {
        return Err(format!("sliding_window {window} is not supported for this architecture; supported: null"));
    }
    let bias = raw.attention_bias.unwrap_or(false);
    let clip = raw.clip_qkv.map(|clip| positive("clip_qkv", clip)).transpose()?;
    let layer = LayerRule { mixture: true, window: None };
    Ok(Decoder {
        layers: vec![layer; required("num_hidden_layers", raw.num_hidden_layers)?],
        dense_width: 0,
        attention: Attention::Gqa(GqaDims { bias, clip, qk_norm: QkNorm::Whole, ..heads }),
        rope: RopeRule::check(raw, 10_000.0, Pairing::HalfSplit)?,
        norm_eps: eps(raw, 1e-5)?,
        mixture: MixtureRule {
            experts,
            width: required("intermediate_size", raw.intermediate_size)?,
            shared_width: 0,
            activation: Activation::SwiGlu,
            router: plain_router(raw, experts, Scoring::Softmax, raw.norm_topk_prob.unwrap_or(false))?,
            router_bias: RouterBias::None,
            prefix: "mlp",
            router_name: "gate",
            tensors: ExpertTensors::Apart { gate: "gate_proj", up: "up_proj", down: "down_proj" },
        },
    })
}
