"""Worlds in another interpreter, MODULE:FUNCTION@PYTHON: here the tests' own, started without their path."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from corridor import Corridor, Walk, corridors, walk

from envs.errors import UserError
from envs.make import check_device, make_world
from envs.suites.hosted.function_world import FunctionWorld, world_name
from envs.suites.hosted.subprocesses import WorldDiedError
from envs.types import ChunkResult
from envs.world import World
from llamarm import GymnasiumTask, GymnasiumWorld

ROOT = Path(__file__).parents[3]
HERE = Path(sys.executable)
NEWER_NAMES = {"LiteralString", "Never", "NotRequired", "Required", "Self", "StrEnum", "TypeVarTuple", "UTC", "Unpack"}
"""Of the standard library, since Python 3.11."""


class Fussy(Walk):
    """Its episode breaks shortly before a fall."""

    def labels(self, env: Any) -> dict[str, float]:
        if abs(env.unwrapped.x) >= 4.0:
            raise RuntimeError("off the floor")
        return super().labels(env)


class Mortal(Walk):
    """Its process is killed by a step backwards from the middle."""

    def success(self, env: Any, info: dict[str, Any]) -> bool:
        if env.unwrapped.x == -0.5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().success(env, info)


class Otherwise(Corridor):
    def step(self, action: Any) -> Any:
        *seen, info = super().step(action)
        return *seen, {"success": info["is_success"]}


class Succeeds(Walk):
    """Its environment calls the success flag `success`."""

    def make_env(self) -> Any:
        return Otherwise()


class Flat(Walk):
    """Its environment's observations are arrays."""

    def make_env(self) -> Any:
        return gymnasium.wrappers.TransformObservation(Corridor(), lambda seen: np.array([seen["door"]]), None)


class Silent(Walk):
    expert_action = GymnasiumTask.expert_action


def fussy(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Fussy())


def mortal(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Mortal())


def dead(num_worlds: int) -> GymnasiumWorld:
    os.kill(os.getpid(), signal.SIGKILL)
    return corridors(num_worlds)


def silent(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Silent())


def succeeds(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Succeeds())


def flat(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Flat())


def raising(num_worlds: int) -> GymnasiumWorld:
    raise RuntimeError(f"no room for {num_worlds}")


def wrong(num_worlds: int) -> Any:
    return Corridor() if num_worlds else None


def lean(num_worlds: int) -> GymnasiumWorld:
    """Refuses to be made where our dependencies were imported."""
    forbidden = {"array_api_compat", "mujoco", "ray", "torch", "transformers"} & set(sys.modules)
    if forbidden:
        raise RuntimeError(f"imported: {forbidden}")
    return corridors(num_worlds)


def hosted(function: str, num_worlds: int = 2) -> World:
    return make_world(f"test_hosted:{function}@{HERE}", num_worlds)


def alike(ours: ChunkResult, theirs: ChunkResult) -> None:
    for name, value in vars(ours).items():
        given = getattr(theirs, name)
        if isinstance(value, np.ndarray):
            assert value.dtype == given.dtype and (value == given).all(), name
        elif name in ("observation", "reward_terms", "all_frames"):
            np.testing.assert_equal(given, value, err_msg=name)
        else:
            assert value == given, name


def test_a_hosted_world_equals_the_same_world_in_this_interpreter_though_an_episode_breaks() -> None:
    with closing(fussy(2)) as here, closing(hosted("fussy")) as there:
        assert isinstance(there, FunctionWorld)
        assert (there.world_spec, there.suite, there.tasks) == (here.world_spec, here.suite, here.tasks)
        assert there.variations_of("walk") == here.variations_of("walk") == ("train",)
        for seeds in ((1, 2), (3, 4)):
            begun = [world.reset_to([walk(seed) for seed in seeds], [0, 1]) for world in (here, there)]
            np.testing.assert_equal(begun[1], begun[0])
            for step in range(4):
                act = here.expert_action()
                assert (act == there.expert_action()).all()
                act[0] = 1.0  # right into the wall of the first corridor
                chunk = np.repeat(act[:, None], 2, axis=1)
                flags = {"all_frames": step % 2 == 1, "ended_frames": step < 2}
                alike(here.step_chunk(chunk, **flags), there.step_chunk(chunk, **flags))


