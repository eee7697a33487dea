"""Random weights that make every part of a model matter, and the file that holds them.

No norm is 1, routers are decisive, and the terms of the residual are of one size.
"""

import json
import math

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ROUTER_GAIN = 2.0
HEAD_GAIN = 3.0
CLAMPED_GAIN = 3.0


def load(directory, **changes):
    """The referee: F32, eager attention and experts. `changes` replaces entries of config.json."""
    config = AutoConfig.from_pretrained(directory)
    for name, value in changes.items():
        setattr(config, name, value)
    config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_pretrained(
        directory, config=config, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def fill(name, tensor, shape, generator):
    """Random values for the tensor of that name."""
    if name.endswith("e_score_correction_bias"):
        low, high = shape.bias
        return torch.empty_like(tensor).uniform_(low, high, generator=generator)
    if name.endswith("sinks"):
        return torch.empty_like(tensor).uniform_(-1.0, 3.0, generator=generator)
    if name.endswith("bias"):
        return torch.empty_like(tensor).uniform_(-0.5, 0.5, generator=generator)
    if name.endswith("norm.weight"):
        return torch.empty_like(tensor).uniform_(0.5, 1.5, generator=generator)
    gain, fan_in = 1.0, tensor.shape[-1]
    if name.endswith("embed_tokens.weight"):
        gain, fan_in = shape.embedding, 1
    elif name.endswith(("mlp.gate.weight", "block_sparse_moe.gate.weight", "mlp.router.weight")):
        gain = ROUTER_GAIN
    elif name.endswith("lm_head.weight"):
        gain = HEAD_GAIN
    elif name.endswith("o_proj.weight"):
        gain = shape.o_proj
    elif name.endswith("experts.gate_up_proj"):
        # Stacked as [experts, in, out]; wide enough that the clamps are met.
        gain, fan_in = CLAMPED_GAIN, tensor.shape[-2]
    elif name.endswith("experts.down_proj"):
        gain, fan_in = 1.0 / CLAMPED_GAIN, tensor.shape[-2]
    elif ".experts." in name and name.endswith("down_proj.weight") and not shape.config.get("norm_topk_prob", True):
        # A softmax over all experts leaves the chosen ones less than 1 in sum; keep the routed term near the others.
        gain = 2.0 / max(1.0, shape.config.get("routed_scaling_factor", 1.0) / 2)
    return torch.randn(tensor.shape, generator=generator) * (gain / math.sqrt(fan_in))


def write(shape, directory):
    """config.json and model.safetensors."""
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(shape.config, indent=2) + "\n"
    (directory / "config.json").write_text(text)
    # Only to learn the names and shapes under which transformers writes such a checkpoint.
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory)).save_pretrained(directory)
    path = directory / "model.safetensors"
    generator = torch.Generator().manual_seed(shape.weight_seed)
    tensors = {}
    for name, tensor in sorted(load_file(path).items()):
        values = fill(name, tensor.float(), shape, generator)
        keeps_f32 = name.endswith("e_score_correction_bias")
        tensors[name] = values if keeps_f32 else values.to(DTYPES[shape.dtype])
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)
    (directory / "config.json").write_text(text)
    (directory / "generation_config.json").unlink(missing_ok=True)
