"""The loss of behaviour cloning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sides_policy import sides_model
from tiny_model import STATISTICS, WORLD_SPEC, observe, tiny_config

from agent.algorithms.sft import SFTBatch, SFTEncoder, fake_batch, sft_loss
from agent.algorithms.sft_config import SFTConfig
from envs.types import OUTSIDE
from rollout.dataset.batches import Batch
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import sizes_of


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    model = sides_model(foreseen_steps=[2, 8], foreseen_keyframes=True, calibrated_cameras=["front"])
    config = SFTConfig(
        localization_weight=2.0,
        pointing_weight=0.7,
        foresight_weight=5.0,
        hand_pointing_weight=0.4,
        load_balancing_weight=0.1,
        router_z_weight=0.3,
    )
    loss, terms = sft_loss(model, fake_batch(model.config, 4), config)
    weights = {"action": 1.0, "localization": 2.0, "pointing": 0.7, "foresight": 5.0, "hand_pointing": 0.4}
    weights |= {"load_balancing": 0.1, "router_z": 0.3}
    del weights["pointing"]  # the labels of this world are in no frame
    assert {name.removeprefix("loss/") for name in terms} == weights.keys() | {"total"}
    assert loss.item() == pytest.approx(sum(w * terms[f"loss/{name}"].item() for name, w in weights.items()), rel=1e-5)
    assert terms["loss/foresight"] > 0
    assert terms["loss/hand_pointing"] > 0


def learned(model: VLA, batch: SFTBatch, config: SFTConfig, term: str) -> tuple[float, float]:
    """A term of the loss before and after 40 steps on one batch."""
    optimizer, seen = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(40):
        loss, terms = sft_loss(model, batch, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(terms[term]))
    return seen[0], seen[-1]


def test_foresight_is_trained_where_the_future_is_known() -> None:
    model = sides_model(foreseen_steps=[2, 8]).train()
    batch = fake_batch(model.config, 8)
    unknown = replace(batch, future_known=torch.zeros(8, dtype=torch.bool))
    only = SFTConfig(foresight_weight=10.0)
    assert sft_loss(model, unknown, only)[1]["loss/foresight"] == 0.0
    first, last = learned(model, batch, only, "loss/foresight")
    assert last < 0.3 * first


def test_after_a_demonstrations_end_only_the_gripper_has_labels_its_last_command() -> None:
    observation, config = observe(1), tiny_config()
    ended = np.array([[False, False, True, True]])
    batch = Batch(
        frames=observation["frames"],
        state=observation["state"],
        instruction_id=np.zeros(1, np.int64),
        action=np.zeros((1, 4, 3), np.float32),
        mask=~ended,
        ended=ended,
        localization=np.zeros((1, 2), np.float32),
        episode=np.zeros(1, np.int64),
    )
    encoded = SFTEncoder(Processor.from_statistics(WORLD_SPEC, STATISTICS), ["lift it"], config, seed=0)(batch, 0)
    assert WORLD_SPEC.action.grippers == (2,)
    assert encoded.gripper_at_end.tolist() == [[[False] * 3] * 2 + [[False, False, True]] * 2]
    model = VLA(config).train()
    touched = {}
    for hold in (False, True):
        output = model(encoded.inputs, mask=encoded.mask)
        taught = encoded.mask[:, :, None] | encoded.gripper_at_end if hold else encoded.mask
        _, terms = sft_loss(model, encoded, SFTConfig(hold_gripper=hold))
        assert terms["loss/action"] == output.actions.loss(encoded.actions, taught)
        touched[hold] = terms["loss/action"].item()
    assert touched[False] != touched[True]


def test_future_hand_pixels_are_labels_in_calibrated_cameras_only() -> None:
    # u = x / z, v = y / z.
    projection = (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    front, wrist = WORLD_SPEC.cameras
    spec = replace(WORLD_SPEC, cameras=(front, replace(wrist, projection=projection)))
    cameras = sizes_of(spec)["calibrated_cameras"]
    config = tiny_config(foreseen_steps=[5], foreseen_keyframes=True, calibrated_cameras=cameras)
    observation = observe(2)
    future = np.zeros((2, 3, 4), np.float32)
    future[0] = [(9.0, 9.0, 9.0, 9.0), (1.0, -0.5, 2.0, 9.0), (0.0, 1.5, 1.0, 9.0)]
    batch = Batch(
        frames=observation["frames"],
        state=observation["state"],
        instruction_id=np.zeros(2, np.int64),
        action=np.zeros((2, 4, 3), np.float32),
        mask=np.ones((2, 4), bool),
        ended=np.zeros((2, 4), bool),
        localization=np.zeros((2, 2), np.float32),
        episode=np.zeros(2, np.int64),
        future_state=future,
        future_known=np.array([True, False]),
    )
    encode = SFTEncoder(Processor.from_statistics(spec, STATISTICS), ["lift it"], config, seed=0)
    places = encode(batch, 0).future_places
    assert places is not None
    assert places.tolist() == [[0.5, -0.25, 0.0, 1.5], [OUTSIDE] * 4]


def test_hand_pointing_is_trained() -> None:
    model = sides_model(foreseen_keyframes=True, calibrated_cameras=["wrist"]).train()
    only = SFTConfig(hand_pointing_weight=10.0)
    first, last = learned(model, fake_batch(model.config, 8), only, "loss/hand_pointing")
    assert last < 0.8 * first


def test_a_model_without_foresight_has_no_foresight_loss() -> None:
    model = sides_model()
    _, terms = sft_loss(model, fake_batch(model.config, 4), SFTConfig())
    assert terms.keys().isdisjoint({"loss/foresight", "loss/hand_pointing"})
