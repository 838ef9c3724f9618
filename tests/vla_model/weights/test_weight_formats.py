"""Policies that hold their weights in fewer bits, against the same policy in full."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import toy_configs
from numpy.typing import NDArray
from tiny_model import observe, tiny_processor, tiny_vla
from torch import nn

from vla_model.numerics.dtypes import DtypeName
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import save_policy
from vla_model.weights.weight_formats import Int8Linear, hold_weights


def saved(folder: Path, **changes: Any) -> Path:
    """Weights whose embeddings are numbers that bfloat16 has."""
    model = tiny_vla(**changes)
    table = model.backbone.decoder.get_input_embeddings().get_parameter("weight")
    table.data = table.data.bfloat16().float()
    save_policy(folder, model, tiny_processor())
    return folder


def actions(folder: Path, dtype: DtypeName) -> NDArray[np.float32]:
    policy = VLAPolicy.from_pretrained(folder, dtype=dtype)
    return acted(policy)


def acted(policy: VLAPolicy) -> NDArray[np.float32]:
    observation = observe(4)
    policy.begin(range(4), observation["instruction"], seeds=(0, 1, 2, 3))
    return policy.act(range(4), observation).actions


def test_weights_cast_once_give_the_actions_of_autocast(tmp_path: Path) -> None:
    folder = saved(tmp_path / "policy")
    whole = VLAPolicy.from_pretrained(folder)
    each_time = VLAPolicy(whole.model, whole.processor, dtype="bfloat16")
    assert whole.model.backbone.decoder.dtype == torch.float32
    np.testing.assert_array_equal(actions(folder, "bfloat16"), acted(each_time))


def test_an_8_bit_layer_equals_its_formula_and_approximates_the_layer() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(48, 20)
    rounded = Int8Linear(layer)
    scale = layer.weight.abs().amax(1, keepdim=True) / 127
    weight = (layer.weight / scale).round()
    assert weight.abs().max() == 127
    torch.testing.assert_close(rounded.values.float(), weight)
    x = torch.randn(3, 5, 48)
    x[0, 0] = 0.0
    step = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
    expected = (x / step).round() @ weight.T * step * scale[:, 0] + layer.bias
    with torch.inference_mode():
        y = rounded(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    error = (y - layer(x)).norm() / layer(x).norm()
    assert 0.0 < error < 0.02


@pytest.mark.parametrize("family", toy_configs())
def test_every_family_gives_similar_actions_in_low_precision(family: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "policy", backbone=toy_configs()[family])
    whole = actions(folder, "float32")
    spread = whole.std()
    for dtype, share in (("bfloat16", 0.1), ("int8", 0.2)):
        assert np.abs(actions(folder, dtype) - whole).mean() < share * spread, dtype


def test_a_vision_transformer_runs_in_bfloat16(tmp_path: Path) -> None:
    folder = saved(tmp_path / "policy", vision="vit", vision_channels=16, vision_patch_px=8)
    whole = actions(folder, "float32")
    assert np.abs(actions(folder, "bfloat16") - whole).mean() < 0.1 * whole.std()


def test_8_bit_policies_need_a_quarter_of_the_memory_can_be_pickled_and_reject_other_weights(tmp_path: Path) -> None:
    folder = saved(tmp_path / "policy")
    policy = VLAPolicy.from_pretrained(folder, dtype="int8")
    decoder = policy.model.backbone.decoder
    layers = [m for m in decoder.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 2 * 7
    assert not any(isinstance(m, nn.Linear) for m in decoder.modules())
    assert {m.values.dtype for m in layers} == {torch.int8}
    np.testing.assert_array_equal(acted(pickle.loads(pickle.dumps(policy))), acted(policy))  # noqa: S301
    with pytest.raises(ValueError, match="cannot load other weights"):
        policy.load_weights(1, policy.model.state_dict())
    with pytest.raises(ValueError, match="choose bfloat16"):
        policy.to("meta")
    with pytest.raises(ValueError, match="model is on meta"):
        hold_weights(tiny_vla().to("meta"), "int8")


def test_the_dtype_of_the_decoders_activations_is_kept(tmp_path: Path) -> None:
    policy = VLAPolicy.from_pretrained(saved(tmp_path / "policy"), dtype="bfloat16")
    decoder = policy.model.backbone.decoder
    assert policy.model.backbone.dtype == torch.float32
    assert decoder.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in decoder.parameters() if p.ndim < 2} == {torch.float32}
    assert policy.model.queries.dtype == torch.float32
