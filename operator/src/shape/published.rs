//! The table of published models: the dimensions of their `config.json`.

use super::config::Dims;
use crate::controller::validate::ModelSource;
use crate::crd::{ModelShape, WeightFormat};

/// The sizes of a published model, whatever its revision; `None` if it is not in the table.
#[must_use]
pub fn published(source: &ModelSource) -> Option<ModelShape> {
    let ModelSource::Hub { repository, .. } = source else { return None };
    let (dims, format) = entry(repository)?;
    dims.shape(format).ok()
}

fn entry(repository: &str) -> Option<(Dims, WeightFormat)> {
    use WeightFormat::{BF16, FP8, MXFP4};
    let long = |dims: Dims, max_position_embeddings| Dims { max_position_embeddings, ..dims };
    Some(match repository {
        "deepseek-ai/DeepSeek-V2-Lite" | "deepseek-ai/DeepSeek-V2-Lite-Chat" => (v2_lite(), BF16),
        "deepseek-ai/DeepSeek-V2" | "deepseek-ai/DeepSeek-V2-Chat" | "deepseek-ai/DeepSeek-V2.5" => (v2(), BF16),
        "deepseek-ai/DeepSeek-V3"
        | "deepseek-ai/DeepSeek-V3-0324"
        | "deepseek-ai/DeepSeek-R1"
        | "deepseek-ai/DeepSeek-R1-0528" => (v3(), FP8),
        "Qwen/Qwen3-30B-A3B" => (qwen3_30b_a3b(), BF16),
        "Qwen/Qwen3-30B-A3B-Instruct-2507" | "Qwen/Qwen3-30B-A3B-Thinking-2507" => {
            (long(qwen3_30b_a3b(), 262_144), BF16)
        }
        "Qwen/Qwen3-235B-A22B" => (qwen3_235b_a22b(), BF16),
        "Qwen/Qwen3-235B-A22B-Instruct-2507" | "Qwen/Qwen3-235B-A22B-Thinking-2507" => {
            (long(qwen3_235b_a22b(), 262_144), BF16)
        }
        "mistralai/Mixtral-8x7B-v0.1" | "mistralai/Mixtral-8x7B-Instruct-v0.1" => (mixtral_8x7b(), BF16),
        "mistralai/Mixtral-8x22B-v0.1" | "mistralai/Mixtral-8x22B-Instruct-v0.1" => (mixtral_8x22b(), BF16),
        "allenai/OLMoE-1B-7B-0924" | "allenai/OLMoE-1B-7B-0924-Instruct" | "allenai/OLMoE-1B-7B-0125-Instruct" => {
            (olmoe_1b_7b(), BF16)
        }
        "openai/gpt-oss-20b" => (gpt_oss_20b(), MXFP4),
        "openai/gpt-oss-120b" => (gpt_oss_120b(), MXFP4),
        _ => return None,
    })
}

fn v3() -> Dims {
    Dims {
        architectures: vec!["DeepseekV3ForCausalLM".to_owned()],
        vocab_size: 129_280,
        hidden_size: 7168,
        num_hidden_layers: 61,
        num_attention_heads: 128,
        num_key_value_heads: Some(128),
        q_lora_rank: Some(1536),
        kv_lora_rank: 512,
        qk_nope_head_dim: 128,
        qk_rope_head_dim: 64,
        v_head_dim: 128,
        intermediate_size: 18_432,
        first_k_dense_replace: 3,
        n_routed_experts: 256,
        n_shared_experts: Some(1),
        num_experts_per_tok: 8,
        moe_intermediate_size: 2048,
        max_position_embeddings: 163_840,
        ..Dims::default()
    }
}

fn v2() -> Dims {
    Dims {
        architectures: vec!["DeepseekV2ForCausalLM".to_owned()],
        vocab_size: 102_400,
        hidden_size: 5120,
        num_hidden_layers: 60,
        intermediate_size: 12_288,
        first_k_dense_replace: 1,
        n_routed_experts: 160,
        n_shared_experts: Some(2),
        num_experts_per_tok: 6,
        moe_intermediate_size: 1536,
        ..v3()
    }
}

fn v2_lite() -> Dims {
    Dims {
        hidden_size: 2048,
        num_hidden_layers: 27,
        num_attention_heads: 16,
        num_key_value_heads: Some(16),
        q_lora_rank: None,
        intermediate_size: 10_944,
        n_routed_experts: 64,
        moe_intermediate_size: 1408,
        ..v2()
    }
}

fn qwen3_30b_a3b() -> Dims {
    Dims {
        architectures: vec!["Qwen3MoeForCausalLM".to_owned()],
        vocab_size: 151_936,
        hidden_size: 2048,
        num_hidden_layers: 48,
        num_attention_heads: 32,
        num_key_value_heads: Some(4),
        head_dim: Some(128),
        intermediate_size: 6144,
        n_routed_experts: 128,
        num_experts_per_tok: 8,
        moe_intermediate_size: 768,
        max_position_embeddings: 40_960,
        ..Dims::default()
    }
}

fn qwen3_235b_a22b() -> Dims {
    Dims {
        hidden_size: 4096,
        num_hidden_layers: 94,
        num_attention_heads: 64,
        intermediate_size: 12_288,
        moe_intermediate_size: 1536,
        ..qwen3_30b_a3b()
    }
}

