"""Published models as transformers declares them, on the meta device: nothing is downloaded, nothing is allocated.

What is counted: the bytes of every stored tensor, whether a routed expert owns it, and what one token leaves in the
cache and needs alive. Independent of the planner: sizes come from the tensors, not from formulas over a config.
"""

from typing import NamedTuple

import torch
import transformers as t

# (class, what differs from its defaults, how the checkpoint is stored)
V3 = dict(max_position_embeddings=163840)
V2 = dict(
    vocab_size=102400, hidden_size=5120, intermediate_size=12288, moe_intermediate_size=1536, num_hidden_layers=60,
    num_attention_heads=128, num_key_value_heads=128, n_shared_experts=2, n_routed_experts=160, q_lora_rank=1536,
    kv_lora_rank=512, qk_rope_head_dim=64, v_head_dim=128, qk_nope_head_dim=128, num_experts_per_tok=6,
    first_k_dense_replace=1, max_position_embeddings=163840, n_group=8, topk_group=3, topk_method="group_limited_greedy",
)
LITE = V2 | dict(
    hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408, num_hidden_layers=27,
    num_attention_heads=16, num_key_value_heads=16, n_routed_experts=64, q_lora_rank=None, n_group=1, topk_group=1,
    topk_method="greedy",
)
QWEN = dict(
    vocab_size=151936, num_hidden_layers=48, hidden_size=2048, moe_intermediate_size=768, head_dim=128,
    num_attention_heads=32, num_key_value_heads=4, num_experts=128, num_experts_per_tok=8,
    max_position_embeddings=40960,
)
MODELS = {
    "deepseek-ai/DeepSeek-R1": (t.DeepseekV3Config, V3, "FP8"),
    "deepseek-ai/DeepSeek-V2": (t.DeepseekV2Config, V2, "BF16"),
    "deepseek-ai/DeepSeek-V2-Lite": (t.DeepseekV2Config, LITE, "BF16"),
    "Qwen/Qwen3-30B-A3B": (t.Qwen3MoeConfig, QWEN, "BF16"),
    "Qwen/Qwen3-235B-A22B": (
        t.Qwen3MoeConfig,
        QWEN | dict(num_hidden_layers=94, hidden_size=4096, moe_intermediate_size=1536, num_attention_heads=64),
        "BF16",
    ),
    "mistralai/Mixtral-8x7B-v0.1": (t.MixtralConfig, dict(max_position_embeddings=32768), "BF16"),
    "mistralai/Mixtral-8x22B-v0.1": (
        t.MixtralConfig,
        dict(
            vocab_size=32768, hidden_size=6144, intermediate_size=16384, num_hidden_layers=56,
            num_attention_heads=48, max_position_embeddings=65536,
        ),
        "BF16",
    ),
    "allenai/OLMoE-1B-7B-0924": (t.OlmoeConfig, dict(intermediate_size=1024), "BF16"),
    "openai/gpt-oss-20b": (t.GptOssConfig, dict(num_hidden_layers=24, num_local_experts=32), "MXFP4"),
    "openai/gpt-oss-120b": (t.GptOssConfig, dict(), "MXFP4"),
}


class Model(NamedTuple):
    stored: str
    dense_bytes: int
    expert_bytes: int
    layers: int
    moe_layers: int
    hidden: int
    vocabulary: int
    experts: int
    chosen: int
    width: int
    kv: int
    activation: int
    max_context: int


def load(repository: str) -> Model:
    cls, changes, stored = MODELS[repository]
    config = cls(**changes)
    with torch.device("meta"):
        model = t.AutoModelForCausalLM.from_config(config)
    tensors = dict(model.named_parameters())
    tensors |= {name: buffer for name, buffer in model.named_buffers() if "correction_bias" in name}
    experts = getattr(config, "n_routed_experts", None) or config.num_local_experts
    layers = {name.split(".")[2] for name in tensors if ".experts." in name}
    inside = sum(size(name, tensor, stored, experts) for name, tensor in tensors.items() if ".experts." in name)
    outside = sum(size(name, tensor, stored, experts) for name, tensor in tensors.items() if ".experts." not in name)
    assert inside % (experts * len(layers)) == 0
    per_row, kv = rows(config)
    return Model(
        stored=stored,
        dense_bytes=outside,
        expert_bytes=inside // (experts * len(layers)),
        layers=config.num_hidden_layers,
        moe_layers=len(layers),
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        experts=experts,
        chosen=config.num_experts_per_tok,
        width=getattr(config, "moe_intermediate_size", None) or config.intermediate_size,
        kv=kv,
        activation=per_row,
        max_context=config.max_position_embeddings,
    )


def size(name: str, tensor: torch.Tensor, stored: str, experts: int) -> int:
    """Bytes of one tensor as the publisher stores it."""
    if "correction_bias" in name:
        return tensor.numel() * 4
    matrix = tensor.dim() >= 2 and not name.endswith("bias")
    outside = any(part in name for part in ("embed_tokens", "lm_head", "gate.weight", "router.weight"))
    if stored == "MXFP4" and ".experts." in name and matrix:
        # Blocks of 32 along a matrix's inputs, 16 bytes and one of scale each.
        assert tensor.numel() % 32 == 0
        return tensor.numel() // 32 * 17
    if stored == "FP8" and matrix and not outside:
        # Gate and up of all experts are one tensor here and separate matrices in the files.
        *count, out, inner = tensor.shape
        parts = 2 if "gate_up_proj" in name else 1
        blocks = parts * -(-(out // parts) // 128) * -(-inner // 128)
        return tensor.numel() + (count[0] if count else 1) * blocks * 4
    return tensor.numel() * 2


def rows(config) -> tuple[int, int]:
    """Numbers that a worker declares for a row beside the residual's width, and those that a token leaves in a cache."""
    heads, chosen = config.num_attention_heads, config.num_experts_per_tok
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    shared = (getattr(config, "n_shared_experts", None) or 0) * width
    if getattr(config, "kv_lora_rank", None):
        kv = config.kv_lora_rank + config.qk_rope_head_dim
        query = config.qk_nope_head_dim + config.qk_rope_head_dim
        attention = [
            config.q_lora_rank or 0,
            heads * query,
            kv,
            heads * config.kv_lora_rank,
            heads * config.kv_lora_rank,
            heads * config.v_head_dim,
        ]
        dense = config.intermediate_size
    else:
        head = getattr(config, "head_dim", None) or config.hidden_size // heads
        kv = 2 * config.num_key_value_heads * head
        attention = [heads * head, kv, heads * head]
        dense = 0
    return sum(attention) + 2 * dense + 2 * shared + chosen * width, kv
