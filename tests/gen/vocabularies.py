"""Small tokenizers inside GGUF files, and how llama.cpp cuts texts with them: `tests/fixtures/vocabularies/`.

    pip install -r requirements.txt llama-cpp-python==0.3.36
    python vocabularies.py

Each is trained here on TEXTS, cut in the coarsest way, so that merges would cross every boundary that a pre-tokenizer has to
keep. Where Hugging Face's own tokenizers differ from llama.cpp (composed characters, runs of digits), the texts keep off.
"""

import json
import unicodedata
from pathlib import Path

import llama_cpp
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

OUT = Path(__file__).parents[1] / "fixtures" / "vocabularies"
PRE = ["deepseek-llm", "deepseek-v3", "qwen2", "olmo", "gpt-4o"]
TEXTS = [
    "Hello, world! It's what we'll do: don't they've?  ",
    "I'LL SHOUT, YOU'RE QUIET; We'Re Mixed. CamelCaseWords and snake_case_words",
    "One 1 two 22 three 333 four 4444 five 55555, 3.14159 and 1,000,000.",
    "def f(x):\n    return x[0] + {'a': 1}\n\n\tif x:\r\n\t\tpass\n   \n",
    "Grüße aus Köln: ça va? Ünïcödé — “quotes” … naïve café",
    "Привет, мир! Как дела? 你好，世界。今天天气很好！ こんにちは世界 カタカナ 안녕하세요",
    "emoji 🙂🙃 and 👩‍👩‍👧, math ∑∫√ ≤ ≥, arrows → ⇒",
    "   leading, trailing   and    inner     spaces \n\n\n newlines \n",
    "http://example.com/a/b?c=d&e=f#g $100 €5 50% #tag @user a/b//c\\d",
    "a", " ", "\n", "  \n  ", "x\ny", "!?!?!", "...a", "ABCdefGHI", "٣٤٥ ५६७",
]


def bytes_model(pre):
    """Byte-level BPE over whole lines."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=1
    )
    # Digits never merge in the models that these stand for, and \\p{N}+ would show it.
    lines = [text for text in TEXTS if not any(c.isnumeric() for c in text)]
    tokenizer.train_from_iterator(lines * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = GGUFWriter(OUT / f"{pre}.gguf", "qwen3moe")
    writer.add_uint32("qwen3moe.block_count", 1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + ["<|end|>"])
    writer.add_token_types([TokenType.NORMAL] * len(tokens) + [TokenType.CONTROL])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(len(tokens))
    writer.add_add_bos_token(False)
    return writer


def sentence_model():
    """SentencePiece's BPE, with bytes to fall back to."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, min_frequency=1, limit_alphabet=90)
    tokenizer.train_from_iterator(TEXTS[:2] + TEXTS[4:5] + ["the quick brown fox jumps over the lazy dog"] * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    writer = GGUFWriter(OUT / "llama.gguf", "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds + [TokenType.NORMAL] * len(pieces))
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(pieces))])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    return writer


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    assert all(unicodedata.normalize("NFC", text) == text for text in TEXTS)
    for pre in PRE:
        write(bytes_model(pre))
    write(sentence_model())
    expected = {}
    for name in PRE + ["llama"]:
        path = OUT / f"{name}.gguf"
        path.chmod(0o644)
        model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        ids = [model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS]
        expected[name] = ids
        print(name, sum(map(len, ids)), path.stat().st_size)
    (OUT / "expected.json").write_text(json.dumps({"texts": TEXTS, "ids": expected}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