fn mixtral_8x7b() -> Dims {
    Dims {
        architectures: vec!["MixtralForCausalLM".to_owned()],
        vocab_size: 32_000,
        hidden_size: 4096,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: Some(8),
        intermediate_size: 14_336,
        n_routed_experts: 8,
        num_experts_per_tok: 2,
        max_position_embeddings: 32_768,
        ..Dims::default()
    }
}

fn mixtral_8x22b() -> Dims {
    Dims {
        vocab_size: 32_768,
        hidden_size: 6144,
        num_hidden_layers: 56,
        num_attention_heads: 48,
        intermediate_size: 16_384,
        max_position_embeddings: 65_536,
        ..mixtral_8x7b()
    }
}

fn olmoe_1b_7b() -> Dims {
    Dims {
        architectures: vec!["OlmoeForCausalLM".to_owned()],
        vocab_size: 50_304,
        hidden_size: 2048,
        num_hidden_layers: 16,
        num_attention_heads: 16,
        num_key_value_heads: Some(16),
        intermediate_size: 1024,
        n_routed_experts: 64,
        num_experts_per_tok: 8,
        max_position_embeddings: 4096,
        ..Dims::default()
    }
}

fn gpt_oss_120b() -> Dims {
    Dims {
        architectures: vec!["GptOssForCausalLM".to_owned()],
        vocab_size: 201_088,
        hidden_size: 2880,
        num_hidden_layers: 36,
        num_attention_heads: 64,
        num_key_value_heads: Some(8),
        head_dim: Some(64),
        intermediate_size: 2880,
        n_routed_experts: 128,
        num_experts_per_tok: 4,
        max_position_embeddings: 131_072,
        ..Dims::default()
    }
}

fn gpt_oss_20b() -> Dims {
    Dims { num_hidden_layers: 24, n_routed_experts: 32, ..gpt_oss_120b() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(repository: &str) -> i64 {
        let source = ModelSource::parse(&format!("hf://{repository}")).unwrap();
        let shape = published(&source).unwrap();
        shape.dense_bytes + shape.expert_bytes * i64::from(shape.experts) * i64::from(shape.moe_layers)
    }

    /// The parameter counts that the publishers state, at two bytes each.
    #[test]
    fn the_table_counts_every_published_parameter() {
        assert_eq!(total("deepseek-ai/DeepSeek-V2-Lite"), 2 * 15_706_484_224);
        assert_eq!(total("deepseek-ai/DeepSeek-V2"), 2 * 235_741_434_880);
        assert_eq!(total("Qwen/Qwen3-30B-A3B"), 2 * 30_532_122_624);
        assert_eq!(total("Qwen/Qwen3-235B-A22B"), 2 * 235_093_634_560);
        assert_eq!(total("mistralai/Mixtral-8x7B-v0.1"), 2 * 46_702_792_704);
        assert_eq!(total("mistralai/Mixtral-8x22B-Instruct-v0.1"), 2 * 140_630_071_296);
        assert_eq!(total("allenai/OLMoE-1B-7B-0924"), 2 * 6_919_161_856);
    }

    /// Of 116,829,156,672 and 20,914,757,184 parameters the matrices of the experts take 17 bytes for 32 numbers.
    #[test]
    fn an_mxfp4_model_keeps_everything_but_the_matrices_of_its_experts_in_bf16() {
        let packed = |layers: i64, experts: i64| layers * experts * 3 * 2880 * 2880;
        let expected = |all: i64, packed: i64| 2 * (all - packed) + packed / 32 * 17;
        assert_eq!(total("openai/gpt-oss-120b"), expected(116_829_156_672, packed(36, 128)));
        assert_eq!(total("openai/gpt-oss-20b"), expected(20_914_757_184, packed(24, 32)));
    }

    #[test]
    fn an_fp8_model_keeps_embedding_head_norms_and_router_in_bf16() {
        // 671,026,419,200 parameters and 256 biases in each of 58 layers, of which the publisher counts both.
        let wide = 2 * (2 * 129_280 * 7168 + 7168 + 61 * (2 * 7168 + 1536 + 512) + 58 * 256 * 7168) + 58 * 256 * 4;
        let mlp = |width: i64| 3 * (width * 7168 + width.div_euclid(128) * 56 * 4);
        let attention = [(1536, 7168), (24_576, 1536), (576, 7168), (32_768, 512), (7168, 16_384)];
        let fp8 = |(out, inner): (i64, i64)| out * inner + (out + 127) / 128 * (inner / 128) * 4;
        let dense = wide + 61 * attention.into_iter().map(fp8).sum::<i64>() + 3 * mlp(18_432) + 58 * mlp(2048);
        assert_eq!(total("deepseek-ai/DeepSeek-R1"), dense + 58 * 256 * mlp(2048));
    }

    #[test]
    fn an_unknown_model_has_no_shape() {
        assert_eq!(published(&ModelSource::parse("hf://someone/else").unwrap()), None);
        assert_eq!(published(&ModelSource::parse("file:///deepseek-ai/DeepSeek-V3").unwrap()), None);
    }
}
