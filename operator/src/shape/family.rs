//! What differs between the definitions of architectures: attention, router, expert.
//!
//! Counts what transformers' class of each architecture declares; knows no file.

use super::config::{Dims, Stored};

/// The definition that a model's sizes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    DeepseekV2,
    DeepseekV3,
    Qwen3Moe,
    Mixtral,
    Olmoe,
    GptOss,
}

impl Family {
    /// By `architectures[0]`; knows exactly [`super::ARCHITECTURES`].
    pub(super) fn of(architecture: &str) -> Option<Self> {
        match architecture {
            "DeepseekV2ForCausalLM" => Some(Self::DeepseekV2),
            "DeepseekV3ForCausalLM" => Some(Self::DeepseekV3),
            "Qwen3MoeForCausalLM" => Some(Self::Qwen3Moe),
            "MixtralForCausalLM" => Some(Self::Mixtral),
            "OlmoeForCausalLM" => Some(Self::Olmoe),
            "GptOssForCausalLM" => Some(Self::GptOss),
            _ => None,
        }
    }

    /// Bytes of one layer's attention.
    pub(super) fn attention(self, dims: &Dims, stored: Stored) -> u64 {
        let (query, key) = (dims.num_attention_heads * dims.head_size(), dims.key_heads() * dims.head_size());
        let beside = match self {
            Self::DeepseekV2 | Self::DeepseekV3 => return latent(dims, stored),
            Self::Mixtral => 0,
            // A norm over one head of q, and one of k.
            Self::Qwen3Moe => 2 * dims.head_size(),
            // A norm over all heads of q, and one of k.
            Self::Olmoe => query + key,
            // Biases of q, k, v and o, and a sink a head.
            Self::GptOss => query + 2 * key + dims.hidden_size + dims.num_attention_heads,
        };
        let matrix = stored.dense;
        let projections = matrix(query, dims.hidden_size) + 2 * matrix(key, dims.hidden_size);
        projections + matrix(dims.hidden_size, query) + beside * stored.wide
    }

    /// Bytes of one layer's router.
    pub(super) fn router(self, dims: &Dims, stored: Stored) -> u64 {
        let bias = match self {
            // The correction bias is F32 in every published file.
            Self::DeepseekV3 => dims.n_routed_experts * 4,
            Self::GptOss => dims.n_routed_experts * stored.wide,
            _ => 0,
        };
        dims.n_routed_experts * dims.hidden_size * stored.wide + bias
    }

    /// Bytes of one routed expert.
    pub(super) fn expert(self, dims: &Dims, stored: Stored) -> u64 {
        let width = dims.expert_width();
        let biases = if self == Self::GptOss { (2 * width + dims.hidden_size) * stored.wide } else { 0 };
        dims.mlp(width, stored.expert) + biases
    }
}

/// Multi-head latent attention with its inner norms.
fn latent(dims: &Dims, Stored { dense: matrix, wide, .. }: Stored) -> u64 {
    let heads = dims.num_attention_heads;
    let q_out = heads * (dims.qk_nope_head_dim + dims.qk_rope_head_dim);
    let query = match dims.q_lora_rank {
        Some(rank) => matrix(rank, dims.hidden_size) + rank * wide + matrix(q_out, rank),
        None => matrix(q_out, dims.hidden_size),
    };
    let down = matrix(dims.kv_lora_rank + dims.qk_rope_head_dim, dims.hidden_size) + dims.kv_lora_rank * wide;
    let up = matrix(heads * (dims.qk_nope_head_dim + dims.v_head_dim), dims.kv_lora_rank);
    query + down + up + matrix(dims.hidden_size, heads * dims.v_head_dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_that_is_accepted_has_a_family() {
        for name in crate::shape::ARCHITECTURES {
            assert!(Family::of(name).is_some(), "{name}");
        }
        assert_eq!(Family::of("LlamaForCausalLM"), None);
    }
}
