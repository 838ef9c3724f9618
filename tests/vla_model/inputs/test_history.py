"""Looking back: which observations, that what is kept is what a learner computes, and that episodes keep their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_model import observe, tiny_config, tiny_processor, tiny_vla

from envs.arrays import rows_of
from envs.types import Observation
from vla_model.inputs.history import newest_not_after, past_steps
from vla_model.inputs.inputs import fake_inputs
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import load_policy, save_policy

LENGTH, STRIDE = 2, 3


def test_the_history_is_oldest_first_and_padded_with_the_first_step() -> None:
    assert past_steps(10, 3, 2).tolist() == [4, 6, 8]
    assert past_steps([0, 3, 4], 2, 3).tolist() == [[0, 0], [0, 0], [0, 1]]
    assert past_steps([5, 6], 0, 1).shape == (2, 0)


def test_a_step_is_represented_by_the_newest_observation_that_is_not_newer() -> None:
    assert newest_not_after([0, 2, 4, 6], np.array([0, 1, 2, 5, 9])).tolist() == [0, 0, 1, 2, 3]
    assert newest_not_after([3, 5], np.array([0, 4])).tolist() == [0, 0]


def looking_back(**changes: Any) -> VLAPolicy:
    config: dict[str, Any] = {"history_length": LENGTH, "history_stride": STRIDE}
    return VLAPolicy(tiny_vla(**(config | changes)), tiny_processor(), dtype="float32")


def at(step: int | list[int], num_worlds: int = 2) -> Observation:
    """What the worlds show at that step: another one in each."""
    steps = [step] * num_worlds if isinstance(step, int) else step
    shown = [observe(num_worlds, seed=s) for s in steps]
    return Observation(
        frames={name: np.stack([o["frames"][name][n] for n, o in enumerate(shown)]) for name in shown[0]["frames"]},
        state=np.stack([o["state"][n] for n, o in enumerate(shown)]),
        instruction=shown[0]["instruction"],
        step=np.array(steps),
    )


def learned(policy: VLAPolicy, steps: list[int], past: list[list[int]]) -> NDArray[np.float32]:
    """The actions that a learner computes from observations of these steps and of these before."""
    now, before = at(steps), [at([row[i] for row in past]) for i in range(LENGTH)]
    inputs = policy.processor.encode(now)
    frames = {name: np.stack([o["frames"][name] for o in before], axis=1) for name in now["frames"]}
    past_frames, past_state = policy.processor.encode_past(frames, np.stack([o["state"] for o in before], axis=1))
    with torch.inference_mode():
        inputs = replace(inputs, past_frames=past_frames, past_state=past_state)
        return policy.processor.decode(policy.model(inputs).actions.mode()).numpy()


def begin(policy: VLAPolicy, worlds: list[int]) -> None:
    instructions = at(0)["instruction"]
    policy.begin(worlds, tuple(instructions[n] for n in worlds), tuple(worlds))


def test_a_policys_output_equals_the_learners_whatever_it_has_cached() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    for step in range(9):
        actions = policy.act(range(2), at(step)).actions
        expected = learned(policy, [step] * 2, [past_steps(step, LENGTH, STRIDE).tolist()] * 2)
        np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_a_policy_called_every_second_step_uses_the_observations_it_has() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    for step in (0, 2, 4, 6, 8):
        actions = policy.act(range(2), at(step)).actions
    np.testing.assert_allclose(actions, learned(policy, [8, 8], [[2, 4]] * 2), atol=1e-5)  # wanted 2 and 5


def test_the_history_affects_the_actions() -> None:
    policy = looking_back()
    assert np.abs(learned(policy, [8, 8], [[2, 5]] * 2) - learned(policy, [8, 8], [[5, 2]] * 2)).max() > 1e-4


def test_beginning_an_episode_clears_the_history_of_that_world_only() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    for step in range(5):
        policy.act(range(2), at(step))
    begin(policy, [1])
    actions = policy.act(range(2), at([5, 0])).actions
    np.testing.assert_allclose(actions, learned(policy, [5, 0], [[0, 2], [0, 0]]), atol=1e-5)
    alone = policy.act([1], rows_of(at([6, 1]), [1])).actions
    np.testing.assert_allclose(alone, learned(policy, [6, 1], [[0, 3], [0, 0]])[1:], atol=1e-5)


def test_acting_again_at_the_same_or_an_earlier_step_continues_from_there() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    first = policy.act(range(2), at(0)).actions
    for step in (3, 3, 6):
        again = policy.act(range(2), at(step)).actions
    np.testing.assert_allclose(again, learned(policy, [6, 6], [[0, 3]] * 2), atol=1e-5)
    np.testing.assert_allclose(policy.act(range(2), at(0)).actions, first, atol=1e-5)


def test_observations_older_than_the_history_are_dropped() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    for step in range(50):
        policy.act(range(2), at(step))
    assert [episode.history.steps for episode in policy._episodes.values()] == [list(range(43, 50))] * 2


def test_an_observation_without_its_step_is_refused_where_it_is_needed() -> None:
    policy = looking_back()
    begin(policy, [0, 1])
    with pytest.raises(ValueError, match=r"needs its 'step'.*it has: frames, state, instruction"):
        policy.act(range(2), observe(2))
    without = looking_back(history_length=0)
    begin(without, [0, 1])
    np.testing.assert_array_equal(without.act(range(2), observe(2)).actions, without.act(range(2), at(0)).actions)


def test_inputs_without_history_are_rejected_by_a_model_with_history() -> None:
    with pytest.raises(ValueError, match="uses 2 past observations, and the inputs have none"):
        tiny_vla(history_length=2)(fake_inputs(tiny_config(), 1))


def test_a_model_without_history_has_no_weights_for_it() -> None:
    plain, other = tiny_vla(), tiny_vla(history_length=2)
    assert other.state_dict().keys() - plain.state_dict().keys() == {"ages"}
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in plain.state_dict().items())


def test_gradients_reach_past_frames() -> None:
    model = tiny_vla(history_length=2).train()
    inputs = fake_inputs(model.config, 3)
    prefix = model.encode_instruction(inputs)
    past = model.encode_history(inputs, prefix)
    assert past is not None
    past.retain_grad()
    model.decode(
        inputs, prefix, model.encode_observation(inputs, prefix), past
    ).actions.mode().square().sum().backward()
    assert past.grad is not None and (past.grad.abs().sum((0, 2, 3)) > 0).all()
    assert model.ages is not None and model.ages.grad is not None


def test_past_frames_are_augmented_like_current_ones() -> None:
    model = tiny_vla(history_length=1)
    inputs = fake_inputs(model.config, 2)
    same = {name: frames[:, None] for name, frames in inputs.frames.items()}
    changes: dict[str, Any] = {
        "past_frames": same,
        "past_state": inputs.state[:, None],
        "shift_px": {"front": torch.tensor([[2, -1], [0, 3]]), "wrist": torch.tensor([[1, 1], [-2, 0]])},
        "light": torch.tensor([[0.6, 0.7, 0.8], [1.1, 1.0, 0.9]]),
    }
    inputs = replace(inputs, **changes)
    prefix = model.encode_instruction(inputs)
    past = model.encode_history(inputs, prefix)
    assert past is not None
    torch.testing.assert_close(past[:, 0], model.encode_observation(inputs, prefix).tokens, atol=1e-5, rtol=1e-5)


def test_a_saved_policy_with_history_gives_the_same_actions(tmp_path: Path) -> None:
    policy = looking_back()
    save_policy(tmp_path / "policy", policy.model, tiny_processor())
    model, processor = load_policy(tmp_path / "policy")
    assert model.config.history == (LENGTH, STRIDE)
    loaded = VLAPolicy(model, processor, dtype="float32")
    for acting in (policy, loaded):
        begin(acting, [0, 1])
    for step in (0, 2, 4):
        np.testing.assert_array_equal(policy.act(range(2), at(step)).actions, loaded.act(range(2), at(step)).actions)


def test_a_sequence_longer_than_the_decoders_positions_is_rejected() -> None:
    config = tiny_config(history_length=200)
    assert config.num_tokens == 24 + 201 * (2 * (4 + 1) + 1) + 4
    with pytest.raises(ValueError, match=r"up to 2239 tokens \(.*201 observations.*has 2048 positions"):
        VLA(config)
