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
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()


def ignored_groups(model):
    for router in referee.routers(model):
        if hasattr(router, "num_group"):
            router.topk_group = router.num_group


def dropped_expert(model):
    for layer in model.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts.down_proj[0].zero_()
            if hasattr(layer.mlp.experts, "down_proj_bias"):
                layer.mlp.experts.down_proj_bias[0].zero_()


def scaled_routing(model):
    for router in referee.routers(model):
        if hasattr(router, "routed_scaling_factor"):
            router.routed_scaling_factor *= 1.01
        else:
            router.register_forward_hook(lambda _router, _inputs, out: (out[0], out[1] * 1.01, out[2]))


def other_eps(model):
    """1e-5 for 1e-6, and the other way round."""
    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 1e-5 if module.variance_epsilon < 5e-6 else 1e-6


def unscaled_softmax(model):
    for layer in model.model.layers:
        if hasattr(layer.self_attn, "qk_head_dim"):
            layer.self_attn.scaling = layer.self_attn.qk_head_dim**-0.5


def ignored_sinks(model):
    """A score so low that its share is 0."""
    for layer in model.model.layers:
        if hasattr(layer.self_attn, "sinks"):
            layer.self_attn.sinks.fill_(-1e4)


def wider_window(model):
    if getattr(model.config, "sliding_window", None) is not None:
        model.config.sliding_window += 1


def swapped_gate_and_up(model):
    """Stacked as halves of the rows, or, transposed, as every other column."""
    for layer in model.model.layers:
        experts = getattr(layer.mlp, "experts", None)
        if experts is None:
            continue
        if hasattr(experts, "gate_up_proj_bias"):
            for both in (experts.gate_up_proj, experts.gate_up_proj_bias):
                both.copy_(both.unflatten(-1, (-1, 2)).flip(-1).flatten(-2))
        else:
            experts.gate_up_proj.copy_(experts.gate_up_proj.roll(experts.gate_up_proj.shape[-2] // 2, dims=-2))


def ignored_clip(model):
    if getattr(model.config, "clip_qkv", None) is not None:
        model.config.clip_qkv = None


def ignored_clamp(model):
    for layer in model.model.layers:
        if hasattr(getattr(layer.mlp, "experts", None), "limit"):
            layer.mlp.experts.limit = 1e6


def other_normalisation(model):
    for router in referee.routers(model):
        if hasattr(router, "norm_topk_prob"):
            router.norm_topk_prob = not router.norm_topk_prob


def unscaled_rotation(model):
    model.model.rotary_emb.attention_scaling = 1.0


def unscaled_frequencies(model):
    embedding = model.model.rotary_emb
    embedding.inv_freq = embedding.compute_default_rope_parameters(embedding.config)[0]


def other_rope_pairs(model):
    """V2's class knows only interleaved pairs, the others only halves: there the rows that are rotated are permuted."""
    config = model.config
    if config.model_type == "deepseek_v3":
        config.rope_interleave = not config.rope_interleave
        return
    if config.model_type != "deepseek_v2":
        return other_pairs_of_heads(model)
    rope, half = config.qk_rope_head_dim, config.qk_rope_head_dim // 2
    order = torch.arange(rope).view(2, half).T.flatten()
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.kv_a_proj_with_mqa.weight[-rope:] = attention.kv_a_proj_with_mqa.weight[-rope:][order]
        queries = attention.q_proj if attention.q_proj is not None else attention.q_b_proj
        heads = queries.weight.view(config.num_attention_heads, -1, queries.weight.shape[-1])
        heads[:, -rope:] = heads[:, -rope:][:, order]


def other_pairs_of_heads(model):
    """Norms and biases of a head stay where they are: only the projections' rows are taken for interleaved ones."""
    for layer in model.model.layers:
        width = layer.self_attn.head_dim
        order = torch.arange(width).view(width // 2, 2).T.flatten()
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            heads = projection.weight.view(-1, width, projection.weight.shape[-1])
            heads.copy_(heads[:, order])


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
    other_eps,
    ignored_sinks,
    wider_window,
    swapped_gate_and_up,
    ignored_clip,
    ignored_clamp,
    other_normalisation,
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
