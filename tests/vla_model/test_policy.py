"""The policy: episodes that begin at different times, draws that depend on the episode, and its errors."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_model import SENTENCES, observe, tiny_processor, tiny_vla

from envs.arrays import rows_of
from envs.types import Observation
from vla_model.heads.action_head import DISTRIBUTIONS
from vla_model.inputs.inputs import ModelInputs
from vla_model.numerics.precision import has_native_bf16
from vla_model.numerics.row_graphs import RowGraphs
from vla_model.policy import VLAPolicy
from vla_model.types import ActionChunk


def policy(changes: dict[str, Any] | None = None, **kwargs: Any) -> VLAPolicy:
    """Of a tiny model whose config has these changes."""
    defaults: dict[str, Any] = {"dtype": "float32"}
    return VLAPolicy(tiny_vla(**(changes or {})), tiny_processor(), **(defaults | kwargs))


def begin(policy: VLAPolicy, worlds: list[int], observation: Observation, seeds: list[int] | None = None) -> None:
    instructions = tuple(observation["instruction"][n] for n in worlds)
    policy.begin(worlds, instructions, tuple(seeds or worlds))


def act(policy: VLAPolicy, observation: Observation) -> ActionChunk:
    """In the worlds 0, 1, ..., as many as the observation has rows."""
    return policy.act(range(len(observation["state"])), observation)


def fresh_actions(observation: Observation, **kwargs: Any) -> NDArray[np.float32]:
    other = policy(**kwargs)
    begin(other, list(range(len(observation["state"]))), observation)
    return act(other, observation).actions


def test_actions_are_a_chunk_of_float32_in_range_for_every_world() -> None:
    actions = fresh_actions(observe(5))
    assert actions.shape == (5, 4, 3)
    assert actions.dtype == np.float32
    assert np.abs(actions).max() <= 1.0


def test_tensor_observations_give_the_same_actions_as_tensors() -> None:
    seen = observe(3)
    frames = {camera: torch.from_numpy(frames) for camera, frames in seen["frames"].items()}
    actions = fresh_actions(Observation(**(seen | {"frames": frames, "state": torch.from_numpy(seen["state"])})))
    assert isinstance(actions, torch.Tensor)
    assert actions.dtype == torch.float32
    np.testing.assert_array_equal(actions.numpy(), fresh_actions(seen))


def test_an_unpickled_policy_gives_the_same_actions() -> None:
    stayed, observation = policy(), observe(3)
    begin(stayed, [0, 1, 2], observation)
    sent = pickle.loads(pickle.dumps(policy()))  # noqa: S301  as Ray does between our own processes
    begin(sent, [0, 1, 2], observation)
    np.testing.assert_array_equal(act(sent, observation).actions, act(stayed, observation).actions)


def test_moving_a_policy_to_a_device_ends_its_episodes() -> None:
    moved, observation = policy(), observe(3)
    begin(moved, [0, 1, 2], observation)
    assert moved.to("auto") is moved
    assert next(moved.model.parameters()).is_cuda == torch.cuda.is_available()
    with pytest.raises(ValueError, match="call begin first"):
        act(moved, observation)
    assert {p.device.type for p in moved.to("meta").model.parameters()} == {"meta"}


def test_a_cached_prefix_gives_the_actions_of_a_fresh_one() -> None:
    kept = policy()
    begin(kept, [0, 1, 2], observe(3))
    for seed in range(3):
        observation = observe(3, seed=seed)
        np.testing.assert_allclose(act(kept, observation).actions, fresh_actions(observation), atol=1e-5)


def test_worlds_that_begin_at_different_times_do_not_affect_each_other() -> None:
    kept, observation = policy(), observe(3)
    begin(kept, [0, 1, 2], observation)
    act(kept, observation)
    for world, sentence in ((1, SENTENCES[3]), (0, SENTENCES[1]), (1, SENTENCES[0])):
        instructions = list(observation["instruction"])
        instructions[world] = sentence
        observation = Observation(**(observe(3, seed=world) | {"instruction": tuple(instructions)}))
        begin(kept, [world], observation)
        together = act(kept, observation).actions
        np.testing.assert_allclose(together, fresh_actions(observation), atol=1e-5)
        for n in range(3):
            alone = Observation(
                frames={name: frames[n : n + 1] for name, frames in observation["frames"].items()},
                state=observation["state"][n : n + 1],
                instruction=(instructions[n],),
            )
            np.testing.assert_allclose(together[n : n + 1], fresh_actions(alone), atol=1e-5)


def test_the_number_of_attended_tokens_does_not_depend_on_other_instructions() -> None:
    # Over another number of them its sums are rounded otherwise, and an episode would depend on who acts beside it.
    kept, lengths = policy(), []

    def note_length(_: object, __: object, kwargs: dict[str, Any]) -> None:
        lengths.append(kwargs["attention_mask"].shape[1])

    kept.model.backbone.decoder.register_forward_pre_hook(note_length, with_kwargs=True)
    for instructions in (("lift it",), ("lift it", SENTENCES[3]), ("lift it", "go on and " * 10)):
        observation = observe(len(instructions), instructions=instructions)
        begin(kept, list(range(len(instructions))), observation)
        act(kept, observation)
    assert lengths == [24, kept.model.config.num_tokens] * 3


def test_the_instruction_given_to_begin_is_used() -> None:
    observation = observe(1)
    lies = Observation(**(observation | {"instruction": ("something else entirely",)}))
    kept = policy()
    begin(kept, [0], observation)
    np.testing.assert_array_equal(act(kept, lies).actions, act(kept, observation).actions)
    assert np.abs(fresh_actions(lies) - fresh_actions(observation)).max() > 1e-6


def test_the_worlds_of_an_observations_rows_must_be_named() -> None:
    kept, observation = policy(), observe(3)
    with pytest.raises(ValueError, match=r"no episode began in worlds \[0, 1, 2\]; call begin first"):
        act(kept, observation)
    begin(kept, [0, 2], observation)
    with pytest.raises(ValueError, match=r"no episode began in worlds \[1\]; call begin first"):
        act(kept, observation)
    for worlds in ([0], [0, 1, 2, 3], [0, 2, 2]):
        with pytest.raises(ValueError, match=r"observation has 3 rows, expected one for each of the worlds \[0"):
            kept.act(worlds, observation)
    some = rows_of(observation, [0, 2])
    np.testing.assert_allclose(kept.act([0, 2], some).actions, fresh_actions(observation)[[0, 2]], atol=1e-5)


def test_begin_needs_one_instruction_and_one_seed_per_world() -> None:
    with pytest.raises(ValueError, match="2 worlds begin, with 1 instructions and 2 seeds"):
        policy().begin(range(2), ("push",), (1, 2))


def test_samples_depend_on_the_episode_and_not_on_its_world() -> None:
    observation = observe(1)
    twice = Observation(
        frames={name: np.concatenate([frames, frames]) for name, frames in observation["frames"].items()},
        state=np.concatenate([observation["state"]] * 2),
        instruction=observation["instruction"] * 2,
    )
    acting = policy(sample=True)
    begin(acting, [0, 1], twice, seeds=[7, 8])
    first, second = act(acting, twice).actions, act(acting, twice).actions
    assert np.abs(first[0] - first[1]).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3
    swapped = policy(sample=True)
    begin(swapped, [0, 1], twice, seeds=[8, 7])
    np.testing.assert_allclose(act(swapped, twice).actions, first[::-1], atol=1e-5)
    other = policy(sample=True, seed=1)
    begin(other, [0, 1], twice, seeds=[7, 8])
    assert np.abs(act(other, twice).actions - first).max() > 1e-3


@pytest.mark.parametrize("noise_correlation", [0.0, 0.9])
def test_samples_do_not_depend_on_the_other_worlds_in_the_call(noise_correlation: float) -> None:
    def sampled(beside: tuple[list[int], ...]) -> NDArray[np.float32]:
        acting = policy(sample=True, noise_correlation=noise_correlation, n_action_steps=2)
        begin(acting, [0, 1, 2], observation)
        return np.stack([acting.act(w, rows_of(observation, w)).actions[w.index(2)] for w in beside])

    observation = observe(3)
    together, dwindling = sampled(([0, 1, 2],) * 3), sampled(([0, 1, 2], [1, 2], [2]))
    np.testing.assert_allclose(dwindling, together, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_noise_may_be_correlated_across_decisions() -> None:
    observation = observe(1)

    def twice(**kwargs: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        acting = policy(sample=True, **kwargs)
        begin(acting, [0], observation)
        first, second = (act(acting, observation).sampled for _ in range(2))
        assert first is not None
        assert second is not None
        return first, second

    (first, second), (other, another) = twice(noise_correlation=0.9999, n_action_steps=2), twice()
    assert np.abs(second - first).mean() < 0.1 * np.abs(another - other).mean()
    with pytest.raises(ValueError, match="below 1, got 1"):
        policy(noise_correlation=1.5)


def test_acting_leaves_no_gradients_and_no_training_mode() -> None:
    acting = policy()
    acting.model.train()
    begin(acting, [0], observe(1))
    act(acting, observe(1))
    assert not acting.model.training
    assert all(p.grad is None for p in acting.model.parameters())


def test_a_policy_can_act_in_any_of_its_worlds_in_any_order() -> None:
    kept, observation = policy(sample=True), observe(4)
    begin(kept, [0, 1, 2, 3], observation)
    expected = fresh_actions(observation, sample=True)
    for worlds in ([2, 0], [3]):
        chunk = kept.act(worlds, rows_of(observation, worlds))
        np.testing.assert_allclose(chunk.actions, expected[worlds], atol=1e-5)
        assert chunk.expert_usage is not None and chunk.expert_usage.shape == (len(worlds), 2, 4)
    kept.forget([0, 2, 3])
    np.testing.assert_allclose(kept.act([1], rows_of(observation, [1])).actions[0], expected[1], atol=1e-5)
    with pytest.raises(ValueError, match=r"no episode began in worlds \[0, 2, 3\]"):
        act(kept, observation)


def test_a_policy_with_loaded_weights_equals_one_created_with_them() -> None:
    observation, kept, other = observe(2), policy(), tiny_vla()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.25)
    begin(kept, [0, 1], observation)
    before = act(kept, observation).actions
    kept.load_weights(7, other.state_dict())
    assert kept.version == 7
    with pytest.raises(ValueError, match="no episode began"):
        act(kept, observation)
    begin(kept, [0, 1], observation)
    fresh = VLAPolicy(other, tiny_processor(), dtype="float32")
    begin(fresh, [0, 1], observation)
    np.testing.assert_array_equal(act(kept, observation).actions, act(fresh, observation).actions)
    assert np.abs(act(kept, observation).actions - before).max() > 1e-3


def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing() -> None:
    observation, kept = observe(1), policy()
    weights = {name: tensor * 2 for name, tensor in kept.model.state_dict().items()}
    lacking, *others, bent = sorted(weights)
    wrong = {name: weights[name] for name in others} | {bent: weights[bent][None], "head.new": torch.zeros(1)}
    with pytest.raises(ValueError, match="weights of version 3 do not fit") as caught:
        kept.load_weights(3, wrong)
    assert f"{lacking} is missing" in str(caught.value)
    assert "head.new is not of this model" in str(caught.value)
    shape = tuple(weights[bent].shape)
    assert f"{bent} has shape {(1, *shape)}, expected {shape}" in str(caught.value)
    assert kept.version == 0
    begin(kept, [0], observation)
    np.testing.assert_array_equal(act(kept, observation).actions, fresh_actions(observation))


def test_auto_computes_in_bfloat16_only_where_the_processor_can() -> None:
    observation = observe(2)
    automatic, rough = fresh_actions(observation, dtype="auto"), fresh_actions(observation, dtype="bfloat16")
    np.testing.assert_allclose(rough, fresh_actions(observation), atol=0.1)
    native = has_native_bf16(torch.device("cpu"))
    expected = rough if native else fresh_actions(observation)
    np.testing.assert_array_equal(automatic, expected)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_log_prob_of_a_sample_equals_the_learners_in_another_batch(distribution: str) -> None:
    acting = policy({"value_head": True, "action_distribution": distribution}, sample=True)
    observation = observe(5)
    begin(acting, [0, 1, 2, 3, 4], observation)
    chunk = act(acting, observation)
    assert chunk.log_prob is not None and chunk.sampled is not None and chunk.value is not None
    assert chunk.log_prob.shape == chunk.value.shape == (5, 4)
    assert chunk.log_prob.dtype == chunk.sampled.dtype == chunk.value.dtype == np.float32
    inputs: ModelInputs = acting.processor.encode(observation)
    for rows in ([0, 1, 2, 3, 4], [3, 1], [2]):
        output = acting.model(inputs.rows(torch.tensor(rows)))
        again = output.actions.log_prob(torch.from_numpy(chunk.sampled[rows]))
        assert np.abs(again.detach().numpy() - chunk.log_prob[rows]).max() < 1e-5
        np.testing.assert_allclose(output.values.detach(), chunk.value[rows], atol=1e-5)
        first = output.actions.log_prob(torch.from_numpy(chunk.sampled[rows, :1]))
        np.testing.assert_allclose(first.detach(), chunk.log_prob[rows, :1], atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_decisions_in_a_graphs_buffers_are_those_without(distribution: str, sample: bool, device: str) -> None:
    changes = {"action_distribution": distribution, "value_head": True}
    plain, by_graph = (policy(changes, sample=sample, dtype="bfloat16").to(device) for _ in range(2))
    plain._graphs, by_graph._graphs = None, RowGraphs(by_graph._decide)
    kept: list[ActionChunk] = []
    for worlds in ([0, 1, 2, 3, 4], [0, 2, 4], [1, 3], [0, 1, 2, 3, 4]):
        seen = rows_of(observe(5), worlds)
        expected, ours = (_begun_and_acted(each, worlds, seen) for each in (plain, by_graph))
        kept.append(ours)
        for name in ("actions", "sampled", "log_prob", "value", "expert_usage"):
            one, other = getattr(ours, name), getattr(expected, name)
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_allclose(one, other, atol=0.05, rtol=0.05, err_msg=name)
    np.testing.assert_allclose(kept[0].actions, kept[-1].actions, atol=0.05, err_msg="a result is not overwritten")


def _begun_and_acted(policy: VLAPolicy, worlds: list[int], seen: Observation) -> ActionChunk:
    policy.begin(worlds, seen["instruction"], tuple(worlds))
    return policy.act(worlds, seen)


def test_without_sampling_there_is_no_log_prob_and_without_a_value_head_no_value() -> None:
    acting = policy()
    begin(acting, [0], observe(1))
    chunk = act(acting, observe(1))
    assert chunk.sampled is None and chunk.log_prob is None and chunk.value is None


def test_a_policy_without_an_expert_shares_the_weights_and_does_not_change_the_original() -> None:
    whole = policy()
    ablated = whole.without_expert(layer=1, expert=2)
    observation = observe(4)
    chunks = []
    for acting in (whole, ablated):
        acting.begin(range(4), observation["instruction"], seeds=(0, 1, 2, 3))
        chunks.append(act(acting, observation))
    before, without = (chunk.expert_usage for chunk in chunks)
    assert before is not None and without is not None
    np.testing.assert_array_equal(without[:, 0], before[:, 0])
    assert before[:, 1, 2].max() > 0.0
    assert without[:, 1, 2].max() == 0.0
    shared = {p.data_ptr() for p in whole.model.parameters()}
    assert {p.data_ptr() for p in ablated.model.parameters()} == shared
    with pytest.raises(ValueError, match="layers of experts: 0 to 1"):
        whole.without_expert(layer=2, expert=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_state_that_is_not_finite_is_refused_by_the_name_of_its_element(value: float) -> None:
    acting, observation = policy(), observe(3)
    begin(acting, [0, 1, 2], observation)
    expected = act(acting, observation).actions
    broken = observe(3)
    broken["state"][1, 3] = value
    with pytest.raises(ValueError, match="the state has numbers that are not finite: opening"):
        act(acting, broken)
    np.testing.assert_array_equal(act(acting, observation).actions, expected)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_non_finite_actions_raise_an_error(distribution: str, sample: bool) -> None:
    acting, observation = policy({"action_distribution": distribution}, sample=sample), observe(2)
    begin(acting, [0, 1], observation)
    acting.model.action_head.last_norm.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"actions in worlds \[0, 1\] are not finite"):
        act(acting, observation)


def test_weights_that_are_not_finite_are_refused_by_name_and_change_nothing() -> None:
    acting, observation = policy(), observe(1)
    weights = {name: tensor.clone() for name, tensor in acting.model.state_dict().items()}
    weights["queries"][0, 0] = float("nan")
    begin(acting, [0], observation)
    expected = act(acting, observation).actions
    with pytest.raises(ValueError, match="version 3 has weights that are not finite: queries"):
        acting.load_weights(3, weights)
    np.testing.assert_array_equal(act(acting, observation).actions, expected)


def test_a_truncated_instruction_is_warned_of_and_an_invalid_one_rejected() -> None:
    acting = policy()
    long = (
        "and first move the arm slowly to the far left corner of the wooden table near the window, "
        + "then lift it " * 3
    )
    with pytest.warns(UserWarning, match="longer than the 24 tokens that the policy reads"):
        acting.begin([0], (long,), (0,))
    for nothing in ("", "  "):
        with pytest.raises(ValueError, match="expected text that says what to do"):
            acting.begin([0], (nothing,), (0,))
