"""Ray workers: the same trajectories as without them, each exactly once, whatever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fake_world import CountingPolicy, FakeWorld, contents, fake_spec

from envs.types import EpisodeSpec, Info, Observation
from envs.world import World
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.types import ActionChunk, Policy


def make_policy(_: World) -> CountingPolicy:
    return CountingPolicy(chunk_size=2)


def test_trajectories_are_the_same_with_and_without_workers() -> None:
    specs = [fake_spec(s) for s in range(40)]
    with Workers(partial(FakeWorld, 3), make_policy, WorkersConfig(workers=0)) as workers:
        alone = contents(workers.collect(specs, n_action_steps=1, all_frames=True))
    with Workers(partial(FakeWorld, 2), make_policy, WorkersConfig(workers=2)) as workers:
        shared = contents(workers.collect(specs, n_action_steps=1, all_frames=True))
        again = contents(workers.collect(specs[:5], n_action_steps=1, all_frames=True))
    assert alone == shared
    assert again == {spec.id: alone[spec.id] for spec in specs[:5]}
    assert len(alone) == 40
    assert not workers.report.set_aside


def test_every_spec_returns_exactly_once_when_workers_are_killed(tmp_path: Path) -> None:
    deadly: dict[int, Path | None] = {seed: tmp_path / str(seed) for seed in (2, 13, 27)}
    specs = [fake_spec(s) for s in range(30)]
    with Workers(partial(FakeWorld, 3, deadly=deadly), make_policy, WorkersConfig(workers=2)) as workers:
        found = contents(workers.collect(specs))
        assert len(workers.report.deaths) == 3
        assert not workers.report.set_aside
    with Workers(partial(FakeWorld, 3), make_policy, WorkersConfig(workers=0)) as workers:
        assert found == contents(workers.collect(specs))


class SlowPolicy(CountingPolicy):
    """Says which process it acts in, and takes its time."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        import time

        time.sleep(0.01)
        self.version = os.getpid()
        return super().act(worlds, observation)


def test_a_worker_killed_from_outside_is_replaced() -> None:
    specs = [fake_spec(s) for s in range(60)]
    killed: set[int] = set()
    found = []
    with Workers(partial(FakeWorld, 2), lambda world: SlowPolicy(1), WorkersConfig(workers=2)) as workers:
        for trajectory in workers.collect(specs):
            found.append(trajectory)
            worker = trajectory.policy_version  # SlowPolicy's version is its process.
            # What a worker had delivered before it was killed may still come: such a one is dead already.
            if len(found) >= (10, 25, 61)[len(killed)] and worker > 1 and worker not in killed:
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
        assert len(workers.report.deaths) == len(killed) == 2
    assert sorted(t.spec.seed for t in found) == list(range(60))


class Stumbling(FakeWorld):
    """Raises where it should begin seed 4."""

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        if any(spec.seed == 4 for spec in specs):
            raise ValueError("no such table")
        return super().reset_to(specs, worlds)


def test_a_spec_is_set_aside_after_three_workers_died_running_it_alone() -> None:
    specs = [fake_spec(s) for s in range(12)]
    with Workers(partial(Stumbling, 2, deadly={9: None}), make_policy, WorkersConfig(workers=2)) as workers:
        found = contents(workers.collect(specs))
        assert found.keys() == {spec.id for spec in specs} - {specs[4].id, specs[9].id}
        assert workers.report.set_aside.keys() == {specs[4], specs[9]}
        assert "no such table" in workers.report.set_aside[specs[4]]
        assert len(workers.report.deaths) == 8, "each killed one in company, then three alone"


def test_a_policy_that_always_fails_raises_an_error_instead_of_endless_restarts() -> None:
    with (
        Workers(partial(FakeWorld, 2), make_policy, WorkersConfig(workers=1)) as workers,
        pytest.raises(RuntimeError, match="fail with every episode") as caught,
    ):
        list(workers.collect([fake_spec(s) for s in range(7)], n_action_steps=9))
    assert "n_action_steps must be within 1..2" in str(caught.value.__cause__)


def test_a_world_that_cannot_be_created_raises_an_error() -> None:
    with (
        Workers(partial(FakeWorld, 0), make_policy, WorkersConfig(workers=2)) as workers,
        pytest.raises(RuntimeError, match="could not create its world") as caught,
    ):
        list(workers.collect([fake_spec(0)]))
    assert "num_worlds must be at least 1" in str(caught.value.__cause__)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_collect_uses_the_weights_published_before_it(num_workers: int) -> None:
    specs = [fake_spec(s) for s in range(8)]
    with Workers(partial(FakeWorld, 2), make_policy, WorkersConfig(workers=num_workers)) as workers:
        for version, push in ((None, 0.0), (3, 0.5), (4, 0.25)):
            if version is not None:
                workers.publish(version, {"push": push})
            found = list(workers.collect(specs))
            assert {t.policy_version for t in found} == {version or 0}
            assert {float(a) for t in found for a in t.action[:, 2]} == {push}
        with pytest.raises(ValueError, match="must increase: 4 is published, got 4"):
            workers.publish(4, {"push": 1.0})


class Twice:
    """Another policy's actions, doubled."""

    def __init__(self, policy: Policy) -> None:
        self.version = policy.version
        self._policy = policy

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._policy.begin(worlds, instructions, seeds)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        return self._policy.act(worlds, observation).map(lambda actions: 2 * actions)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_collect_may_wrap_the_policy_of_the_running_workers(num_workers: int) -> None:
    specs = [fake_spec(s) for s in range(8)]

    def make(_: World) -> CountingPolicy:
        return CountingPolicy(2, version=os.getpid())

    with Workers(partial(FakeWorld, 2), make, WorkersConfig(workers=num_workers)) as workers:
        before, wrapped, after = (
            sorted(workers.collect(specs, n_action_steps=1, wrap=wrap), key=lambda t: t.spec)
            for wrap in (None, Twice, None)
        )
    for one, two, three in zip(before, wrapped, after, strict=True):
        np.testing.assert_array_equal(2 * one.action[0], two.action[0])
        np.testing.assert_array_equal(one.action, three.action)
    assert len({t.policy_version for t in (*before, *wrapped, *after)}) == 1, "one process"


def test_a_worker_without_requested_gpus_sees_none() -> None:
    def make(_: World) -> CountingPolicy:
        return CountingPolicy(2, version=int(os.environ.get("CUDA_VISIBLE_DEVICES") == ""))

    with Workers(partial(FakeWorld, 1), make, WorkersConfig(workers=1)) as workers:
        assert [t.policy_version for t in workers.collect([fake_spec(0)])] == [1]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_stopping_a_collect_early_does_not_affect_the_next(num_workers: int) -> None:
    with Workers(partial(FakeWorld, 2), make_policy, WorkersConfig(workers=num_workers)) as workers:
        collecting = workers.collect([fake_spec(s) for s in range(20)])
        next(collecting)
        del collecting
        assert contents(workers.collect([fake_spec(s) for s in (30, 31)])).keys() == {
            fake_spec(30).id,
            fake_spec(31).id,
        }


def test_ray_is_started_on_the_loopback_address_and_never_without_workers() -> None:
    with Workers(partial(FakeWorld, 1), make_policy, WorkersConfig(workers=1)) as workers:
        list(workers.collect([fake_spec(0)]))
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    code = "import sys, rollout.workers.workers, rollout.weights; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
