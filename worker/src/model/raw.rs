//! `config.json` as it is spelled; every field optional, nothing checked.

use serde::Deserialize;

/// The fields that the supported families use, in both spellings of rope.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RawConfig {
    pub(super) architectures: Option<Vec<String>>,
    pub(super) vocab_size: Option<u64>,
    pub(super) hidden_size: Option<u64>,
    pub(super) intermediate_size: Option<u64>,
    pub(super) moe_intermediate_size: Option<u64>,
    pub(super) num_hidden_layers: Option<u64>,
    pub(super) num_attention_heads: Option<u64>,
    pub(super) num_key_value_heads: Option<u64>,
    pub(super) head_dim: Option<u64>,
    pub(super) num_experts: Option<u64>,
    pub(super) num_local_experts: Option<u64>,
    pub(super) mlp_only_layers: Option<Vec<u64>>,
    pub(super) decoder_sparse_step: Option<u64>,
    pub(super) use_sliding_window: Option<bool>,
    pub(super) sliding_window: Option<u64>,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) clip_qkv: Option<f64>,
    pub(super) swiglu_alpha: Option<f64>,
    pub(super) swiglu_limit: Option<f64>,
    pub(super) partial_rotary_factor: Option<f64>,
    pub(super) n_shared_experts: Option<u64>,
    pub(super) n_routed_experts: Option<u64>,
    pub(super) num_experts_per_tok: Option<u64>,
    pub(super) routed_scaling_factor: Option<f64>,
    pub(super) kv_lora_rank: Option<u64>,
    pub(super) q_lora_rank: Option<u64>,
    pub(super) qk_rope_head_dim: Option<u64>,
    pub(super) qk_nope_head_dim: Option<u64>,
    pub(super) v_head_dim: Option<u64>,
    pub(super) n_group: Option<u64>,
    pub(super) topk_group: Option<u64>,
    pub(super) topk_method: Option<String>,
    pub(super) scoring_func: Option<String>,
    pub(super) norm_topk_prob: Option<bool>,
    pub(super) first_k_dense_replace: Option<u64>,
    pub(super) moe_layer_freq: Option<u64>,
    pub(super) max_position_embeddings: Option<u64>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) hidden_act: Option<String>,
    pub(super) tie_word_embeddings: Option<bool>,
    pub(super) attention_bias: Option<bool>,
    pub(super) mlp_bias: Option<bool>,
    pub(super) rope_interleave: Option<bool>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_scaling: Option<RawRope>,
    pub(super) rope_parameters: Option<RawRope>,
    pub(super) quantization_config: Option<serde_json::Value>,
}

/// `rope_scaling` of older files, `rope_parameters` of transformers 5.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RawRope {
    #[serde(rename = "type")]
    pub(super) older_type: Option<String>,
    pub(super) rope_type: Option<String>,
    pub(super) rope_theta: Option<f64>,
    pub(super) factor: Option<f64>,
    pub(super) original_max_position_embeddings: Option<u64>,
    pub(super) attention_factor: Option<f64>,
    pub(super) beta_fast: Option<f64>,
    pub(super) beta_slow: Option<f64>,
    pub(super) mscale: Option<f64>,
    pub(super) mscale_all_dim: Option<f64>,
    pub(super) truncate: Option<bool>,
    pub(super) partial_rotary_factor: Option<f64>,
}
