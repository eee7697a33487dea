//! gpt-oss: grouped-query attention with biases and sinks, every other layer through a window; clamped experts with biases.
//! OpenAI 2025, "gpt-oss-120b & gpt-oss-20b Model Card", section 2.

use crate::model::config::{Attention, Decoder, ExpertTensors, GqaDims, LayerRule, MixtureRule, RouterBias};
use crate::model::fields::{eps, experts, gqa, plain_router, positive, required};
use crate::model::raw::RawConfig;
use crate::model::rope::RopeRule;
use crate::ops::{Activation, Pairing, Scoring};

pub(super) fn recipe(raw: &RawConfig) -> Result<Decoder, String> {
    let experts = experts(raw)?;
    Ok(Decoder {
        layers: layers(raw)?,
        dense_width: 0,
        attention: Attention::Gqa(GqaDims { bias: raw.attention_bias.unwrap_or(true), sinks: true, ..gqa(raw)? }),
        rope: RopeRule::check(raw, 150_000.0, Pairing::HalfSplit)?,
        norm_eps: eps(raw, 1e-5)?,
        mixture: MixtureRule {
            experts,
            width: required("intermediate_size", raw.intermediate_size)?,
            shared_width: 0,
            activation: Activation::Clamped {
                alpha: positive("swiglu_alpha", raw.swiglu_alpha.unwrap_or(1.702))?,
                limit: positive("swiglu_limit", raw.swiglu_limit.unwrap_or(7.0))?,
            },
            router: plain_router(raw, experts, Scoring::SoftmaxOfChosen, false)?,
            router_bias: RouterBias::Linear,
            prefix: "mlp",
            router_name: "router",
            tensors: ExpertTensors::Stacked,
        },
    })
}

/// By `layer_types`; without it a window in every even layer.
fn layers(raw: &RawConfig) -> Result<Vec<LayerRule>, String> {
    let count = required("num_hidden_layers", raw.num_hidden_layers)?;
    let alternating = || ["sliding_attention", "full_attention"].into_iter().cycle().take(count).map(str::to_owned);
    let types = raw.layer_types.clone().unwrap_or_else(|| alternating().collect());
    if types.len() != count {
        return Err(format!("layer_types has {} entries; num_hidden_layers = {count} are allowed", types.len()));
    }
    let layer = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(LayerRule { mixture: true, window: None }),
        "sliding_attention" => {
            let window = required("sliding_window", Some(raw.sliding_window.unwrap_or(128)))?;
            Ok(LayerRule { mixture: true, window: Some(window) })
        }
        other => {
            Err(format!("layer type {other:?} is not supported; supported: \"full_attention\", \"sliding_attention\""))
        }
    };
    types.iter().map(layer).collect()
}
