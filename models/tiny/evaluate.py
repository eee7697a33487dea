"""Ask a written model held-out sums, greedily, in F32 on the stored weights.

    python evaluate.py DIRECTORY [--count 1000] [--seed 0] [--phrasing 'What is {a}+{b}?'] [--threads 1]

Changes no file.
"""

import argparse
import random
from itertools import groupby
from pathlib import Path

import torch
from transformers import DeepseekV3ForCausalLM

import sums

MAX_NEW_TOKENS = 64
BATCH = 250


def questions(count, seed, phrasing):
    """`count` held-out pairs, uniform over all of them and in either order, each asked in the same words."""
    rng = random.Random(seed)
    pairs = rng.sample(sums.held_out_pairs(), count)
    ordered = [pair if rng.random() < 0.5 else sums.Sum(pair.b, pair.a) for pair in pairs]
    return [(phrasing.format(a=pair.a, b=pair.b), pair) for pair in ordered]


@torch.no_grad()
def completions(model, prompts):
    """Greedy completions of prompts of one length, as ids."""
    output = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.long),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
    )
    return output[:, len(prompts[0]) :].tolist()


def mistakes(model, asked):
    """Those questions whose answer is wrong, with what was said instead."""
    wrong = []
    prompts = sorted(((sums.prompt_ids(text), text, pair) for text, pair in asked), key=lambda item: len(item[0]))
    for _, group in groupby(prompts, key=lambda item: len(item[0])):
        same_length = list(group)
        for start in range(0, len(same_length), BATCH):
            part = same_length[start : start + BATCH]
            for (_, text, pair), said in zip(part, completions(model, [ids for ids, _, _ in part]), strict=True):
                if sums.answer_of(said) != str(pair.a + pair.b):
                    wrong.append((text, "".join(sums.TOKEN[i] for i in said)))
    return wrong


def report(directory, count, seed, phrasing=sums.PHRASINGS[0]):
    """Prints each mistake and the share of right answers, which it returns."""
    model = DeepseekV3ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    wrong = mistakes(model, questions(count, seed, phrasing))
    for text, said in wrong:
        print(f"wrong: {text} -> {said!r}")
    right = count - len(wrong)
    print(f"{right} of {count} held-out sums right ({right / count:.2%})", flush=True)
    return right / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phrasing", default=sums.PHRASINGS[0], help="words around {a} and {b}, as in sums.PHRASINGS")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report(args.directory, args.count, args.seed, args.phrasing)


if __name__ == "__main__":
    main()
