"""The fixtures: what each model is like, and which trap it is there for. A table, no behaviour.

`config` is written as `config.json` unchanged, in the spelling under which such checkpoints are published
(`rope_theta` + `rope_scaling`) or in that of transformers 5 (`rope_parameters`).
"""

from typing import NamedTuple


class Shape(NamedTuple):
    why: str
    dtype: str
    config: dict
    weight_seed: int = 1
    # RMS of an embedding row, and what the usual size of o_proj is multiplied by.
    embedding: float = 1.0
    o_proj: float = 1.0
    # The correction biases are uniform in this range; None where the family has none.
    bias: tuple[float, float] | None = None


COMMON = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "moe_layer_freq": 1,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 512,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

V2 = COMMON | {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "n_shared_experts": 2,
    "scoring_func": "softmax",
    "norm_topk_prob": False,
}

V3 = COMMON | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "n_shared_experts": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "num_nextn_predict_layers": 0,
}


# Families without latent attention; each spells its experts itself.
PLAIN = {
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}

QWEN3 = PLAIN | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}

MIXTRAL = PLAIN | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "tie_word_embeddings": False,
}

OLMOE = PLAIN | {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": False,
}

GPT_OSS = PLAIN | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "num_experts_per_tok": 4,
    "tie_word_embeddings": False,
}


