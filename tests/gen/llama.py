"""How far llama.cpp is from F32 on the dequantised weights of a GGUF file: `tests/fixtures/llama.json`.

    pip install -r requirements.txt blake3 llama-cpp-python==0.3.36      # builds llama.cpp, minutes
    python llama.py

The files are random models that `cargo run -p shoal-worker --example tiny_gguf` writes; their digest is stored, so that
a test knows that it reads the same. The reference is transformers in F32 on what PyPI's gguf makes of the blocks, with
names and config translated here, by other hands than Shoal's. Distances are over the 20 likeliest tokens of the
reference at each position, in natural-log probability.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
import torch
from blake3 import blake3
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file

import weights

ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "fixtures" / "llama.json"
MODELS = ["k-quants", "small-blocks", "split"]
PROMPT, LENGTH, TOP = 40, 56, 20


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


@torch.no_grad()
def reference_of(path, ids):
    """[positions, vocabulary] log-probabilities."""
    reader = GGUFReader(path)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(config_of(reader)))
        save_file(state_of(reader), Path(directory) / "model.safetensors", metadata={"format": "pt"})
        logits = weights.load(directory)(torch.tensor([ids]), use_cache=False).logits[0]
    return logits.double().log_softmax(-1).numpy()


def llama_of(path, ids):
    model = llama_cpp.Llama(str(path), n_ctx=128, n_batch=128, logits_all=True, n_threads=2, verbose=False)
    model.eval(ids)
    logits = torch.from_numpy(np.array(model.scores[: len(ids)], dtype=np.float64))
    return logits.log_softmax(-1).numpy()


def measure(name, directory):
    path = Path(directory) / f"{name}.gguf"
    command = ["cargo", "run", "--quiet", "-p", "shoal-worker", "--example", "tiny_gguf", "--", name, str(path)]
    subprocess.run(command, check=True, cwd=ROOT)
    reader = GGUFReader(path)
    ids = [int(i) * 37 % int(reader.fields["deepseek2.vocab_size"].contents()) for i in range(LENGTH)]
    reference, llama = reference_of(path, ids)[PROMPT - 1 :], llama_of(path, ids)[PROMPT - 1 :]
    top = np.argsort(-reference, axis=-1, kind="stable")[:, :TOP]
    distance = np.abs(np.take_along_axis(llama - reference, top, -1))
    mean, most = float(distance.mean()), float(distance.max())
    print(f"{name}: llama.cpp is {mean:.2e} (at most {most:.2e}) from F32 on the dequantised weights", flush=True)
    kinds = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    rows = [[[int(i), float(np.float32(row[i]))] for i in best] for best, row in zip(top, reference)]
    return {
        "blake3": blake3(path.read_bytes()).hexdigest(),
        "formats": kinds,
        "ids": ids,
        "prompt": PROMPT,
        "llama": {"version": llama_cpp.__version__, "mean": mean, "max": most},
        "reference": rows,
    }


def main():
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as directory:
        measured = {name: measure(name, directory) for name in MODELS}
    OUT.write_text(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
