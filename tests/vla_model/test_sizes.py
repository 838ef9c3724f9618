"""A model's settings are refused by name before torch is loaded."""

from __future__ import annotations

import pytest

from envs.errors import UserError
from vla_model.backbones.grok import Grok1Config
from vla_model.backbones.presets import FAMILIES
from vla_model.heads.action_head import DISTRIBUTIONS
from vla_model.heads.names import NAMES
from vla_model.sizes import FROM_SCRATCH, ModelConfig
from vla_model.vision.tower import TOWERS, PretrainedTower


def test_names_listed_without_importing_torch_equal_those_of_the_modules() -> None:
    assert tuple(DISTRIBUTIONS) == NAMES
    assert tuple(name for name, tower in TOWERS.items() if tower is not PretrainedTower) == FROM_SCRATCH
    assert Grok1Config.model_type in FAMILIES


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(name="nnao"), "model 'nnao' does not exist; models: nano, nano_steady, "),
        (ModelConfig(name="smol", hidden_size=64), "the decoder smol has its weights, so its width cannot be chosen"),
        (ModelConfig(vision="cnv"), "vision 'cnv' does not exist; vision: conv, vit, or the local folder"),
        (ModelConfig(vision="pretrained"), "vision 'pretrained' does not exist"),
        (ModelConfig(action_distribution="flwo"), "'flwo' does not exist; distributions: laplace, tokens, flow"),
    ],
)
def test_unknown_names_are_rejected_with_a_list_of_existing_ones(model: ModelConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.check()
