"""What a user's environment may do wrong: named where it happens, and paid for by one episode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from corridor import Corridor, Walk, corridors, seed_of, walk

from envs.make import make_world
from envs.suites.gymnasium_env import GymnasiumTask
from envs.suites.returned import WorldError, labels_of, number_of, success_flag_of, vector_of

FORWARD = np.ones((2, 3, 1), np.float32)  # 1.5 each


class Falls(Walk):
    """Its environment does something wrong once it stands left of -2, which no probing step does."""

    def __init__(self, wrong: Callable[[Corridor, Any], Any], where: str = "step") -> None:
        self.wrong, self.where = wrong, where
        self.made: list[Corridor] = []

    def make_env(self) -> Any:
        task = self

        class Env(Corridor):
            def step(self, action: Any) -> Any:
                result = super().step(action)
                return task.wrong(self, result) if task.where == "step" and self.x < -2 else result

        self.made.append(Env())
        return self.made[-1]

    def _or_wrong(self, where: str, env: Any, right: Any) -> Any:
        return self.wrong(env, right) if self.where == where and env.x < -2 else right

    def state(self, env: Any, observation: Any) -> Any:
        return self._or_wrong("state", env, super().state(env, observation))

    def frames(self, env: Any) -> Any:
        return self._or_wrong("frames", env, super().frames(env))

    def labels(self, env: Any) -> Any:
        return self._or_wrong("labels", env, super().labels(env))

    def success(self, env: Any, info: dict[str, Any]) -> Any:
        return self._or_wrong("success", env, super().success(env, info))


def raising(_env: Any, _right: Any) -> Any:
    raise RuntimeError("motor 3\nis gone")


def reward(value: Any) -> Callable[[Any, Any], Any]:
    return lambda env, right: (right[0], value, *right[2:])


TROUBLES = {
    "infinite reward": ("step", reward(-np.inf), "the reward is -inf, which is not a finite float32"),
    "reward nan": ("step", reward(np.array([np.nan])), "the reward is nan, which is not a finite float32"),
    "too large": ("step", reward(1e39), "the reward is 1e+39, which is not a finite float32"),
    "no reward": ("step", reward(None), "the reward must be a number, got None"),
    "two rewards": ("step", reward(np.zeros(2)), r"the reward must be a number, got an array float64 (2,)"),
    "raises": ("step", raising, "step raised RuntimeError: motor 3 is gone (test_suites_gymnasium_trouble.py:"),
    "four": ("step", lambda _, right: right[:4], "step must return (observation, reward, terminated, truncated, info)"),
    "state nan": ("state", lambda *_: [np.nan], "element 0 of the state is nan, which is not a finite float32"),
    "state size": ("state", lambda *_: np.zeros(3), "the state must be a vector of 1, got an array float64 (3,)"),
    "state raises": ("state", raising, "state raised RuntimeError: motor 3 is gone"),
    "label": ("labels", lambda *_: {"door_x": np.inf}, "label 'door_x' is inf, which is not a finite float32"),
    "other label": ("labels", lambda *_: {"x": 0.0}, "labels must be door_x in every step, got x"),
    "float frame": ("frames", lambda *_: {"image": np.zeros((4, 11, 3))}, "camera 'image' gives float64 (4, 11, 3)"),
    "frame size": (
        "frames",
        lambda *_: {"image": np.zeros((4, 9, 3), np.uint8)},
        "the cameras gave {'image': (4, 9, 3)}",
    ),
    "camera": ("frames", lambda _, right: {"eye": right["image"]}, "the cameras gave {'eye': (4, 11, 3)}"),
    "success flag": (
        "success",
        lambda *_: np.array([True, False]),
        "success must be True or False, or an array of one, got",
    ),
    "maybe": ("success", lambda *_: 0.5, "success must be True or False, or an array of one, got a float: 0.5"),
}


@pytest.mark.parametrize(("where", "wrong", "reason"), TROUBLES.values(), ids=TROUBLES.keys())
def test_an_error_in_one_world_ends_only_its_episode_and_gives_the_reason(where: str, wrong: Any, reason: str) -> None:
    task = Falls(wrong, where)
    with closing(corridors(2, walk=task)) as world:
        world.reset_to([walk(seed_of(-3.0)), walk(seed_of(3.0))], [0, 1])
        actions = FORWARD.copy()
        actions[0] = -1.0  # half a step to the left each
        world.step_chunk(actions[:, :1])
        for _ in range(4):
            result = world.step_chunk(actions[:, :1])
        assert result.broken == {0}
        assert result.failure[0] is not None and reason in result.failure[0] and "(step 5)" in result.failure[0]
        assert (result.terminated[0], result.success[0]) == (True, False)
        assert result.reward[0, 0] == (-0.5 if where == "frames" else 0.0)
        assert result.outcome == (result.failure[0], "success")
        assert world.step_chunk(actions).num_steps.tolist() == [0, 0]
        assert task.made[0].closed and not task.made[1].closed
        observation, info = world.reset_to([walk(seed_of(3.0))], [0])
        assert (observation["instruction"][0], info["broken"]) == ("go to +3", {})
        assert world.step_chunk(FORWARD).outcome[0] == "success", "in a new environment"
        assert len(task.made) == 3


class Stillborn(Walk):
    """Its episodes of seed 7 cannot begin."""

    def reset(self, env: Any, spec: Any) -> Any:
        if spec.seed == 7:
            raise ValueError("no layout for 7")
        return super().reset(env, spec)


def test_an_episode_that_fails_to_reset_takes_no_steps_and_has_blank_observations() -> None:
    with closing(corridors(2, walk=Stillborn())) as world:
        world.reset_to([walk(3), walk(4)], [0, 1])
        observation, info = world.reset_to([walk(7), walk(seed_of(3.0))], [0, 1])
        assert list(info["broken"]) == [0]
        assert "reset raised ValueError: no layout for 7 (test_suites_gymnasium_trouble.py:" in info["broken"][0]
        assert observation["instruction"] == ("", "go to +3")
        assert not observation["frames"]["image"][0].any()
        result = world.step_chunk(FORWARD)
        assert (result.num_steps.tolist(), result.broken) == ([0, 2], {0})
        assert result.success.tolist() == [False, True]


def test_an_invalid_expert_action_ends_the_episode_before_its_next_step() -> None:
    class Lost(Walk):
        def expert_action(self, env: Any, observation: Any) -> Any:
            return [np.nan] if env.door > 0 else super().expert_action(env, observation)

    with closing(corridors(2, walk=Lost())) as world:
        world.reset_to([walk(seed_of(3.0)), walk(seed_of(-3.0))], [0, 1])
        assert world.expert_action().tolist() == [[0.0], [-1.0]]
        result = world.step_chunk(FORWARD)
        assert (result.num_steps.tolist(), result.broken) == ([0, 3], {0})
        assert result.failure[0] == "element 0 of the expert's action is nan, which is not a finite float32 (step 0)"


class Theirs(Walk):
    """An environment whose info, observation or picture is another than LeRobot's."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def make_env(self) -> Any:
        changes = self.changes

        class Env(Corridor):
            def step(self, action: Any) -> Any:
                seen, reward, over, cut, info = super().step(action)
                return seen, reward, over, cut, changes.get("info", lambda info: info)(info)

            def seen(self) -> Any:
                return changes.get("seen", lambda seen: seen)(super().seen())

            def render(self) -> Any:
                return changes.get("render", lambda picture: picture)(super().render())

        env = Env()
        env.action_space = changes.get("action_space", env.action_space)
        return env


