"""A deepseek2 file as Hugging Face config and tensors; see `gguf_models.py`."""

import numpy as np
import torch
from gguf.quants import dequantize


def config_of(reader):
    """The Hugging Face config of a deepseek2 file."""
    field = lambda key: reader.fields[f"deepseek2.{key}"].contents()
    present = lambda key: f"deepseek2.{key}" in reader.fields
    all_dim = round(field("rope.scaling.yarn_log_multiplier") * 10, 6)
    mla = "_mla" if present("attention.key_length_mla") else ""
    return {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "vocab_size": field("vocab_size"),
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "moe_intermediate_size": field("expert_feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count"),
        "first_k_dense_replace": field("leading_dense_block_count"),
        "kv_lora_rank": field("attention.kv_lora_rank"),
        "q_lora_rank": None,
        "qk_rope_head_dim": field("rope.dimension_count"),
        "qk_nope_head_dim": field(f"attention.key_length{mla}") - field("rope.dimension_count"),
        "v_head_dim": field(f"attention.value_length{mla}"),
        "n_routed_experts": field("expert_count"),
        "n_shared_experts": field("expert_shared_count"),
        "num_experts_per_tok": field("expert_used_count"),
        "routed_scaling_factor": field("expert_weights_scale"),
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": False,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": field("context_length"),
        "rope_theta": field("rope.freq_base"),
        "rope_scaling": {
            "type": "yarn",
            "factor": field("rope.scaling.factor"),
            "original_max_position_embeddings": field("rope.scaling.original_context_length"),
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": all_dim,
            "mscale_all_dim": all_dim,
        },
    }


GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
}


def state_of(reader):
    """Dequantised tensors under Hugging Face names."""
    state, halves = {}, {}
    for tensor in reader.tensors:
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        values = values.reshape([int(n) for n in reversed(tensor.shape)]).contiguous()
        name = tensor.name.removesuffix(".weight")
        if name in GLOBAL:
            state[GLOBAL[name] + ".weight"] = values
            continue
        _, layer, part = name.split(".")
        prefix = f"model.layers.{layer}."
        if part in ("attn_k_b", "attn_v_b"):
            halves.setdefault(prefix, {})[part] = values
        elif part.endswith("_exps"):
            for expert, matrix in enumerate(values):
                kind = part.removesuffix("_exps").removeprefix("ffn_")
                state[f"{prefix}mlp.experts.{expert}.{kind}_proj.weight"] = matrix.clone()
        else:
            state[prefix + LAYER[part] + ".weight"] = values
    for prefix, half in halves.items():
        # [heads, latent, nope] and [heads, value, latent] to [heads * (nope + value), latent].
        both = torch.cat([half["attn_k_b"].transpose(1, 2), half["attn_v_b"]], dim=1)
        state[prefix + "self_attn.kv_b_proj.weight"] = both.flatten(0, 1).contiguous()
    return state
