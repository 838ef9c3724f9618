"""Grok-1 against the equations of the public release's model.py, written out here without a cache or a batch."""

from __future__ import annotations

from pathlib import Path

import torch
from families import toy_configs
from grok_language_model import Grok1ForCausalLM
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from vla_model.backbones.grok import Grok1Config


def toy() -> Grok1ForCausalLM:
    """Weights large enough that soft caps and routers matter."""
    torch.manual_seed(0)
    config = toy_configs()["grok"]
    assert isinstance(config, Grok1Config)
    config.attn_logit_softcapping = 2.0
    model = Grok1ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10.0) if parameter.ndim > 1 else parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def norm(x: Tensor, scale: Tensor) -> Tensor:
    return scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)


def rotate(x: Tensor) -> Tensor:
    """[T, heads, head size], each head's halves turned by its position."""
    num_tokens, _, size = x.shape
    phase = torch.outer(torch.arange(num_tokens), 1e4 ** -(torch.arange(0, size, 2) / size)).repeat(1, 2)[:, None]
    first, second = x.chunk(2, dim=-1)
    return x * phase.cos() + torch.cat([-second, first], dim=-1) * phase.sin()


def attention(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    q, k, v = (
        (x @ weights[f"attn.{name}_proj.weight"].T).view(len(x), heads, 16)
        for name, heads in (("q", 4), ("k", 2), ("v", 2))
    )
    q, k = rotate(q), rotate(k)
    out = []
    for head in range(4):
        logits = 0.25 * q[:, head] @ k[:, head // 2].T
        logits = 2.0 * torch.tanh(logits / 2.0)
        logits = logits.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -1e30)
        out.append(logits.softmax(-1) @ v[:, head // 2])
    return torch.cat(out, dim=-1) @ weights["attn.o_proj.weight"].T


def experts(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    rows = []
    for token in x:
        probabilities = (weights["moe_block.gate.weight"] @ token).softmax(-1)
        total = torch.zeros_like(token)
        for e in probabilities.argsort(descending=True)[:2]:
            gate, up = (weights["moe_block.experts.gate_up_proj"][e] @ token).chunk(2)
            hidden = F.gelu(gate, approximate="tanh") * up
            total = total + probabilities[e] * (weights["moe_block.experts.down_proj"][e] @ hidden)
        rows.append(total)
    return torch.stack(rows)


def test_logits_equal_those_of_the_released_equations() -> None:
    model = toy()
    weights = model.state_dict()
    ids = torch.tensor([3, 1999, 7, 7, 250, 31])
    h = weights["model.embed_tokens.weight"][ids] * 32**0.5
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        part = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        attended = attention(part, norm(h, part["pre_attn_norm.weight"]))
        h = h + norm(attended, part["post_attn_norm.weight"])
        mixed = experts(part, norm(h, part["pre_moe_norm.weight"]))
        h = h + norm(mixed, part["post_moe_norm.weight"])
    expected = norm(h, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T / 3**0.5
    torch.testing.assert_close(model(ids[None]).logits[0], expected, atol=1e-4, rtol=1e-4)


def test_a_folder_has_the_names_of_the_published_conversion_and_loads(tmp_path: Path) -> None:
    model = toy().model
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {
        "layers.0.attn.q_proj.weight",
        "layers.1.pre_attn_norm.scale",
        "layers.1.post_moe_norm.scale",
        "layers.0.moe_block.gate.weight",
        "layers.0.moe_block.experts.3.linear_v.weight",
        "layers.0.moe_block.experts.0.linear_1.weight",
        "norm.scale",
    } <= names
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ids = torch.tensor([[3, 1999, 7]])
    assert torch.equal(loaded(ids).last_hidden_state, model(ids).last_hidden_state)
