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
from safetensors.torch import save_file

import weights
from gguf_models import architecture_of, config_of, state_of

ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "fixtures" / "llama.json"
MODELS = [
    *("k-quants", "small-blocks", "split", "qwen3-f32", "qwen3-k-quants", "olmoe-f32", "olmoe-narrow"),
    *("mixtral-f32", "mixtral-mixed", "gpt-oss-f32", "gpt-oss-mxfp4"),
]
PROMPT, LENGTH, TOP = 40, 56, 20


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
    ids = [int(i) * 37 % int(reader.fields[f"{architecture_of(reader)}.vocab_size"].contents()) for i in range(LENGTH)]
    reference, llama = reference_of(path, ids)[PROMPT - 1 :], llama_of(path, ids)[PROMPT - 1 :]
    top = np.argsort(-reference, axis=-1, kind="stable")[:, :TOP]
    distance = np.abs(np.take_along_axis(llama - reference, top, -1))
    mean, most = float(distance.mean()), float(distance.max())
    print(f"{name}: llama.cpp is {mean:.2e} (at most {most:.2e}) from F32 on the dequantised weights", flush=True)
    kinds = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    rows = [[[int(i), float(np.float32(row[i]))] for i in best] for best, row in zip(top, reference)]
    return {
        "architecture": architecture_of(reader),
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
