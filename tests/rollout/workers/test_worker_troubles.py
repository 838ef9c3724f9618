"""Workers that hang, raise or eat memory: the run ends, complete, and the report names who did what."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, Never

import numpy as np
import pytest
from fake_world import CountingPolicy, FakeWorld, contents, fake_spec
from numpy.typing import NDArray
from test_workers import make_policy

from envs.errors import UserError
from envs.types import ChunkResult, EpisodeSpec, Info, Observation
from envs.world import World
from rollout.workers.handle import Remote, start_ray
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.types import ActionChunk

Trouble = Literal["hangs", "holds Python's lock", "raises", "eats memory", "dies"]
IMPATIENT = WorkersConfig(workers=2, progress_deadline_s=4.0, memory_limit_gb=0.6)


@pytest.fixture
def checked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats that come often, so that a deadline of a few seconds is many of them."""
    for module in ("handle", "workers"):
        monkeypatch.setattr(f"rollout.workers.{module}.CHECK_EVERY_S", 0.1)


def test_a_ray_that_does_not_start_is_a_refusal_and_another_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Exception("The current node timed out during startup.")

    def init(**_: object) -> Never:
        raise late

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Ray itself, imported here, would start on all network interfaces in the tests after this one.
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    said = r"Ray did not start: The current node timed out during startup.; try again, or without Ray: --workers 0"
    with pytest.raises(UserError, match=said):
        start_ray(None)
    late = TypeError("init")
    with pytest.raises(TypeError, match="init"):
        start_ray(None)


class TroubledWorld(FakeWorld):
    """Makes trouble when it should begin a seed of `troubles`: once where a file is given, which then notes it."""

    def __init__(self, num_worlds: int, troubles: dict[int, tuple[Trouble, Path | None]]) -> None:
        super().__init__(num_worlds)
        self.troubles = troubles
        self.eats = False
        self.eaten: list[NDArray[np.float64]] = []

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        for spec in specs:
            trouble, mark = self.troubles.get(spec.seed, (None, None))
            if trouble is not None and (mark is None or not mark.exists()):
                if mark is not None:
                    mark.touch()
                self.make(trouble)
        return super().reset_to(specs, worlds)

    def make(self, trouble: Trouble) -> None:
        match trouble:
            case "hangs":
                time.sleep(600)
            case "holds Python's lock":
                ctypes.PyDLL(None).sleep(600)
            case "raises":
                raise ValueError("no such table")
            case "eats memory":
                self.eats = True
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)

    def step_chunk(
        self, actions: NDArray[np.float32], *, all_frames: bool = False, ended_frames: bool = True
    ) -> ChunkResult:
        """One that eats memory goes on deciding, without an end: it does not hang."""
        if self.eats and len(self.eaten) < 200:  # 4 GB, should nobody stop it
            self.eaten.append(np.ones(2_500_000))
            self.steps[:] = 0
            time.sleep(0.05)
        return super().step_chunk(actions, all_frames=all_frames, ended_frames=ended_frames)


@pytest.mark.long
@pytest.mark.usefixtures("checked_often")
def test_hanging_raising_and_leaking_worlds_lose_no_episode_and_are_reported() -> None:
    specs = [fake_spec(s) for s in range(30)]
    troubles: dict[int, tuple[Trouble, Path | None]] = {
        3: ("hangs", None),
        11: ("raises", None),
        17: ("eats memory", None),
    }
    with Workers(partial(TroubledWorld, 2, troubles), make_policy, IMPATIENT) as workers:
        found = contents(workers.collect(specs))
    report = workers.report
    assert found.keys() == {spec.id for spec in specs} - {specs[seed].id for seed in troubles}
    assert {spec.seed: why.partition(":")[0] for spec, why in report.set_aside.items()} == {
        3: "hung",
        11: "raised",
        17: "memory",
    }
    assert "no decision for 4 s" in report.set_aside[specs[3]]
    assert report.set_aside[specs[11]] == "raised: ValueError: no such table"
    assert "the limit is 0.6 GB" in report.set_aside[specs[17]]
    assert report.by_cause == {"hung": 4, "raised": 4, "memory": 4}
    assert all(sum(specs[seed] in death.running for death in report.deaths) == 4 for seed in troubles)
    text = "\n".join(report.lines())
    assert text.startswith("12 workers were replaced: ")
    assert "set aside: fake/count/train/17, every worker died that ran it: memory: it held " in text
    assert all(f"(pid {death.pid} on {death.node})" in text for death in report.deaths)


