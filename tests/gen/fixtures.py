"""Write tiny random models and what transformers makes of them.

    python fixtures.py [NAME…] [--out DIR]        write fixtures (default: all)
    python fixtures.py --trace NAME --prompt K    print the activations of the K-th prompt's last position as JSON
    python fixtures.py --sensitivity [NAME…]      print how far each known mistake moves the answers

The last two read fixtures already written.
"""

import argparse
import json
import os
import random
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

import referee
import sensitivity
import activations
import weights
from shapes import SHAPES

PROMPT_LENGTHS = (5, 40, 300)
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "fixtures"


def unambiguous_case(model, length, vocabulary, name):
    """(prompt, answer) with the first seed whose answer rounding cannot change."""
    for seed in range(1000):
        rng = random.Random(f"{name} {length} {seed}")
        prompt = [rng.randrange(vocabulary) for _ in range(length)]
        answer = referee.ask(model, prompt)
        if referee.unambiguous(answer):
            return prompt, answer
    raise SystemExit(f"{name}: no unambiguous prompt of {length} tokens")


def short(value) -> float:
    """Nine digits tell any two F32 apart."""
    return float(f"{float(torch.tensor(value, dtype=torch.float32)):.9g}")


def recorded(prompt, answer) -> dict:
    best = answer.logprobs.topk(referee.TOP, dim=-1)
    top = [
        [[i, short(p)] for i, p in zip(ids, values, strict=True)]
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    margin = [short(value) for value in answer.margin.tolist()]
    return {"prompt": prompt, "tokens": answer.tokens, "top": top, "margin": margin}


def write(name, out):
    shape, directory = SHAPES[name], out / name
    weights.write(shape, directory)
    model = weights.load(directory)
    cases, noise = [], 0.0
    for length in PROMPT_LENGTHS:
        prompt, answer = unambiguous_case(model, length, shape.config["vocab_size"], name)
        cases.append(recorded(prompt, answer))
        noise = max(noise, answer.noise)
    text = json.dumps({"cases": cases}, separators=(",", ":")) + "\n"
    (directory / "expected.json").write_text(text)
    margin = min(min(case["margin"]) for case in cases)
    distinct = len({token for case in cases for token in case["tokens"]})
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"{name}: {size / 1e6:.2f} MB, {distinct} distinct tokens, least margin {margin:.1e}, own noise {noise:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--trace", choices=SHAPES, metavar="NAME")
    parser.add_argument("--prompt", type=int, choices=range(len(PROMPT_LENGTHS)), default=0, metavar="K")
    parser.add_argument("--sensitivity", action="store_true")
    args = parser.parse_args()
    unknown = set(args.names) - SHAPES.keys()
    if unknown:
        parser.error(f"no fixture named {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    if args.trace:
        return print(json.dumps(activations.of(args.out / args.trace, args.prompt)))
    for name in args.names or SHAPES:
        if args.sensitivity:
            sensitivity.report(name, args.out / name)
        else:
            write(name, args.out)


if __name__ == "__main__":
    main()
