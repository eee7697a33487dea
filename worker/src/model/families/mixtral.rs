//! Mixtral: grouped-query attention, through a window if the config has one; experts in every layer.
//! Jiang et al. 2024, "Mixtral of Experts".

use crate::model::config::{Attention, Decoder, ExpertTensors, LayerRule, MixtureRule, RouterBias};
use crate::model::fields::{eps, experts, gqa, never, plain_router, required};
use crate::model::raw::RawConfig;
use crate::model::rope::RopeRule;
use crate::ops::{Activation, Pairing, Scoring};

pub(super) fn recipe(raw: &RawConfig) -> Result<Decoder, String> {
    never("attention_bias", raw.attention_bias)?;
    let experts = experts(raw)?;
    // Its own files never say so; the rows of q and k in a GGUF file are permuted until pairs are neighbours.
    let interleaved = raw.rope_interleave.unwrap_or(false);
    let pairing = if interleaved { Pairing::Interleaved } else { Pairing::HalfSplit };
    let window = raw.sliding_window.map(|window| required("sliding_window", Some(window))).transpose()?;
    Ok(Decoder {
        layers: vec![LayerRule { mixture: true, window }; required("num_hidden_layers", raw.num_hidden_layers)?],
        dense_width: 0,
        attention: Attention::Gqa(gqa(raw)?),
        rope: RopeRule::check(raw, 1e6, pairing)?,
        norm_eps: eps(raw, 1e-5)?,
        mixture: MixtureRule {
            experts,
            width: required("intermediate_size", raw.intermediate_size)?,
            shared_width: 0,
            activation: Activation::SwiGlu,
            router: plain_router(raw, experts, Scoring::Softmax, true)?,
            router_bias: RouterBias::None,
            prefix: "block_sparse_moe",
            router_name: "gate",
            tensors: ExpertTensors::Apart { gate: "w1", up: "w3", down: "w2" },
        },
    })
}
