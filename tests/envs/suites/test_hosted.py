"""Worlds in another interpreter, MODULE:FUNCTION@PYTHON: here the tests' own, started without their path."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from corridor import Corridor, Walk, corridors, walk
from numpy.typing import NDArray

from envs.errors import UserError
from envs.make import check_device, make_world
from envs.suites.hosted.function_world import FunctionWorld, world_name
from envs.suites.hosted.interpreter import Interpreter, Launch
from envs.suites.hosted.simulation import Moved, StepwiseSimulation
from envs.suites.hosted.subprocesses import WorldDiedError
from envs.suites.hosted.world import HostedWorld
from envs.types import CameraSpec, ChunkResult, EpisodeSpec, VectorSpec, WorldSpec
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


class Slow(Walk):
    """A step backwards takes longer than a test waits."""

    def success(self, env: Any, info: dict[str, Any]) -> bool:
        if env.unwrapped.x == -0.5:
            time.sleep(600)
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


def double(num_worlds: int) -> GymnasiumWorld:
    return corridors(2 * num_worlds)


def slow(num_worlds: int) -> GymnasiumWorld:
    return corridors(num_worlds, walk=Slow())


def parent(num_worlds: int) -> GymnasiumWorld:
    """Starts a process that outlives it and has its standard output."""
    sleeper = subprocess.Popen(["sleep", "1000"])
    print(f"{os.getpid()} {sleeper.pid}")
    return corridors(num_worlds, walk=Mortal())


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


def test_a_process_that_dies_in_an_episode_is_named_and_the_next_episode_has_new_processes() -> None:
    with closing(hosted("mortal")) as world:
        first, _ = world.reset_to([walk(0), walk(1)], [0, 1])
        with pytest.raises(WorldDiedError, match="of test_hosted:mortal's world 1 died: killed by signal 9"):
            world.step_chunk(np.array([[[1.0]], [[-1.0]]], np.float32))
        assert world.step_chunk(np.ones((2, 1, 1), np.float32)).num_steps.tolist() == [0, 0]
        np.testing.assert_equal(world.reset_to([walk(0), walk(1)], [0, 1])[0], first)


def test_after_an_interrupted_step_the_next_episode_is_not_its_reply() -> None:
    with closing(hosted("slow")) as world:
        first, _ = world.reset_to([walk(0), walk(1)], [0, 1])
        interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            world.step_chunk(np.full((2, 1, 1), -1.0, np.float32))
        np.testing.assert_equal(world.reset_to([walk(0), walk(1)], [0, 1])[0], first)


RUN = """
import sys
from corridor import walk
from envs.make import make_world
world = make_world(sys.argv[1] + "@" + sys.executable, 1)
world.reset_to([walk(0)], [0])
print("ready", flush=True)
sys.stdin.read()
"""


def started(name: str) -> subprocess.Popen[str]:
    """Another process with a hosted world, whose output begins with what the world printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", RUN, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def comes_true(is_true: Callable[[], bool]) -> bool:
    return any(is_true() or time.sleep(0.05) for _ in range(600))


