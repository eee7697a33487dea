//! Where the sizes of a model come from when a spec does not carry them: the table of published models, or a folder
//! with weights (`shoal plan --write`).
//!
//! The operator itself never opens a model source.

pub mod config;
mod family;
pub mod folder;
mod published;

pub use self::published::published;

/// Architectures whose sizes mean what the planner takes them for.
pub const ARCHITECTURES: [&str; 6] = [
    "DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "MixtralForCausalLM",
    "OlmoeForCausalLM",
    "GptOssForCausalLM",
];