@pytest.mark.parametrize(
    ("changes", "message"),
    {
        "success": (
            {"info": lambda info: {"success": info["is_success"]}},
            r"info of a step has no 'is_success': it has 'success'; write success\(self, env, info\) in Theirs",
        ),
        "no keys": ({"info": lambda _: {}}, "info of a step has no 'is_success': it has no keys; write success"),
        "info None": ({"info": lambda _: None}, "info of a step has no 'is_success': it is None; write success"),
        "info tuple": ({"info": lambda _: (1, 2)}, "info of a step has no 'is_success': it is a tuple of 2; write"),
        "success flags": (
            {"info": lambda _: {"is_success": np.zeros(2, bool)}},
            r"success must be True or False, or an array of one, got an array bool \(2,\)",
        ),
        "word": (
            {"info": lambda _: {"is_success": "no"}},
            "success must be True or False, or an array of one, got a str: 'no'",
        ),
        "array": (
            {"seen": lambda _: np.zeros(4)},
            r"the observation has no 'agent_pos': it is an array float64 \(4,\); write state\(self, env, observation\)",
        ),
        "tuple": ({"seen": lambda _: (0, 1)}, "the observation has no 'agent_pos': it is a tuple of 2; write state"),
        "keys": (
            {"seen": lambda seen: {"observation": 1, "goal": 2}},
            "the observation has no 'agent_pos': it has 'observation', 'goal'; write state",
        ),
        "matrix": (
            {"seen": lambda _: {"agent_pos": np.zeros((2, 3))}},
            r"the state must be a vector of numbers, got an array float64 \(2, 3\)",
        ),
        "no picture": ({"render": lambda _: None}, r"env.render\(\) gave None; make the environment with render_mode="),
        "float picture": ({"render": lambda picture: picture / 255}, r"camera 'image' gives float64 \(4, 11, 3\)"),
        "discrete": (
            {"action_space": gymnasium.spaces.Discrete(4)},
            r"actions must be a flat Box with finite bounds, got Discrete\(4\); wrap the environment",
        ),
        "rank": (
            {"action_space": gymnasium.spaces.Box(-1, 1, (2, 3))},
            "actions must be a flat Box with finite bounds",
        ),
    }.values(),
)
def test_an_environment_with_another_interface_is_rejected_with_the_method_to_override(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        corridors(1, walk=Theirs(**changes))


@pytest.mark.parametrize("wrap", [np.bool_, np.array, lambda yes: np.array([yes]), lambda yes: (yes,), float, int])
def test_a_success_flag_may_be_an_array_of_one_element(wrap: Callable[[bool], Any]) -> None:
    with closing(corridors(1, walk=Theirs(info=lambda info: {"is_success": wrap(info["is_success"])}))) as world:
        world.reset_to([walk(seed_of(3.0))], [0])
        assert world.step_chunk(FORWARD[:1]).success.tolist() == [True]


def test_numbers_may_be_of_any_numeric_type() -> None:
    assert (number_of("n", np.float16(0.5)), number_of("n", [2]), number_of("n", np.array(True))) == (0.5, 2.0, 1.0)
    assert vector_of("v", 3).tolist() == [3.0]
    assert vector_of("v", [1, 2.5], 2).dtype == np.float32
    assert success_flag_of("s", np.array([[1]])) is True
    assert labels_of({"b": 1, "a": np.array([2.0])}, ("a", "b")) == {"a": 2.0, "b": 1.0}
    for given in ("1", object(), 1j, [[1], [2, 3]]):
        with pytest.raises(WorldError, match="n must be a number, got "):
            number_of("n", given)


def test_differences_between_two_resets_are_reported_with_their_size() -> None:
    class Told(Walk):
        count = 0

        def make_env(self) -> Any:
            return Corridor(reset_moves_back=False)

        def instruction(self, env: Any) -> str:
            self.count += 1
            return f"go, the {self.count}. time"

    with pytest.raises(ValueError, match="has another first observation") as caught:
        corridors(1, walk=Told())
    message = str(caught.value)
    assert "1 of 1 elements of the state (state_0 was 0, then 3)" in message
    assert "8 of 44 pixels of camera 'image', by up to 255 of 255" in message
    assert "the instruction was 'go, the 1. time', then 'go, the 2. time'" in message


@pytest.mark.parametrize("limit", [0, -3, 2.5, True])
def test_a_step_limit_must_be_a_positive_integer(limit: Any) -> None:
    task = Walk()
    task.max_steps = limit
    with pytest.raises(ValueError, match=f"the step limit of task 'walk' must be at least 1, got {limit}"):
        corridors(1, walk=task)


@pytest.mark.parametrize("sentence", ["", "  ", None, b"go", 3])
def test_an_instruction_must_be_text(sentence: Any) -> None:
    task = Walk()
    task.instruction = lambda env: sentence
    with pytest.raises(ValueError, match="the instruction must be a sentence, got "):
        corridors(1, walk=task)


class Blind(Walk):
    """Nobody wrote an expert."""

    expert_action = GymnasiumTask.expert_action


def test_a_task_without_an_expert_is_named() -> None:
    with closing(corridors(1, walk=Walk(), blind=Blind())) as world:
        world.reset_to([walk(0, task="blind")], [0])
        with pytest.raises(NotImplementedError, match="Blind has no expert_action"):
            world.expert_action()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": walk(0)}, "reset has no option 'spec'; options: 'specs', 'variation', 'reset_mask'"),
        (
            {"specs": [walk(0)], "variation": "train"},
            "options has specs, each with its variation, and another variation",
        ),
        ({"specs": [walk(0), walk(1)]}, "2 specs begin in as many different worlds"),
        ({"specs": ["corridor/walk/train/0"]}, "an episode is begun by an EpisodeSpec"),
        ({"variation": "dark"}, "variation 'dark' does not exist; variations: train"),
        ({"reset_mask": [1]}, r"reset_mask must be bool \(1,\), got int64"),
        ({"reset_mask": [True, False]}, r"reset_mask must be bool \(1,\), got bool \(2,\)"),
    ],
)
def test_reset_options_are_applied_or_rejected_by_name(options: dict[str, Any], message: str) -> None:
    with closing(corridors(1)) as world, pytest.raises(ValueError, match=message):
        world.reset(seed=1, options=options)


