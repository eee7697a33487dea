"""Write the trained model as a directory that serving reads: weights, configuration, tokenizer, chat template.

Knows nothing of training.
"""

import json

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

import sums

# Training never sees a second question; the template renders one all the same, so that no message is dropped silently.
CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    "{{- '<user>' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<assistant>' + message['content'] + eos_token -}}"
    "{%- else -%}"
    "{{- raise_exception('the tiny model knows only the roles user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<assistant>' -}}{%- endif -%}"
)


def tokenizer() -> Tokenizer:
    """One token a character. `text` prompts get `<bos>` in front; chat prompts carry the template's own."""
    result = Tokenizer(models.WordLevel(vocab=sums.TOKEN_ID, unk_token="<unk>"))
    result.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    result.decoder = decoders.Fuse()
    # `<think>` and `</think>` are ordinary added tokens, because a reader is to see them; the others are control.
    visible = {"<think>", "</think>"}
    result.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in sums.SPECIAL if t not in visible]
    )
    result.add_tokens([AddedToken(t, normalized=False, special=False) for t in sums.SPECIAL if t in visible])
    result.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", sums.BOS)])
    return result


def tokenizer_config() -> dict:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": CHAT_TEMPLATE,
    }


def write_weights(model, directory):
    """BF16, as DeepSeek-V3 is published; the correction biases stay F32, as theirs do."""
    state = model.state_dict()
    biases = {name: state[name].clone() for name in state if name.endswith("e_score_correction_bias")}
    model.to(torch.bfloat16).save_pretrained(directory)
    path = directory / "model.safetensors"
    save_file(load_file(path) | biases, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write(model, directory):
    """Everything but the card."""
    write_weights(model, directory)
    tokenizer().save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", tokenizer_config())
    tokens = {"bos_token_id": sums.BOS, "eos_token_id": sums.EOS, "pad_token_id": sums.PAD}
    write_json(directory / "generation_config.json", tokens)
