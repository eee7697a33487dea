//! `spec.model`: where the weights are, and the shape from which the planner counts bytes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to serve.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// `file:///dir` (in the worker's file system), `pvc://claim/path`, `oci://registry/repository:tag` (its root) or
    /// `hf://org/name@rev`.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("self.matches('^(file|pvc|hf|s3|oci)://.+')")
            .message("source must begin with file://, pvc://, hf://, s3:// or oci://"),
    )]
    pub source: String,
    /// Sizes of the model, written by `shoal plan --write`. Omitted: taken from the table of published models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<ModelShape>,
}

/// Sizes that decide how many bytes a shard needs. All bytes are those of the stored tensors.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.moeLayers <= self.layers").message("moeLayers must be at most layers"),
    validation = Rule::new("self.expertsPerToken <= self.experts").message("expertsPerToken must be at most experts"),
)]
pub struct ModelShape {
    /// As in `config.json`, e.g. DeepseekV3ForCausalLM.
    #[schemars(length(min = 1, max = 128))]
    pub architecture: String,
    /// Format of the routed experts.
    pub weights: WeightFormat,
    /// Layers in all.
    #[schemars(range(min = 1, max = 1024))]
    pub layers: i32,
    /// Layers with routed experts.
    #[schemars(range(min = 1, max = 1024))]
    pub moe_layers: i32,
    /// Width of the residual stream.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub hidden_size: i32,
    /// Rows of the embedding.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub vocab_size: i32,
    /// Routed experts of one layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub experts: i32,
    /// Experts that one token visits in one layer.
    #[schemars(range(min = 1, max = 65_536))]
    pub experts_per_token: i32,
    /// Longest context the model knows.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_context_tokens: i32,
    /// Numbers that one token leaves in the cache of one layer (DeepSeek: kv_lora_rank + rope dims).
    #[schemars(range(min = 1, max = 1_048_576))]
    pub kv_elements: i32,
    /// Numbers alive for one row of a step beside the residual (projections, heads, FFN).
    #[schemars(range(min = 1, max = 67_108_864))]
    pub activation_elements: i32,
    /// Bytes that every shard holds: all but the routed experts.
    #[schemars(range(min = 1, max = 4_503_599_627_370_496_i64))]
    pub dense_bytes: i64,
    /// Bytes of one routed expert in one layer.
    #[schemars(range(min = 1, max = 1_099_511_627_776_i64))]
    pub expert_bytes: i64,
}

/// How the routed experts are stored.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WeightFormat {
    F32,
    F16,
    BF16,
    FP8,
    MXFP4,
}
