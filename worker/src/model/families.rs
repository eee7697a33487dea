//! The families that are served: a recipe each, from a config to the parts of a decoder.
//!
//! A recipe states what its family's definition says (the class in transformers) and refuses what that does not have.

mod deepseek;
mod gpt_oss;
mod mixtral;
mod olmoe;
mod qwen3_moe;

use super::config::Decoder;
use super::raw::RawConfig;

/// Makes a decoder of a config, or says which field is wrong and what is allowed.
pub(super) type Recipe = fn(&RawConfig) -> Result<Decoder, String>;

/// By `architectures[0]`.
const FAMILIES: [(&str, Recipe); 6] = [
    ("DeepseekV2ForCausalLM", deepseek::second),
    ("DeepseekV3ForCausalLM", deepseek::third),
    ("Qwen3MoeForCausalLM", qwen3_moe::recipe),
    ("MixtralForCausalLM", mixtral::recipe),
    ("OlmoeForCausalLM", olmoe::recipe),
    ("GptOssForCausalLM", gpt_oss::recipe),
];

/// The recipe of an architecture.
pub(super) fn recipe(architecture: &str) -> Result<Recipe, String> {
    let found = FAMILIES.iter().find(|(name, _)| *name == architecture);
    found.map(|(_, recipe)| *recipe).ok_or_else(|| {
        let supported = FAMILIES.map(|(name, _)| name).join(", ");
        format!("architecture {architecture} is not supported; supported: {supported}")
    })
}
