"""Episodes that a world cannot go on with: they cost no other, and nothing is learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_world import CountingPolicy, FakeWorld, fake_spec
from numpy.typing import NDArray
from test_collect import assert_same

from envs.types import ChunkResult, EpisodeSpec, Info, Observation
from rollout.collect import collect
from rollout.workers.workers import Workers, WorkersConfig


class Frail(FakeWorld):
    """Seed 1 cannot begin, seed 4 fails in its third step, and numbers of seed 7 are `bad` from its second step on."""

    def __init__(self, num_worlds: int, bad: str = "reward") -> None:
        super().__init__(num_worlds)
        self.bad = bad

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        observation, info = super().reset_to(specs, worlds)
        broken = {n: "no layout" for n, spec in zip(worlds, specs, strict=True) if spec.seed == 1}
        self.running[list(broken)] = False
        if self.bad == "beginning":
            observation["state"][[n for n in worlds if self._seed(n) == 7]] = np.nan
        return observation, info | {"broken": broken}

    def step_chunk(self, actions: NDArray[np.float32], **options: Any) -> ChunkResult:
        assert np.isfinite(actions).all()
        before = self.steps.copy()
        result = super().step_chunk(actions, **options)
        broken = frozenset(n for n in range(self.num_envs) if self._seed(n) == 4 and before[n] >= 2 and self.running[n])
        self.running[list(broken)] = False
        values = {
            "reward": result.reward,
            "state": result.states,
            "localization": result.localization,
            "reward term 'alive'": result.reward_terms["alive"],
        }
        for n in range(self.num_envs):
            if self._seed(n) == 7 and self.bad in values:
                values[self.bad][n, max(0, 1 - int(before[n])) :] = np.inf
        failure = tuple("it broke" if n in broken else why for n, why in enumerate(result.failure))
        ended = result.terminated | np.isin(np.arange(self.num_envs), list(broken))
        return replace(result, broken=broken, failure=failure, terminated=ended)

    def _seed(self, n: int) -> int | None:
        spec = self.specs[n]
        return spec.seed if spec else None


@pytest.mark.parametrize("bad", ["reward", "state", "localization", "reward term 'alive'", "beginning"])
def test_an_episode_whose_world_fails_has_no_rows_and_does_not_affect_others(bad: str) -> None:
    specs = [fake_spec(s) for s in range(10)]
    sound = {t.spec: t for t in collect(CountingPolicy(), FakeWorld(3), specs)}
    found = {t.spec: t for t in collect(CountingPolicy(), Frail(3, bad), specs)}
    assert found.keys() == sound.keys()
    broken = {spec.seed: t.failure for spec, t in found.items() if t.broken}
    value = "the state is not finite at the first step" if bad == "beginning" else f"the {bad} is inf (step 2)"
    assert broken == {n: f"its world failed: {why}" for n, why in {1: "no layout", 4: "it broke", 7: value}.items()}
    for spec, trajectory in found.items():
        if not trajectory.broken:
            assert_same(trajectory, sound[spec])
        else:
            assert (trajectory.num_steps, trajectory.success, trajectory.terminated) == (0, False, True)
            assert {len(column) for column in (trajectory.state, trajectory.reward, trajectory.frames["front"])} == {0}


def test_collect_continues_after_a_batch_in_which_every_reset_failed() -> None:
    specs = [replace(fake_spec(1), repeat=i) for i in range(5)] + [fake_spec(2)]
    assert [t.broken for t in collect(CountingPolicy(), Frail(2), specs)] == [True] * 5 + [False]


def test_workers_omit_episodes_whose_world_failed_and_report_the_reason() -> None:
    with Workers(lambda: Frail(3), lambda _: CountingPolicy(), WorkersConfig(workers=0)) as workers:
        found = {t.spec.seed for t in workers.collect([fake_spec(s) for s in range(10)])}
    assert found == {0, 2, 3, 5, 6, 8, 9}
    assert {spec.seed: why for spec, why in workers.report.broken.items()} == {
        1: "its world failed: no layout",
        4: "its world failed: it broke",
        7: "its world failed: the reward is inf (step 2)",
    }
    assert "set aside: fake/count/train/1, its world failed: no layout" in workers.report.lines()


def test_a_world_that_fails_in_every_episode_aborts_the_collect_with_the_reason() -> None:
    with Workers(lambda: Frail(3), lambda _: CountingPolicy(), WorkersConfig(workers=0)) as workers:
        with pytest.raises(ValueError, match=r"none of the first 16 .* of the last one its world failed: no layout"):
            list(workers.collect([replace(fake_spec(1), repeat=i) for i in range(40)]))
        assert len(workers.report.broken) == 16
