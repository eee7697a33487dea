"""What transformers says of a prompt: greedy tokens, their distributions, and how close a router was to another choice.

Reads a model, writes nothing.
"""

from typing import NamedTuple

import torch

NEW_TOKENS = 16
TOP = 20


class Answer(NamedTuple):
    """Of one prompt; the last three have a row for each of the 16 generated positions."""

    tokens: list[int]
    # [16, vocabulary], F64 from F32 logits.
    logprobs: torch.Tensor
    # The least margin in any router at this position or an earlier one.
    margin: torch.Tensor
    # How far the same logits move when the prompt goes through the cache token by token instead of whole.
    noise: float


def margins(router, logits) -> torch.Tensor:
    """[positions]: last chosen minus first refused selection score, the smaller of that for groups and for experts."""
    scores = logits.double().sigmoid() if hasattr(router, "e_score_correction_bias") else logits.double().softmax(-1)
    scores = scores + getattr(router, "e_score_correction_bias", 0.0)
    groups = getattr(router, "num_group", 1) if getattr(router, "topk_method", None) != "greedy" else 1
    least = torch.full((len(scores),), float("inf"), dtype=torch.float64)
    if groups > 1:
        grouped = scores.view(len(scores), groups, -1)
        best = 2 if hasattr(router, "e_score_correction_bias") else 1
        group_scores = grouped.topk(best, dim=-1).values.sum(-1)
        ranked = group_scores.sort(dim=-1, descending=True)
        if router.topk_group < groups:
            least = ranked.values[:, router.topk_group - 1] - ranked.values[:, router.topk_group]
        kept = torch.zeros_like(group_scores).scatter(1, ranked.indices[:, : router.topk_group], 1).bool()
        scores = grouped.masked_fill(~kept.unsqueeze(-1), float("-inf")).flatten(1)
    ranked = scores.sort(dim=-1, descending=True).values
    return torch.minimum(least, ranked[:, router.top_k - 1] - ranked[:, router.top_k])


def routers(model):
    modules = [getattr(layer.mlp, "gate", getattr(layer.mlp, "router", None)) for layer in model.model.layers]
    return [router for router in modules if router is not None]


@torch.no_grad()
def greedy(model, prompt):
    """16 tokens through the cache, one at a time, eos ignored."""
    tokens, logits, cache, step = [], [], None, prompt
    for _ in range(NEW_TOKENS):
        output = model(torch.tensor([step]), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logits.append(output.logits[0, -1])
        step = [int(logits[-1].argmax())]
        tokens += step
    return tokens, torch.stack(logits)


@torch.no_grad()
def logits_of(model, prompt, tokens):
    """[16, vocabulary] F32: one pass over the prompt and all tokens but the last."""
    ids = torch.tensor([prompt + tokens[:-1]])
    return model(ids, use_cache=False).logits[0, len(prompt) - 1 :]


def ask(model, prompt) -> Answer:
    tokens, stepwise = greedy(model, prompt)
    seen = []
    hooks = [r.register_forward_hook(lambda r, _, out: seen.append(margins(r, out[0]))) for r in routers(model)]
    logits = logits_of(model, prompt, tokens)
    for hook in hooks:
        hook.remove()
    logprobs, stepwise = logits.double().log_softmax(-1), stepwise.double().log_softmax(-1)
    so_far = torch.stack(seen).min(0).values.cummin(0).values
    return Answer(tokens, logprobs, so_far[len(prompt) - 1 :], float((logprobs - stepwise).abs().max()))


def unambiguous(answer) -> bool:
    """Whether rounding can change neither the tokens, nor which are the top 20, nor an expert."""
    ranked = answer.logprobs.sort(dim=-1, descending=True).values
    decided = (ranked[:, 0] - ranked[:, 1]).min() > 1e-3
    bounded = (ranked[:, TOP - 1] - ranked[:, TOP]).min() > 1e-4
    same = answer.tokens == answer.logprobs.argmax(-1).tolist()
    return bool(decided and bounded and same and answer.margin.min() > 1e-5)
