"""The activations of one prompt's last position, for whoever looks for the layer where two implementations part."""

import json

import torch

import weights


def listed(tensor):
    """The last position of [1, positions, width] or [positions, width]."""
    return tensor.reshape(-1, tensor.shape[-1])[-1].tolist()


@torch.no_grad()
def of(directory, case) -> dict:
    """For each layer: its attention and MLP (before the residual), the router's choice, and the layer's output."""
    model = weights.load(directory)
    prompt = json.loads((directory / "expected.json").read_text())["cases"][case]["prompt"]
    layers = [{} for _ in model.model.layers]
    for layer, seen in zip(model.model.layers, layers, strict=True):

        def keep(name, pick=lambda output: output, seen=seen):
            return lambda _module, _inputs, output: seen.__setitem__(name, listed(pick(output)))

        layer.input_layernorm.register_forward_hook(keep("input_layernorm"))
        layer.self_attn.register_forward_hook(keep("self_attn", lambda output: output[0]))
        layer.mlp.register_forward_hook(keep("mlp"))
        layer.register_forward_hook(keep("output"))
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.register_forward_hook(keep("router_logits", lambda output: output[0]))
            layer.mlp.gate.register_forward_hook(keep("router_weights", lambda output: output[1]))
            layer.mlp.gate.register_forward_hook(keep("router_experts", lambda output: output[2]))
    whole = {}
    model.model.embed_tokens.register_forward_hook(lambda *call: whole.__setitem__("embed", listed(call[2])))
    model.model.norm.register_forward_hook(lambda *call: whole.__setitem__("norm", listed(call[2])))
    logits = model(torch.tensor([prompt]), use_cache=False).logits
    rope = {"inv_freq": model.model.rotary_emb.inv_freq.tolist(), "factor": model.model.rotary_emb.attention_scaling}
    softmax_scale = model.model.layers[0].self_attn.scaling
    return whole | {"rope": rope, "softmax_scale": softmax_scale, "layers": layers, "logits": listed(logits)}