def test_only_numpy_and_gymnasium_are_needed_there() -> None:
    with closing(hosted("lean", 1)) as world:
        assert world.reset_to([walk(0)], [0])[0]["instruction"][0].startswith("go to")


def test_our_side_there_can_be_read_by_python_3_10() -> None:
    code = "import sys, envs.suites.hosted.function_simulation, llamarm; llamarm.GymnasiumWorld; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    ours = [name for name in loaded.split() if name.partition(".")[0] in ("envs", "llamarm")]
    assert "envs.world" in ours and "envs.suites.gymnasium_env" in ours
    for name in (*ours, "envs.suites.hosted.host"):
        path = ROOT / name.replace(".", "/")
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        tree = ast.parse(text, feature_version=(3, 10))
        for node in tree.body:  # imports that only type checkers read stand in an `if`
            newer = isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & NEWER_NAMES
            assert not newer, f"{name} imports {newer}, which Python 3.10 lacks"


def test_a_process_that_dies_in_an_episode_is_named() -> None:
    with closing(hosted("mortal")) as world:
        world.reset_to([walk(0), walk(1)], [0, 1])
        with pytest.raises(WorldDiedError, match="the process of test_hosted:mortal's world 1 died"):
            world.step_chunk(np.array([[[1.0]], [[-1.0]]], np.float32))


def test_a_task_without_an_expert_says_so() -> None:
    with closing(hosted("silent", 1)) as world:
        world.reset_to([walk(0)], [0])
        with pytest.raises(NotImplementedError, match="Silent has no expert_action"):
            world.expert_action()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raising", r"world 'test_hosted:raising' raised RuntimeError: no room for 1 \(test_hosted.py:"),
        ("dead", "'test_hosted:dead' could not be made by .*python.*: the process of test_hosted:dead's world 0 died"),
        ("wrong", "gave a Corridor, expected an envs.world.World; write a GymnasiumTask whose make_env returns it"),
        ("succeeds", r"info of a step has no 'is_success': it has 'success'; write success\(self, env, info\) in Succ"),
        ("flat", r"the observation has no 'agent_pos': it is an array float64 \(1,\); write state\(self, env, observ"),
    ],
)
def test_a_function_that_gives_no_world_is_refused_by_name(function: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        hosted(function)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make@{here}", "world 'no_such_module:make' cannot be imported: No module named 'no_such"),
        ("test_hosted:nobody@{here}", "world 'test_hosted:nobody' cannot be imported: .* has no attribute 'nobody'"),
        ("test_hosted:fussy@{tmp}/python", "the interpreter of world 'test_hosted:fussy' does not exist: /"),
        ("test_hosted:fussy@python3", "needs the whole path of its interpreter after @, got 'python3'"),
        ("test_hosted:fussy@{tmp}", "the interpreter of world 'test_hosted:fussy' is a folder; name /.*/bin/python"),
        ("test_hosted:fussy@/bin/true", "made by /bin/true, which must be Python 3.10 or newer"),
        ("test_hosted:fussy@{tmp}/text", "test_hosted:fussy: the interpreter /.*/text cannot be started"),
        ("test_hosted:fussy@{tmp}/bare", r"it has no numpy; install it with: .* -m pip install numpy 'gymnasium>=1.1'"),
    ],
)
def test_an_interpreter_that_does_not_fit_is_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a program")
    (tmp_path / "bare").write_text(f'#!/bin/sh\nexec {HERE} -S "$@"\n')
    (tmp_path / "bare").chmod(0o755)
    with pytest.raises(UserError, match=message):
        make_world(name.format(here=HERE, tmp=tmp_path))


def test_an_interpreter_is_checked_before_any_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").touch()
    assert world_name("mine:make", "python") == f"mine:make@{tmp_path}/python"
    with pytest.raises(UserError, match="the interpreter of world 'mine:make' does not exist"):
        world_name("mine:make", "venv/bin/python")
    with pytest.raises(UserError, match="another interpreter runs a world MODULE:FUNCTION, got 'tabletop'"):
        world_name("tabletop", "python")
    with pytest.raises(UserError, match="does not exist: /nowhere/python"):
        check_device("mine:make@/nowhere/python", "cpu")