def yarn(**more) -> dict:
    return {"factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1} | more


SHAPES = {
    "v2-lite": Shape(
        why="V2-Lite: one q_proj, greedy softmax, weights not normalised, yarn with mscale = mscale_all_dim",
        dtype="F32",
        config=V2
        | {
            "q_lora_rank": None,
            "topk_method": "greedy",
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.0,
            "rope_theta": 10000,
            "rope_scaling": yarn(type="yarn", mscale=0.707, mscale_all_dim=0.707),
        },
    ),
    "v2-group": Shape(
        why="V2: q_lora, groups by their best expert, scale 16, mscale ≠ mscale_all_dim",
        dtype="F16",
        config=V2
        | {
            "q_lora_rank": 48,
            "topk_method": "group_limited_greedy",
            "n_group": 8,
            "topk_group": 3,
            "routed_scaling_factor": 16.0,
            "rope_theta": 10000,
            "rope_scaling": yarn(type="yarn", mscale=1.0, mscale_all_dim=0.707),
        },
    ),
    "v3-yarn": Shape(
        why="V3: every feature; biases so negative that a losing group masked with 0 would win; two dense layers",
        dtype="BF16",
        bias=(-1.2, -0.6),
        config=V3
        | {
            "num_hidden_layers": 4,
            "first_k_dense_replace": 2,
            "q_lora_rank": 48,
            "n_group": 4,
            "topk_group": 2,
            "rope_theta": 10000,
            "rope_scaling": yarn(type="yarn", mscale=1.0, mscale_all_dim=1.0),
        },
    ),
    "v3-plain": Shape(
        why="V3 without q_lora and without rope scaling",
        dtype="F32",
        bias=(-0.5, 0.5),
        config=V3
        | {
            "q_lora_rank": None,
            "n_group": 4,
            "topk_group": 2,
            "rope_theta": 50000,
            "rope_scaling": None,
        },
    ),
    "small-embed": Shape(
        why="embeddings of RMS 0.003, so that eps is seen; one group",
        dtype="F32",
        embedding=0.003,
        o_proj=0.003,
        bias=(-0.3, 0.3),
        config=V3
        | {
            "q_lora_rank": None,
            "n_group": 1,
            "topk_group": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "uneven": Shape(
        why="nothing is a power of two; yarn without mscale",
        dtype="BF16",
        bias=(-0.5, 0.1),
        config=V3
        | {
            "vocab_size": 301,
            "hidden_size": 192,
            "intermediate_size": 100,
            "moe_intermediate_size": 20,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "q_lora_rank": 28,
            "kv_lora_rank": 44,
            "qk_nope_head_dim": 24,
            "qk_rope_head_dim": 12,
            "v_head_dim": 20,
            "n_routed_experts": 24,
            "num_experts_per_tok": 5,
            "n_group": 4,
            "topk_group": 2,
            "rope_parameters": yarn(rope_type="yarn", rope_theta=10000.0),
        },
    ),
    "half-split": Shape(
        why="V3 with rope_interleave false, no dense layer, three shared experts, an attention_factor of its own",
        dtype="F32",
        bias=(-0.5, 0.5),
        config=V3
        | {
            "num_hidden_layers": 2,
            "first_k_dense_replace": 0,
            "n_shared_experts": 3,
            "q_lora_rank": 40,
            "n_group": 2,
            "topk_group": 1,
            "rope_interleave": False,
            "rope_parameters": yarn(
                rope_type="yarn", rope_theta=20000.0, attention_factor=1.3, mscale=1.0, mscale_all_dim=0.8
            ),
        },
    ),
    "qwen3-sparse": Shape(
        why="dense layers by mlp_only_layers and decoder_sparse_step, attention biases, weights not normalised",
        dtype="BF16",
        config=QWEN3
        | {
            "vocab_size": 199,
            "hidden_size": 40,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 12,
            "attention_bias": True,
            "intermediate_size": 36,
            "moe_intermediate_size": 20,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "norm_topk_prob": False,
            "decoder_sparse_step": 2,
            "mlp_only_layers": [3],
            "use_sliding_window": False,
            "sliding_window": 32,
            "rope_theta": 10000.0,
            "rope_scaling": None,
        },
    ),
    "qwen3-tied": Shape(
        why="heads do not divide the width, one key head, a window for all layers, tied embeddings",
        dtype="F16",
        embedding=0.4,
        config=QWEN3
        | {
            "vocab_size": 187,
            "hidden_size": 52,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 18,
            "attention_bias": False,
            "intermediate_size": 36,
            "moe_intermediate_size": 18,
            "num_experts": 12,
            "num_experts_per_tok": 4,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "use_sliding_window": True,
            "sliding_window": 100,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    "mixtral-window": Shape(
        why="sliding_window 96, three key heads for six, head_dim null, θ 1e6",
        dtype="BF16",
        config=MIXTRAL
        | {
            "vocab_size": 211,
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "head_dim": None,
            "intermediate_size": 28,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "rms_norm_eps": 1e-5,
            "sliding_window": 96,
            "rope_theta": 1000000.0,
        },
    ),
    "mixtral-full": Shape(
        why="no window, head_dim given, top-3 of 5, embeddings of RMS 0.003, so that eps is seen",
        dtype="F32",
        embedding=0.003,
        o_proj=0.003,
        config=MIXTRAL
        | {
            "vocab_size": 170,
            "hidden_size": 36,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 10,
            "intermediate_size": 22,
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "rms_norm_eps": 1e-6,
            "sliding_window": None,
            "rope_theta": 1000000.0,
        },
    ),
    "olmoe-clip": Shape(
        why="q, k and v clipped after the norms, weights not normalised",
        dtype="BF16",
        config=OLMOE
        | {
            "vocab_size": 193,
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 20,
            "num_experts": 10,
            "num_experts_per_tok": 3,
            "norm_topk_prob": False,
            "clip_qkv": 0.9,
            "rope_theta": 10000.0,
            "rope_scaling": None,
        },
    ),
    "olmoe-norm": Shape(
        why="normalised weights, two key heads for four, attention biases",
        dtype="F32",
        config=OLMOE
        | {
            "vocab_size": 171,
            "hidden_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attention_bias": True,
            "intermediate_size": 18,
            "num_experts": 7,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "clip_qkv": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
        },
    ),
    "gpt-oss-128": Shape(
        why="the published window and yarn: 128 in every other layer, ×32 without truncation, θ 150000",
        dtype="F16",
        config=GPT_OSS
        | {
            "vocab_size": 151,
            "hidden_size": 44,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 14,
            "intermediate_size": 20,
            "num_local_experts": 7,
            "experts_per_token": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "sliding_window": 128,
            "swiglu_limit": 7.0,
            "max_position_embeddings": 131072,
            "initial_context_length": 4096,
            "rope_theta": 150000,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 4096,
            },
        },
    ),
    "gpt-oss-small": Shape(
        why="a window of 19 in the last two layers, one key head, yarn of its own, limit 5, top-4 of 9",
        dtype="BF16",
        config=GPT_OSS
        | {
            "vocab_size": 163,
            "hidden_size": 36,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "head_dim": 12,
            "intermediate_size": 26,
            "num_local_experts": 9,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "sliding_window": 19,
            "swiglu_limit": 5.0,
            "rope_parameters": yarn(rope_type="yarn", rope_theta=10000.0, truncate=False),
        },
    ),
}
