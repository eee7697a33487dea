"""How far known mistakes move the answers: what a comparison within 5e-5 would catch, and on which fixture.

A mistake is made in the referee itself, and its log-probabilities are compared with the stored ones.
"""

import json
from unittest import mock

import torch

import referee
import weights


def zeroed_bias(model):
    for router in referee.routers(model):
        if hasattr(router, "e_score_correction_bias"):
            router.e_score_correction_bias.zero_()


def ignored_groups(model):
    for router in referee.routers(model):
        router.topk_group = router.num_group


def dropped_expert(model):
    for layer in model.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts.down_proj[0].zero_()


def scaled_routing(model):
    for router in referee.routers(model):
        router.routed_scaling_factor *= 1.01


def larger_eps(model):
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5


def unscaled_softmax(model):
    for layer in model.model.layers:
        layer.self_attn.scaling = layer.self_attn.qk_head_dim**-0.5


def unscaled_rotation(model):
    model.model.rotary_emb.attention_scaling = 1.0


def unscaled_frequencies(model):
    embedding = model.model.rotary_emb
    embedding.inv_freq = embedding.compute_default_rope_parameters(embedding.config)[0]


def other_rope_pairs(model):
    """V2's class knows only interleaved pairs: there the rows that make the rope parts of q and k are permuted."""
    config = model.config
    if config.model_type == "deepseek_v3":
        config.rope_interleave = not config.rope_interleave
        return
    rope, half = config.qk_rope_head_dim, config.qk_rope_head_dim // 2
    order = torch.arange(rope).view(2, half).T.flatten()
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.kv_a_proj_with_mqa.weight[-rope:] = attention.kv_a_proj_with_mqa.weight[-rope:][order]
        queries = attention.q_proj if attention.q_proj is not None else attention.q_b_proj
        heads = queries.weight.view(config.num_attention_heads, -1, queries.weight.shape[-1])
        heads[:, -rope:] = heads[:, -rope:][:, order]


def zero_mask(_model):
    """Losing groups masked with 0, as early implementations of V3 did."""
    plain = torch.Tensor.masked_fill

    def zeroed(scores, mask, value):
        return plain(scores, mask, 0.0 if value == float("-inf") else value)

    return mock.patch.object(torch.Tensor, "masked_fill", zeroed)


def unit_norms(model):
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)


MISTAKES = [
    zeroed_bias,
    ignored_groups,
    zero_mask,
    dropped_expert,
    scaled_routing,
    larger_eps,
    unscaled_softmax,
    unscaled_rotation,
    unscaled_frequencies,
    other_rope_pairs,
    unit_norms,
]


@torch.no_grad()
def distance(model, cases) -> float:
    """Mean |Δ logprob| over the stored top 20 of every position of every case."""
    differences = []
    for case in cases:
        logprobs = referee.logits_of(model, case["prompt"], case["tokens"]).double().log_softmax(-1)
        for row, top in zip(logprobs, case["top"], strict=True):
            differences += [abs(float(row[i]) - stored) for i, stored in top]
    return sum(differences) / len(differences)


@torch.no_grad()
def report(name, directory):
    cases = json.loads((directory / "expected.json").read_text())["cases"]
    print(f"{name}\n  no mistake            {distance(weights.load(directory), cases):.1e}")
    for mistake in MISTAKES:
        model = weights.load(directory)
        with mistake(model) or mock.MagicMock():
            print(f"  {mistake.__name__:21} {distance(model, cases):.1e}", flush=True)