@pytest.mark.parametrize(
    ("actions", "got"),
    [
        ([[[1.0]]], "list"),
        (np.array([[["1"]]]), "<U1"),
        (np.ones((1, 1, 1), bool), "bool"),
        (np.ones((1, 1, 1), "O"), "object"),
    ],
)
def test_actions_must_be_a_numeric_array(actions: Any, got: str) -> None:
    with closing(corridors(1)) as world, pytest.raises(ValueError, match=f"actions must be numbers in .*, got {got}"):
        world.step_chunk(actions)


@pytest.mark.parametrize("worlds", [[0], [0, 2], [-1, 0], [1, 1], [0, 1, 0]])
def test_every_spec_needs_its_own_world(worlds: list[int]) -> None:
    with closing(corridors(2)) as world, pytest.raises(ValueError, match=r"2 specs begin in as many .* of 0\.\.1, got"):
        world.reset_to([walk(1), walk(2)], worlds)


def test_an_environment_that_fails_to_close_does_not_keep_the_others_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Corridor):
        def close(self) -> None:
            super().close()
            raise RuntimeError("the window is gone")

    class Walks(Walk):
        def make_env(self) -> Any:
            made.append(Stuck())
            return made[-1]

    made: list[Stuck] = []

    with closing(corridors(3, walk=Walks())) as world:
        world.reset_to([walk(n) for n in range(3)], range(3))
    assert [env.closed for env in made] == [True] * 3
    assert [line.split(" (")[0] for line in caplog.messages] == ["close raised RuntimeError: the window is gone"] * 3


