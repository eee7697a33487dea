"""Random blocks of every format and the F32 numbers that others make of them: `tests/fixtures/formats.safetensors`.

    pip install -r requirements.txt
    python blocks.py

GGUF formats are decoded by PyPI's gguf, E4M3 by torch, gpt-oss's layout of MXFP4 by transformers. Every scale that is a
binary16 is drawn from all kinds: usual, subnormal, the smallest, the largest, zero, each with both signs.
"""

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants
from safetensors.numpy import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = Path(__file__).parents[1] / "fixtures" / "formats.safetensors"
SEED = 20261128
# Format, and where its binary16 scales stand in a block.
FORMATS = {
    "q8_0": (Kind.Q8_0, [0]),
    "q4_0": (Kind.Q4_0, [0]),
    "q5_0": (Kind.Q5_0, [0]),
    "q5_1": (Kind.Q5_1, [0, 2]),
    "iq4_nl": (Kind.IQ4_NL, [0]),
    "q4_k": (Kind.Q4_K, [0, 2]),
    "q5_k": (Kind.Q5_K, [0, 2]),
    "q6_k": (Kind.Q6_K, [208]),
    "mxfp4": (Kind.MXFP4, []),
}
EXTREME = [0x0000, 0x0001, 0x0003, 0x01FF, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x2E66, 0x1555]


def halves(random, count):
    """Scales: each extreme one with both signs first, then usual ones (|d| in 2^-10 .. 2^3)."""
    usual = (random.choice([-1, 1], count) * 2.0 ** random.uniform(-10, 3, count)).astype(np.float16).view(np.uint16)
    extreme = [bits | sign for bits in EXTREME for sign in (0, 0x8000)]
    usual[: len(extreme)] = random.permutation(extreme)
    return usual


def blocks(random, kind, scales):
    numbers, size = quants.GGML_QUANT_SIZES[kind]
    count = 24 if numbers == 256 else 96
    made = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in scales:
        made[:, at : at + 2] = halves(random, count).view(np.uint8).reshape(count, 2)
    if kind == Kind.MXFP4:
        made[:, 0] = random.integers(0, 253, count)
        made[:8, 0] = [0, 1, 2, 3, 126, 127, 128, 252]
    return made


def main():
    random = np.random.default_rng(SEED)
    tensors = {}
    for name, (kind, scales) in FORMATS.items():
        made = blocks(random, kind, scales)
        tensors[f"{name}.blocks"] = made
        tensors[f"{name}.expected"] = quants.dequantize(made.reshape(-1), kind).reshape(len(made), -1)
    codes = np.arange(256, dtype=np.uint8)
    tensors["e4m3.blocks"] = codes.reshape(256, 1)
    tensors["e4m3.expected"] = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy().reshape(256, 1)
    # [experts, out, in / 32, 16] and [experts, out, in / 32]: as gpt-oss stores them; decoded to [experts, in, out].
    paired = random.integers(0, 256, (2, 4, 3, 16), dtype=np.uint8)
    scales = random.integers(110, 140, (2, 4, 3), dtype=np.uint8)
    decoded = convert_moe_packed_tensors(torch.from_numpy(paired), torch.from_numpy(scales), dtype=torch.float32)
    tensors["gpt_oss.blocks"], tensors["gpt_oss.scales"] = paired, scales
    tensors["gpt_oss.expected"] = np.ascontiguousarray(decoded.numpy().transpose(0, 2, 1))
    assert all(np.isfinite(tensors[f"{name}.expected"]).all() for name in FORMATS)
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
