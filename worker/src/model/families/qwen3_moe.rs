//! Qwen3-MoE: grouped-query attention with norms per head; experts in every layer that nothing makes dense.

use crate::model::config::{Attention, Decoder, ExpertTensors, GqaDims, LayerRule, MixtureRule, QkNorm, RouterBias};
use crate::model::fields::{eps, experts, gqa, plain_router, required};
use crate::model::raw::RawConfig;
use crate::model::rope::RopeRule;
use crate::ops::{Activation, Pairing, Scoring};

pub(super) fn recipe(raw: &RawConfig) -> Result<Decoder, String> {
    let layers = layers(raw)?;
    let dense = layers.iter().any(|layer| !layer.mixture);
    let experts = experts(raw)?;
    Ok(Decoder {
        layers,
        dense_width: if dense { required("intermediate_size", raw.intermediate_size)? } else { 0 },
        attention: Attention::Gqa(GqaDims {
            bias: raw.attention_bias.unwrap_or(false),
            qk_norm: QkNorm::PerHead,
            ..gqa(raw)?
        }),
        rope: RopeRule::check(raw, 10_000.0, Pairing::HalfSplit)?,
        norm_eps: eps(raw, 1e-6)?,
        mixture: MixtureRule {
            experts,
            width: required("moe_intermediate_size", raw.moe_intermediate_size)?,
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

/// A layer has experts iff it is not in `mlp_only_layers` and (i + 1) % `decoder_sparse_step` = 0.
fn layers(raw: &RawConfig) -> Result<Vec<LayerRule>, String> {
    let count = required("num_hidden_layers", raw.num_hidden_layers)?;
    let step = required("decoder_sparse_step", Some(raw.decoder_sparse_step.unwrap_or(1)))?;
    let dense = raw.mlp_only_layers.clone().unwrap_or_default();
    if let Some(layer) = dense.iter().find(|&&layer| layer >= count as u64) {
        return Err(format!("mlp_only_layers holds {layer}; 0 to {} are allowed", count - 1));
    }
    let windowed = raw.use_sliding_window.unwrap_or(false);
    let window = windowed.then(|| required("sliding_window", raw.sliding_window)).transpose()?;
    let mixture = |layer: usize| !dense.contains(&(layer as u64)) && (layer + 1).is_multiple_of(step);
    let layers: Vec<_> = (0..count).map(|layer| LayerRule { mixture: mixture(layer), window }).collect();
    if layers.iter().any(|layer| layer.mixture) {
        Ok(layers)
    } else {
        Err(format!(
            "mlp_only_layers and decoder_sparse_step {step} leave no layer with experts; at least one is needed"
        ))
    }
}
