"""A user's own gymnasium environment as worlds: a corridor that can be walked by hand."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from corridor import Corridor, Walk, corridors, seed_of, walk
from numpy.typing import NDArray

from envs.make import make_world
from envs.suites.gymnasium_env import GymnasiumTask
from envs.suites.gymnasium_episode import ActionBox
from envs.types import CameraSpec


def test_a_world_returns_its_environments_observations() -> None:
    world = corridors(2)
    spec = world.world_spec
    assert spec.cameras == (CameraSpec(name="image", height=4, width=11),)
    assert (spec.state.names, spec.action.names, spec.localization.names) == (("state_0",), ("action_0",), ("door_x",))
    assert (spec.action.low, spec.action.high, spec.control_dt_s) == ((-1.0,), (1.0,), 0.1)
    observation, info = world.reset_to([walk(seed_of(-3.0)), walk(seed_of(3.0))], [0, 1])
    assert observation["instruction"] == ("go to -3", "go to +3")
    assert info["localization"][1] == 3.0
    assert observation["frames"]["image"][1, 0, 8].tolist() == [255, 0, 0]
    assert observation in world.observation_space


def test_a_chunk_stops_with_the_first_success() -> None:
    world = corridors(2)
    world.reset_to([walk(seed_of(3.0)), walk(seed_of(-3.0))], [0, 1])
    forward = np.ones((2, 3, 1), np.float32)  # 1.5 each
    forward[1, 2] = -0.5  # the middle of the Box is at 0.5
    result = world.step_chunk(forward, all_frames=True)
    assert result.num_steps.tolist() == [2, 3]
    assert result.success.tolist() == [True, False]
    assert result.done.tolist() == [True, False]
    assert result.reward[0].tolist() == [-1.5, 0.0, 0.0]
    assert result.states[:, :, 0].tolist() == [[1.5, 3.0, 3.0], [1.5, 3.0, 3.0]]
    assert result.all_frames is not None
    assert result.all_frames["image"][0, :, 0, :, 1].argmax(-1).tolist() == [7, 8, 8]
    later = world.step_chunk(forward[:, :2])
    assert later.num_steps.tolist() == [0, 2]
    assert later.states[1, -1, 0] == 6.0
    assert (later.terminated[1], later.success[1], later.failure[1]) == (True, False, "ended by the environment")
    assert (result.outcome, later.outcome) == (("success", ""), ("success", "ended by the environment"))


def test_the_step_limit_ends_an_episode() -> None:
    world = corridors(1)
    world.reset_to([walk(seed_of(3.0))], [0])
    still = np.full((1, 1, 1), -0.5, np.float32)
    results = [world.step_chunk(still) for _ in range(8)]
    assert [result.truncated[0] for result in results] == [False] * 7 + [True]
    assert [result.outcome for result in results] == [("",)] * 7 + [("step limit",)]


def test_a_spec_gives_the_same_first_observation_in_any_world_whatever_ran_before() -> None:
    fresh, used = corridors(1), corridors(3)
    used.reset_to([walk(s) for s in (5, 6, 7)], [0, 1, 2])
    used.step_chunk(np.ones((3, 2, 1), np.float32))
    expected, _ = fresh.reset_to([walk(11)], [0])
    given, _ = used.reset_to([walk(11)], [2])
    assert np.array_equal(expected["frames"]["image"][0], given["frames"]["image"][2])
    assert np.array_equal(expected["state"][0], given["state"][2])
    assert expected["instruction"][0] == given["instruction"][2]


def test_expert_actions_in_the_units_of_the_box_are_scaled_to_the_worlds_range() -> None:
    world = corridors(3)
    world.reset_to([walk(seed_of(3.0)), walk(seed_of(-3.0))], [0, 1])
    assert world.expert_action().tolist() == [[1.0], [-1.0], [0.0]]
    for _ in range(6):
        result = world.step_chunk(world.expert_action()[:, None])
    assert result.success.tolist() == [True, True, False]


def test_every_world_has_its_own_environment_and_closes_it() -> None:
    task, made = Walk(), []
    make_env = task.make_env
    task.make_env = lambda: made.append(make_env()) or made[-1]
    world = corridors(3, walk=task)
    world.reset_to([walk(s) for s in range(3)], [0, 1, 2])
    world.reset_to([walk(s) for s in range(3)], [0, 1, 2])
    assert len(made) == 3
    world.close()
    assert all(env.closed for env in made)


def test_an_environment_is_called_in_one_thread_whatever_thread_calls_the_world() -> None:
    task, threads = Walk(), set()
    frames = task.frames
    task.frames = lambda env: threads.add(threading.get_ident()) or frames(env)
    world = corridors(2, walk=task)
    with ThreadPoolExecutor(1) as other:
        other.submit(world.reset_to, [walk(0), walk(1)], [0, 1]).result()
    world.step_chunk(np.ones((2, 1, 1), np.float32))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


class Keeper(Walk):
    """Ends what it keeps when it is forgotten, as mujoco.Renderer does."""

    def __init__(self, ended_in: list[int]) -> None:
        self.ended_in = ended_in

    def __del__(self) -> None:
        self.ended_in.append(threading.get_ident())


def test_objects_of_a_task_are_released_in_that_thread_when_the_world_closes() -> None:
    ended_in: list[int] = []
    world = corridors(1, walk=Keeper(ended_in))
    world.reset_to([walk(0)], [0])
    world.close()
    assert len(ended_in) == 1
    assert threading.get_ident() not in ended_in


class Sticky(Walk):
    def make_env(self) -> Any:
        return Corridor(reset_moves_back=False)


class Endless(Walk):
    max_steps = None


class Grey(Walk):
    def frames(self, env: Any) -> Any:
        return {"image": env.render()[..., 0]}


class Other(Walk):
    def state(self, env: Any, observation: Any) -> Any:
        return [0.0, 0.0]


class Brief(Walk):
    """Its environment is not to be stepped past its end, which comes with the second step."""

    def make_env(self) -> Any:
        class Strict(Corridor):
            def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
                self.left = 2
                return super().reset(**options)

            def step(self, action: NDArray[np.float32]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
                assert self.left, "it is over"
                self.left -= 1
                seen, reward, _, truncated, info = super().step(action)
                return seen, reward, not self.left, truncated, info

        return Strict()


def test_an_environment_whose_episode_ends_immediately_is_accepted() -> None:
    with closing(corridors(1, walk=Brief())) as world:
        world.reset_to([walk(seed_of(-3.0))], [0])
        assert world.step_chunk(np.ones((1, 4, 1), np.float32)).num_steps.tolist() == [2]


def test_a_rejected_environment_is_closed() -> None:
    made: list[Corridor] = []

    class Kept(Grey):
        def make_env(self) -> Any:
            made.append(Corridor())
            return made[-1]

    with pytest.raises(ValueError, match="expected uint8"):
        corridors(1, walk=Kept())
    assert [env.closed for env in made] == [True]


def test_no_episode_begins_if_one_of_the_specs_is_invalid() -> None:
    with closing(corridors(2)) as world:
        first, _ = world.reset_to([walk(1), walk(2)], [0, 1])
        world.step_chunk(np.ones((2, 1, 1), np.float32))
        with pytest.raises(ValueError, match="variation 'dark' does not exist; variations: train"):
            world.reset_to([walk(1), walk(2, variation="dark")], [0, 1])
        assert (world.step_chunk(np.ones((2, 1, 1), np.float32)).states[:, 0, 0] == 3.0).all(), "both went on"
        assert (first["state"] == 0.0).all()


def test_a_list_of_seeds_is_indexed_by_world() -> None:
    with closing(corridors(2)) as world:
        seeds: list[int | None] = [seed_of(3.0), seed_of(-3.0)]
        observation, _ = world.reset(seed=seeds, options={"reset_mask": np.array([False, True])})
        assert observation["instruction"] == ("", "go to -3")
        with pytest.raises(ValueError, match="1 seeds were given for 2 worlds"):
            world.reset(seed=seeds[:1])


@pytest.mark.parametrize(("low", "high", "dtype"), [(-128, 127, np.int8), (10, 250, np.uint8), (-1, 1, np.int64)])
def test_actions_for_an_integer_box_are_rounded_and_reach_its_bounds(low: int, high: int, dtype: Any) -> None:
    box = ActionBox(gymnasium.spaces.Box(low, high, (1,), dtype))
    ends = [box.stretch(np.array([share], np.float32)) for share in (-1.0, 1.0)]
    assert [end.tolist() for end in ends] == [[low], [high]]
    assert {end.dtype for end in ends} == {np.dtype(dtype)}
    middle = (low + high) / 2
    assert abs(box.stretch(np.array([0.0], np.float32))[0] - middle) <= 0.5
    assert box.shrink([high]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"walk": Sticky()}, "corridor/walk/train/0 has another first observation after some steps"),
        ({"walk": Endless()}, "task 'walk' has no step limit"),
        (
            {"walk": Grey()},
            r"'walk' cannot be run as a world: camera 'image' gives uint8 \(4, 11\), expected uint8 \(H, W, 3\)",
        ),
        ({"walk": Walk(), "other": Other()}, "tasks of one suite must have the same spec, but other has"),
    ],
    ids=["sticky", "endless", "grey", "different"],
)
def test_an_unsuitable_environment_is_rejected(tasks: dict[str, GymnasiumTask], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corridors(1, **tasks)


def test_unknown_tasks_and_suites_are_rejected() -> None:
    world = corridors(1)
    with pytest.raises(ValueError, match="task 'run' does not exist in corridor; tasks: walk"):
        world.reset_to([walk(0, task="run")], [0])
    with pytest.raises(ValueError, match="variation 'dark' does not exist; variations: train"):
        world.reset_to([walk(0, variation="dark")], [0])
    world.reset_to([walk(0)], [0])
    with pytest.raises(ValueError, match="action 'action_0' of world 0, step 0 of the chunk, is nan"):
        world.step_chunk(np.full((1, 1, 1), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"actions must be \[1, k >= 1, 1\], got \[1, 1, 2\]"):
        world.step_chunk(np.zeros((1, 1, 2), np.float32))


def test_make_world_calls_a_function_of_a_module_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_corridors.py").write_text(f"from {__name__} import corridors\nno_world = float\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    with closing(make_world("own_corridors:corridors", 2)) as world:
        assert (world.suite, world.num_envs) == ("corridor", 2)
    for name, message in {
        "no_such_module:make": "world 'no_such_module:make' cannot be imported: No module named .* in PYTHONPATH$",
        "ws:/127.0.0.1:8000": "'ws:/127.0.0.1:8000' is not MODULE:FUNCTION, as in my_package.my_module:make",
        "own_corridors:no": "cannot be imported: module .* has no attribute 'no'",
        "own_corridors:no_world": "gave a float, expected an envs.world.World",
        "tabletob": "world .tabletob. does not exist; worlds: tabletop, .*, or MODULE:FUNCTION of your own",
    }.items():
        with pytest.raises(ValueError, match=message):
            make_world(name)
    with pytest.raises(ValueError, match="runs on the device 'cpu', got 'cuda'"):
        make_world("own_corridors:corridors", device="cuda")
