"""Foresight: its loss by hand, and a model with it and without."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_model import WORLD_SPEC, tiny_config, tiny_vla, vector

from vla_model.create import shape_of
from vla_model.heads.foresight import Foresight
from vla_model.inputs.inputs import fake_inputs
from vla_model.sizes import ModelConfig


def test_the_loss_is_the_mean_over_rows_with_a_future_of_both_readings() -> None:
    future = torch.tensor([[[1.0, 0.0], [0.0, 3.0]], [[9.0, 9.0], [9.0, 9.0]]])
    zeros = torch.zeros(2, 4)
    foresight = Foresight(from_vision=zeros, from_queries=future.flatten(1))
    # Smooth L1 of 1 and of 3 are 0.5 and 2.5; the second row has no future.
    assert foresight.loss(future, torch.tensor([True, False])).item() == pytest.approx((0.5 + 2.5) / 4)
    assert foresight.loss(future, torch.tensor([False, False])).item() == 0.0


def test_a_model_foresees_every_number_of_the_state_at_every_step_it_is_asked_for() -> None:
    foresight = tiny_vla(foreseen_steps=[5, 20, 80])(fake_inputs(tiny_config(), 2)).foresight
    assert foresight is not None
    assert foresight.from_vision.shape == foresight.from_queries.shape == (2, 3 * 4)


def test_keyframes_are_two_states_more_and_two_heatmaps_after_those_of_the_labels_in_calibrated_cameras() -> None:
    pointing = {"front": [[0, 1]], "wrist": []}
    model = tiny_vla(foreseen_steps=[5], foreseen_keyframes=True, calibrated_cameras=["front"], pointing=pointing)
    inputs = fake_inputs(model.config, 2)
    encoded, output = model.encode_observation(inputs, model.encode_instruction(inputs)), model(inputs)
    foresight, (things,) = output.foresight, output.pointing
    assert foresight is not None
    assert foresight.from_vision.shape == foresight.from_queries.shape == (2, 3 * 4)
    (hand,) = foresight.pointing
    assert torch.equal(things.logits, encoded.views["front"].heatmaps[:, :1])
    assert torch.equal(hand.logits, encoded.views["front"].heatmaps[:, 1:3])
    # Heatmaps that are even cost the logarithm of their cells, and what is out of the frame nothing.
    even = replace(foresight, pointing=(replace(hand, logits=torch.zeros(2, 2, 4, 8)),))
    places = torch.tensor([[0.1, 0.2, -0.3, 0.4], [0.5, 0.5, 2.0, 2.0]])
    assert even.pointing_loss(places).item() == pytest.approx(math.log(32))
    assert even.pointing_loss(torch.full((2, 4), 2.0)).item() == 0.0
    assert tiny_vla(foreseen_keyframes=True)(inputs).foresight.pointing == ()


def test_a_waypoint_is_a_state_and_a_heatmap_more_in_every_calibrated_camera() -> None:
    cameras = ["front", "wrist"]
    model = tiny_vla(foreseen_keyframes=True, foreseen_waypoints=True, calibrated_cameras=cameras)
    foresight = model(fake_inputs(model.config, 2)).foresight
    assert foresight.from_vision.shape == (2, 3 * 4)
    assert [pointing.logits.shape[1] for pointing in foresight.pointing] == [3, 3]
    assert model.config.hand_columns == {"front": [[0, 1], [2, 3], [4, 5]], "wrist": [[6, 7], [8, 9], [10, 11]]}
    alone = tiny_vla(foreseen_waypoints=True, calibrated_cameras=cameras)
    assert alone.config.hand_columns == {"front": [[0, 1]], "wrist": [[2, 3]]}
    assert alone.config.num_foreseen == 1


def test_a_model_acts_the_same_whether_or_not_it_learns_to_foresee() -> None:
    inputs = fake_inputs(tiny_config(), 3)
    plain, foreseeing = tiny_vla()(inputs), tiny_vla(foreseen_steps=[5])(inputs)
    assert plain.foresight is None
    assert torch.equal(plain.actions.mode(), foreseeing.actions.mode())


def test_only_what_is_to_come_can_be_foreseen() -> None:
    with pytest.raises(ValueError, match=r"foreseen_steps \[5, 0\]"):
        tiny_vla(foreseen_steps=[5, 0])


def test_keyframes_are_refused_where_no_gripper_makes_them() -> None:
    model = ModelConfig(foreseen_keyframes=True)
    closes = replace(vector("dx", "left_hand"), grippers=(1,))
    assert shape_of(model, replace(WORLD_SPEC, action=closes)).num_foreseen == 2
    with pytest.raises(ValueError, match=r"names no action as one \(VectorSpec\.grippers\); actions: dx, dy"):
        shape_of(model, replace(WORLD_SPEC, action=vector("dx", "dy")))


def test_waypoints_are_refused_where_the_state_does_not_say_where_the_hand_is() -> None:
    joints = replace(vector("a", "b", "c", "d"), units=("m", "m", "rad", "m"))
    with pytest.raises(ValueError, match=r"not say where it is \(VectorSpec\.position\); its state: a, b, c, d"):
        shape_of(ModelConfig(foreseen_waypoints=True), replace(WORLD_SPEC, state=joints))