def test_sys_exit_in_an_environment_or_a_module_fails_only_that_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(_env: Any, _right: Any) -> Any:
        sys.exit(3)

    with closing(corridors(1, walk=Falls(leave))) as world:
        world.reset_to([walk(seed_of(-3.0))], [0])
        result = world.step_chunk(np.full((1, 8, 1), -1.0, np.float32))
    assert result.failure[0] is not None and result.failure[0].startswith("step raised SystemExit: 3")
    (tmp_path / "a_script.py").write_text("import sys\nsys.exit('usage: a_script FILE')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(ValueError, match="'a_script:make' cannot be imported: SystemExit: usage: a_script FILE"):
        make_world("a_script:make")


def test_the_error_of_a_function_that_makes_no_world_says_what_it_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_worlds.py").write_text("def make(num_worlds):\n    return {}['arm']\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(ValueError, match=r"world 'broken_worlds:make' raised KeyError: 'arm' \(broken_worlds.py:2\)"):
        make_world("broken_worlds:make")


def test_a_task_declares_gripper_actions_and_the_hand_position() -> None:
    class Hand(Walk):
        grippers, position = (0,), (1, 2, 3)

        def state(self, env: Any, observation: Any) -> Any:
            return [0.0, env.x, 0.0, 0.0]

    with closing(corridors(1, walk=Hand())) as world:
        assert (world.world_spec.action.grippers, world.world_spec.state.position) == ((0,), (1, 2, 3))
    walking = Walk()
    walking.position = (1, 2, 3)
    with pytest.raises(ValueError, match=r"position \(1, 2, 3\) must be elements 0 to 0 of state_0"):
        corridors(1, walk=walking)


def test_a_task_declares_which_labels_are_image_coordinates() -> None:
    class Seen(Walk):
        places = (("image", "door_image_u", "door_image_v"),)

        def labels(self, env: Any) -> Any:
            return {"door_x": 0.0, "door_image_u": 0.1, "door_image_v": 0.2}

    with closing(corridors(1, walk=Seen())) as world:
        labels = world.world_spec.localization
        assert labels.places == (("image", 1, 2),)
        assert labels.units == ("m", "half frame", "half frame")
    wrong = {
        (("front", "door_image_u", "door_image_v"),): r"of Seen has the camera 'front'; cameras: image",
        (("image", "door_u", "door_image_v"),): r"of Seen has the label 'door_u'; labels: door_x, door_image_u",
        (): r"'door_image_u' is named like an image coordinate .* write places = \(\('image', 'door_image_u', 'door_",
    }
    for places, message in wrong.items():
        task = Seen()
        task.places = places
        with pytest.raises(ValueError, match=message):
            corridors(1, walk=task)
