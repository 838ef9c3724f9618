"""GRPO's groups and advantages against hand-computed numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from sides_rollouts import rollouts

from agent.algorithms.grpo import collect_groups, grpo_advantages
from agent.algorithms.grpo_config import GRPOConfig
from envs.types import EpisodeSpec
from rollout.types import Trajectory

CONFIG = GRPOConfig(group_size=4, max_rounds=3)


@lru_cache(maxsize=1)
def template() -> Trajectory:
    return rollouts(1)[0]


def episode(seed: int, repeat: int, *, success: bool, num_steps: int = 2) -> Trajectory:
    spec = EpisodeSpec(suite="sides", task="left", seed=seed, repeat=repeat)
    return replace(template(), spec=spec, success=success, action=np.zeros((num_steps, 1), np.float32))


def test_advantages_of_a_group_match_hand_computed_values_with_length_normalisation() -> None:
    # 1 of 4 won: mean 1/4, standard deviation sqrt(3)/4, so sqrt(3) for the winner and -1/sqrt(3) for the others
    lengths = (1, 2, 2, 3)
    group = [episode(7, i, success=i == 0, num_steps=n) for i, n in enumerate(lengths)]
    rollout_batch = grpo_advantages(group, CONFIG)
    found = [credit.advantage.tolist() for credit in rollout_batch.advantages]
    for advantages, n, expected in zip(found, lengths, (3**0.5, *[-(3**-0.5)] * 3), strict=True):
        assert advantages == pytest.approx([expected] * n, rel=1e-4)
    for credit, n in zip(rollout_batch.advantages, lengths, strict=True):
        assert credit.weight.tolist() == pytest.approx([2 / n] * n)  # the mean length is 2
    assert np.concatenate([c.weight for c in rollout_batch.advantages]).mean() == pytest.approx(1.0)
    assert sum(a[0] for a in found) == pytest.approx(0.0, abs=1e-5)


def test_without_standardising_an_advantage_is_the_return_minus_the_mean() -> None:
    group = [episode(7, i, success=i == 0) for i in range(4)]
    rollout_batch = grpo_advantages(group, replace(CONFIG, standardise=False))
    assert [c.advantage[0] for c in rollout_batch.advantages] == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_groups_with_uniform_returns_are_dropped() -> None:
    won, lost = ([episode(seed, i, success=seed == 1) for i in range(4)] for seed in (1, 2))
    mixed = [episode(3, i, success=i < 2) for i in range(4)]
    rollout_batch = grpo_advantages([*lost, *mixed, *won], CONFIG)
    assert {t.spec.seed for t in rollout_batch.trajectories} == {3}
    assert rollout_batch.metrics == {"groups/all": 3.0, "groups/mixed": 1.0}
    assert grpo_advantages(won, CONFIG).trajectories == []


@pytest.mark.parametrize(("mixed_from", "rounds"), [(0, [3]), (100, [3, 3]), (10**6, [3, 3, 3])])
def test_uniform_groups_are_resampled_until_enough_are_mixed_or_max_rounds(mixed_from: int, rounds: list[int]) -> None:
    requested: list[int] = []

    def specs(round_: int) -> list[EpisodeSpec]:
        return [EpisodeSpec(suite="sides", task="left", seed=100 * round_ + i) for i in range(3)]

    def run(wanted: Sequence[EpisodeSpec]) -> Iterator[Trajectory]:
        requested.append(len(wanted) // CONFIG.group_size)
        for spec in wanted:
            yield episode(spec.seed, spec.repeat, success=spec.repeat == 0 and spec.seed >= mixed_from)

    found = collect_groups(run, specs, CONFIG)
    assert requested == rounds
    assert len(found) == sum(rounds) * CONFIG.group_size


def test_only_missing_groups_are_resampled() -> None:
    requested: list[int] = []

    def run(wanted: Sequence[EpisodeSpec]) -> Iterator[Trajectory]:
        requested.append(len(wanted) // CONFIG.group_size)
        for spec in wanted:
            yield episode(spec.seed, spec.repeat, success=spec.repeat == 0 and spec.seed != 1)

    collect_groups(run, lambda r: [EpisodeSpec(suite="s", task="t", seed=10 * r + i) for i in range(3)], CONFIG)
    assert requested == [3, 1]


def test_a_group_shares_its_initial_state_and_differs_in_sampled_actions() -> None:
    first, second = rollouts(1, repeats=2)[:2]
    assert first.spec.id == "sides/left/train/0"
    assert second.spec.id == "sides/left/train/0/1"
    for camera in first.frames:
        np.testing.assert_array_equal(first.frames[camera][0], second.frames[camera][0])
    assert first.sampled is not None
    assert second.sampled is not None
    assert not np.array_equal(first.sampled[0], second.sampled[0])
