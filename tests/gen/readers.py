"""What PyPI's gguf reads in GGUF files: `tests/fixtures/gguf/expected.json`, and files that its own writer wrote.

    pip install -r requirements.txt blake3
    python readers.py

A line per metadata key, ascending, then one per tensor, by its place in the file: name, type, shape outermost first, first
byte, bytes. Floats are the bits of an F64, so that nothing is rounded. Of the models that `tiny_gguf` writes only the digest
of the lines is kept.
"""

import json
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from blake3 import blake3
from gguf import GGML_QUANT_SIZES, GGUFReader, GGUFValueType, GGUFWriter

ROOT = Path(__file__).parents[2]
OUT = ROOT / "tests" / "fixtures" / "gguf"
KIND = GGUFValueType
MODELS = [
    *("k-quants", "small-blocks", "split", "qwen3-f32", "qwen3-k-quants", "olmoe-f32", "olmoe-narrow"),
    *("mixtral-f32", "mixtral-mixed", "gpt-oss-f32", "gpt-oss-mxfp4"),
]


def bits(number):
    return struct.pack(">d", number).hex()


def value_of(field):
    kind, value = field.types[0], field.contents()
    if kind == KIND.STRING:
        return f"text {json.dumps(value, ensure_ascii=False)}"
    if kind == KIND.BOOL:
        return f"truth {str(bool(value)).lower()}"
    if kind == KIND.ARRAY and field.types[1] == KIND.STRING:
        return f"texts {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"
    if kind == KIND.ARRAY:
        return "numbers " + ",".join(bits(float(number)) for number in value)
    if kind not in (KIND.FLOAT32, KIND.FLOAT64) and value >= 0:
        return f"whole {int(value)}"
    return f"float {bits(float(value))}"


def lines_of(path):
    reader = GGUFReader(path)
    keys = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    lines = [f"{name} = {value_of(field)}" for name, field in sorted(keys.items())]
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.data_offset):
        kind = tensor.tensor_type.name.replace("_", "").upper()
        shape = [int(n) for n in reversed(tensor.shape)]
        lines.append(f"{tensor.name}: {kind} {shape} at {int(tensor.data_offset)}, {int(tensor.n_bytes)} bytes")
    return lines


def every_value(writer):
    """Each type of value, at the ends of its range."""
    whole = [("U8", 0, 255), ("I8", -128, 127), ("U16", 0, 65535), ("I16", -32768, 32767)]
    whole += [("U32", 0, 2**32 - 1), ("I32", -(2**31), 2**31 - 1), ("U64", 0, 2**64 - 1), ("I64", -(2**63), 2**63 - 1)]
    for short, low, high in whole:
        kind = KIND[short.replace("I", "INT") if short[0] == "I" else short.replace("U", "UINT")]
        for end, value in (("least", low), ("most", high)):
            writer.add_key_value(f"test.{short.lower()}.{end}", value, kind)
        writer.add_key_value(f"test.{short.lower()}.all", [low, 1, 2, high], KIND.ARRAY, sub_type=kind)
    for kind in (KIND.FLOAT32, KIND.FLOAT64):
        values = [0.1, -0.0, 1e-40, float("inf"), -2.5e30]
        for index, value in enumerate(values):
            writer.add_key_value(f"test.{kind.name.lower()}.{index}", value, kind)
        writer.add_key_value(f"test.{kind.name.lower()}.all", values, KIND.ARRAY, sub_type=kind)
    writer.add_bool("test.true", True)
    writer.add_bool("test.false", False)
    writer.add_key_value("test.bools", [True, False, True], KIND.ARRAY, sub_type=KIND.BOOL)
    writer.add_string("test.empty", "")
    writer.add_string("test.text", 'Zoë "and" 魚\n\t🐟')
    writer.add_array("test.texts", ["", "a", "Ġthe", "魚"])


def write_types(path, alignment):
    """Each type of tensor that gguf knows, in one to four dims."""
    writer = GGUFWriter(path, "qwen3moe")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    every_value(writer)
    random = np.random.default_rng(7)
    for index, (kind, (_, size)) in enumerate(GGML_QUANT_SIZES.items()):
        shape = [(3,), (2, 1), (2, 1, 3), (3, 1, 2, 2)][index % 4]
        data = random.integers(0, 256, (*shape[:-1], shape[-1] * size), dtype=np.uint8)
        writer.add_tensor(f"tensor.{kind.name}", data, raw_dtype=kind)
    finish(writer)


def write_splits(path):
    """A model without sense in three files."""
    writer = GGUFWriter(path, "qwen3moe", split_max_tensors=3)
    writer.add_uint32("qwen3moe.block_count", 2)
    random = np.random.default_rng(8)
    for layer in range(2):
        for part, shape in (("attn_norm", (16,)), ("attn_q", (32, 16)), ("ffn_gate_exps", (4, 8, 16))):
            writer.add_tensor(f"blk.{layer}.{part}.weight", random.standard_normal(shape, dtype=np.float32))
    writer.add_tensor("token_embd.weight", random.standard_normal((20, 16)).astype(np.float16))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    OUT.mkdir(exist_ok=True)
    write_types(OUT / "types.gguf", 32)
    write_types(OUT / "aligned.gguf", 128)
    # Versions 2 and 3 differ in nothing but the number, in little-endian files.
    older = bytearray((OUT / "types.gguf").read_bytes())
    older[4:8] = (2).to_bytes(4, "little")
    (OUT / "version-2.gguf").write_bytes(older)
    write_splits(OUT / "parts.gguf")
    digest = lambda path: blake3("\n".join(lines_of(path)).encode()).hexdigest()
    vocabularies = sorted((OUT.parent / "vocabularies").glob("*.gguf"))
    expected = {
        "files": {path.name: lines_of(path) for path in sorted(OUT.glob("*.gguf"))},
        # Long lists of tokens.
        "vocabularies": {path.name: digest(path) for path in vocabularies},
        "models": {},
    }
    with tempfile.TemporaryDirectory() as directory:
        for name in MODELS:
            path = Path(directory) / "model.gguf"
            command = ["cargo", "run", "--quiet", "-p", "shoal-worker", "--example", "tiny_gguf", "--", name, str(path)]
            subprocess.run(command, check=True, cwd=ROOT)
            expected["models"][name] = digest(path)
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
