"""GGUF files of the families that Shoal serves, as Hugging Face config and tensors.

Written beside Shoal's own reading of the same files, by other hands: names and layouts as llama.cpp's converter makes them,
undone here with PyPI's gguf for the blocks.
"""

import numpy as np
import torch
from gguf.quants import dequantize

import gguf_deepseek

TYPES = {
    "qwen3moe": ("Qwen3MoeForCausalLM", "qwen3_moe"),
    "olmoe": ("OlmoeForCausalLM", "olmoe"),
    "llama": ("MixtralForCausalLM", "mixtral"),
    "gpt-oss": ("GptOssForCausalLM", "gpt_oss"),
}


def architecture_of(reader):
    return reader.fields["general.architecture"].contents()


def config_of(reader):
    """The Hugging Face config of a file."""
    family = architecture_of(reader)
    if family == "deepseek2":
        return gguf_deepseek.config_of(reader)
    field = lambda key: reader.fields[f"{family}.{key}"].contents()
    name, kind = TYPES[family]
    config = {
        "architectures": [name],
        "model_type": kind,
        "vocab_size": field("vocab_size"),
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "head_dim": field("attention.key_length"),
        "num_experts_per_tok": field("expert_used_count"),
        "max_position_embeddings": field("context_length"),
        # Six digits: the file holds it as F32.
        "rms_norm_eps": float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": field("rope.freq_base")},
    }
    experts = field("expert_count")
    if family == "qwen3moe":
        # No key says so: llama.cpp always normalises.
        width = field("expert_feed_forward_length")
        config |= {"num_experts": experts, "moe_intermediate_size": width, "norm_topk_prob": True}
        config |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": False}
    elif family == "olmoe":
        config |= {"num_experts": experts, "norm_topk_prob": False, "clip_qkv": None, "attention_bias": False}
    elif family == "llama":
        config |= {"num_local_experts": experts, "sliding_window": None}
    else:
        kinds = ["sliding_attention", "full_attention"]
        config |= {
            "num_local_experts": experts,
            "experts_per_token": config["num_experts_per_tok"],
            "intermediate_size": field("expert_feed_forward_length"),
            "sliding_window": field("attention.sliding_window"),
            "layer_types": [kinds[layer % 2] for layer in range(config["num_hidden_layers"])],
            "attention_bias": True,
            "swiglu_limit": 7.0,
        }
        config["rope_parameters"] |= {
            "rope_type": "yarn",
            "factor": field("rope.scaling.factor"),
            "original_max_position_embeddings": field("rope.scaling.original_context_length"),
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            # As published; no key says so.
            "truncate": False,
        }
    return config


GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
}
ROUTER = {"qwen3moe": "mlp.gate", "olmoe": "mlp.gate", "llama": "block_sparse_moe.gate", "gpt-oss": "mlp.router"}
MIXTRAL = {"gate": "w1", "down": "w2", "up": "w3"}


def values_of(tensor):
    values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
    return values.reshape([int(n) for n in reversed(tensor.shape)]).contiguous()


def unpermuted(values, heads):
    """Rows of a head from (pair, half) to (half, pair)."""
    rows, cols = values.shape
    return values.reshape(heads, rows // heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols).contiguous()


def state_of(reader):
    """Dequantised tensors under Hugging Face names."""
    family = architecture_of(reader)
    if family == "deepseek2":
        return gguf_deepseek.state_of(reader)
    state, halves = {}, {}
    for tensor in reader.tensors:
        values, (*where, part, end) = values_of(tensor), tensor.name.split(".")
        if not where:
            state[f"{GLOBAL[part]}.{end}"] = values
            continue
        prefix = f"model.layers.{where[1]}."
        if family == "llama" and part in ("attn_q", "attn_k"):
            key = "attention.head_count" + ("_kv" if part == "attn_k" else "")
            values = unpermuted(values, reader.fields[f"llama.{key}"].contents())
        if part == "ffn_gate_inp":
            state[f"{prefix}{ROUTER[family]}.{end}"] = values
        elif part == "attn_sinks":
            state[prefix + "self_attn.sinks"] = values
        elif part.endswith("_exps"):
            kind = part.removesuffix("_exps").removeprefix("ffn_")
            if family == "gpt-oss":
                halves.setdefault((prefix, end), {})[kind] = values
                continue
            for expert, matrix in enumerate(values):
                name = f"mlp.experts.{expert}.{kind}_proj"
                if family == "llama":
                    name = f"block_sparse_moe.experts.{expert}.{MIXTRAL[kind]}"
                state[f"{prefix}{name}.weight"] = matrix.clone()
        else:
            state[f"{prefix}{LAYER[part]}.{end}"] = values
    for (prefix, end), parts in halves.items():
        # [experts, out, in] to [experts, in, out]; of the first two the outputs alternate.
        both = torch.stack([parts["gate"], parts["up"]], dim=2).flatten(1, 2)
        bias = end == "bias"
        name = prefix + "mlp.experts.{}_proj" + ("_bias" if bias else "")
        turned = (lambda x: x) if bias else (lambda x: x.transpose(1, 2).contiguous())
        state[name.format("gate_up")], state[name.format("down")] = turned(both), turned(parts["down"])
    return state