def test_what_a_world_prints_is_seen_and_what_it_started_ends_with_the_process_that_asked_for_it() -> None:
    with started("test_hosted:parent") as ours:
        assert ours.stdout is not None
        pids = ours.stdout.readline().split()
        assert ours.stdout.readline() == "ready\n" and all(Path(f"/proc/{pid}").exists() for pid in pids)
        ours.kill()
    assert comes_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_an_import_that_hangs_ends_with_the_process_that_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ("import os, time", "print(os.getpid())", "time.sleep(1000)")
    (tmp_path / "hanging.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    with started("hanging:make") as ours:
        assert ours.stdout is not None
        importing = Path("/proc", ours.stdout.readline().strip())
        assert importing.name.isdigit() and importing.exists()
        ours.kill()
    assert comes_true(lambda: not importing.exists())


class Suite(StepwiseSimulation):
    """A suite whose episodes of some seeds raise."""

    def begin(self, spec: EpisodeSpec) -> str:
        self._seed, self._x = spec.seed, 0.0
        return str(1 // (spec.seed - 1))

    def move(self, action: list[float]) -> Moved:
        if self._seed == 2:
            raise RuntimeError("the suite fell over")
        self._x += action[0]
        return Moved()

    def expert_action(self) -> list[float]:
        if self._seed == 3:
            raise ValueError("the expert fell over")
        if self._seed == 4:
            raise NotImplementedError("no expert")
        return [0.5]

    def reached_step_limit(self) -> bool:
        return False

    def state(self) -> list[float]:
        return [self._x]

    def localization(self) -> list[float]:
        return []

    def render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        frames[0][:] = 7


def test_an_exception_of_a_suite_breaks_only_its_episode() -> None:
    one = VectorSpec(names=("x",), units=("m",), low=(-1.0,), high=(1.0,))
    spec = WorldSpec(
        cameras=(CameraSpec(name="front", height=2, width=2),),
        state=one,
        action=one,
        localization=VectorSpec(names=(), units=(), low=(), high=()),
        control_dt_s=0.1,
    )
    launch = Launch(title="Suite", python=HERE, target="test_hosted:Suite", folders=tuple(sys.path))
    world = HostedWorld(
        num_worlds=4,
        world_spec=spec,
        suite="corridor",
        tasks=("walk",),
        launch=launch,
        reward_weights={"success": 1.0},
    )
    with closing(world):
        observation, info = world.reset_to([walk(seed) for seed in (0, 1, 2, 3)], range(4))
        assert list(info["broken"]) == [1] and "begin raised ZeroDivisionError" in info["broken"][1]
        assert [frame.max() for frame in observation["frames"]["front"]] == [7, 0, 7, 7]
        assert world.expert_action().tolist() == [[0.5], [0.0], [0.5], [0.0]]
        result = world.step_chunk(np.ones((4, 2, 1), np.float32))
        assert result.broken == {1, 2, 3} and result.num_steps.tolist() == [2, 0, 0, 0]
        assert result.terminated.tolist() == [False, True, True, True]
        assert result.failure[0] is None and "step raised RuntimeError: the suite fell over (" in str(result.failure[2])
        assert "expert raised ValueError: the expert fell over (test_hosted.py:" in str(result.failure[3])
        assert not world.reset_to([walk(0)], [1])[1]["broken"]
        assert world.step_chunk(np.ones((4, 1, 1), np.float32)).num_steps.tolist() == [1, 1, 0, 0]
        world.reset_to([walk(4)], [3])
        with pytest.raises(NotImplementedError, match="no expert"):
            world.expert_action()


def test_packages_that_an_interpreter_has_for_its_user_alone_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(sys.base_prefix, "bin", "python3")
    folder = tmp_path / ".local/lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "packages.pth").write_text(sysconfig.get_path("purelib"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with closing(make_world(f"test_hosted:lean@{base}")) as world:
        assert world.tasks == ("walk",)


def test_a_task_without_an_expert_says_so() -> None:
    with closing(hosted("silent", 1)) as world:
        world.reset_to([walk(0)], [0])
        with pytest.raises(NotImplementedError, match="Silent has no expert_action"):
            world.expert_action()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raising", r"world 'test_hosted:raising' raised RuntimeError: no room for 1 \(test_hosted.py:"),
        (
            "dead",
            "test_hosted:dead did not start in .*python.*: the process of test_hosted:dead's world 0 died: killed",
        ),
        ("double", "world 'test_hosted:double' was called with 1, and gave a World of 2"),
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
        ("test_hosted:fussy@/bin/true", "did not start in /bin/true, which must be Python 3.10 or newer"),
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


def test_a_suite_without_its_interpreter_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Interpreter(title="Try", variable="TRY_PYTHON", folder=".venv-try", command="make try")
    monkeypatch.delenv("TRY_PYTHON", raising=False)
    built = rf"interpreter of its own, and {ROOT}/\.venv-try/bin/python does not exist; build it with: make try$"
    with pytest.raises(UserError, match=built):
        suite.python()
    monkeypatch.setenv("TRY_PYTHON", "/nowhere/python")
    assert suite.path == Path("/nowhere/python")
    with pytest.raises(UserError, match="and TRY_PYTHON names /nowhere/python, which does not exist; build it with"):
        suite.python()
    monkeypatch.setenv("TRY_PYTHON", sys.executable)
    assert suite.python() == Path(sys.executable)