@pytest.mark.usefixtures("checked_often")
def test_a_single_failure_loses_no_episode(tmp_path: Path) -> None:
    specs = [fake_spec(s) for s in range(20)]
    troubles: dict[int, tuple[Trouble, Path | None]] = {
        2: ("holds Python's lock", tmp_path / "2"),
        9: ("eats memory", tmp_path / "9"),
        14: ("dies", tmp_path / "14"),
    }
    with Workers(partial(TroubledWorld, 2, troubles), make_policy, IMPATIENT) as workers:
        found = contents(workers.collect(specs))
    assert sorted(death.cause for death in workers.report.deaths) == ["hung", "killed", "memory"]
    assert all(len(death.running) <= 2 for death in workers.report.deaths), "only what its two worlds ran is suspected"
    assert not workers.report.set_aside
    with Workers(partial(FakeWorld, 2), make_policy, WorkersConfig(workers=0)) as workers:
        assert found == contents(workers.collect(specs))


def make_at_third_try(folder: Path, _: World) -> CountingPolicy:
    attempt = len(list(folder.iterdir()))
    (folder / str(attempt)).touch()
    if attempt < 2:
        time.sleep(600)
    return CountingPolicy(2)


def test_a_worker_that_misses_its_start_deadline_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, check = WorkersConfig(workers=1, start_deadline_s=3.0), Remote.check

    def only_while_it_hangs(remote: Remote, elapsed_s: float) -> None:
        """Starting Python and importing take as long as the machine's other work has them take."""
        hangs = len(list(tmp_path.iterdir())) > len(workers.report.deaths)
        check(remote, elapsed_s if hangs else 0.0)

    monkeypatch.setattr(Remote, "check", only_while_it_hangs)
    with Workers(partial(FakeWorld, 2), partial(make_at_third_try, tmp_path), config) as workers:
        assert len(contents(workers.collect([fake_spec(s) for s in (1, 2)]))) == 2
    assert [death.reason for death in workers.report.deaths] == ["not ready 3 s after its start"] * 2
    assert "worker 0 (while it started) hung" in workers.report.lines()[1]


def never_ready(_: World) -> CountingPolicy:
    time.sleep(600)
    return CountingPolicy(2)


def test_workers_that_never_become_ready_raise_an_error() -> None:
    config = WorkersConfig(workers=1, start_deadline_s=0.5)
    with (
        Workers(partial(FakeWorld, 2), never_ready, config) as workers,
        pytest.raises(RuntimeError, match="could not create its world") as caught,
    ):
        list(workers.collect([fake_spec(0)]))
    assert "not ready 0.5 s" in str(caught.value.__cause__)


class DeliberatePolicy(CountingPolicy):
    """Says which process it acts in. An episode lasts longer than the deadline, each decision does not."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        time.sleep(0.2)
        self.version = os.getpid()
        return super().act(worlds, observation)


@pytest.mark.usefixtures("checked_often")
def test_a_long_episode_and_a_slow_caller_do_not_count_as_a_hang() -> None:
    config = WorkersConfig(workers=1, progress_deadline_s=1.0)
    with Workers(partial(FakeWorld, 1), lambda _: DeliberatePolicy(1), config) as workers:
        for _ in workers.collect([fake_spec(s) for s in (4, 9)]):
            time.sleep(2.5)
    assert workers.report.deaths == []


def test_workers_that_die_between_two_collects_are_replaced() -> None:
    with Workers(partial(FakeWorld, 1), lambda _: DeliberatePolicy(2), WorkersConfig(workers=2)) as workers:
        pids = {t.policy_version for t in workers.collect([fake_spec(s) for s in (0, 5, 10, 15)])} - {0}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert len(list(workers.collect([fake_spec(s) for s in (0, 5)]))) == 2
    assert {death.pid for death in workers.report.deaths} <= pids
