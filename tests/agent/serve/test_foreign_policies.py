"""`llamarm eval` of a stranger's policy: a server that speaks openpi's reference wire, ours, and a function."""

from __future__ import annotations

import pickle
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import openpi_server
from serving import served
from sides_policy import STATISTICS, sides_model
from tiny_model import tiny_processor, tiny_vla

from agent import cli
from agent.commands.compare import tables
from agent.commands.shared.acting import ActingConfig, Folder, acting
from agent.evaluation.eval_info import read_eval_info
from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.measure import measure
from agent.runs.run_folder import RunFolder
from agent.serve.foreign.config import AdapterConfig, ServerAccessConfig
from agent.serve.foreign.sources import foreign_source
from benchmarks.campaign.sides import SPEC, SidesWorld
from rollout.workers.workers import WorkersConfig
from vla_model.inputs.processor import Processor
from vla_model.policy import VLAPolicy

WORLD = "benchmarks.campaign.sides:make_world"
LIBERO = ("--adapter.preset", "libero")


def side_of(prompt: str) -> float:
    return 1.0 if "right" in prompt else -1.0


class Walker:
    """A policy as one writes it for openpi's LIBERO keys: seven columns, the first of which walks, in chunks of ten."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def __call__(self, obs: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.seen.append(obs)
        sees = obs["observation/image"].max() > 0
        actions = np.zeros((10, 7))
        actions[:, 3] = side_of(obs["prompt"]) * sees * 10 - 5  # the world's is (column 3 + 5) / 10
        return {"actions": actions}


WALKS = ("--adapter.columns", "3", "--adapter.scale", "0.1", "--adapter.offset", "0.5")


def evaluated(policy: str, out: Path, *options: str) -> dict[str, Any]:
    cli.main(
        ["eval", policy, "--world", WORLD, "--tasks", "left", "right", "--out", str(out), "--episodes", "6", *options]
    )
    return read_eval_info(out / "eval_info.json")


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        cli.main(args)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def failures(info: dict[str, Any]) -> dict[str, str | None]:
    return {episode["id"]: episode["failure"] for episode in info["per_episode"]}


def test_an_openpi_server_is_measured_on_the_episodes_of_everyone_with_controls_and_videos(tmp_path: Path) -> None:
    walker = Walker()
    with openpi_server(walker) as url:
        info = evaluated(url, tmp_path, *LIBERO, *WALKS, "--controls", "--videos", "1", "--num-worlds", "4")
    assert info["overall"]["pc_success"] == 100.0
    assert info["controls"]["shuffled instructions"]["pc_success"] == 0.0
    assert info["controls"]["black frames"]["pc_success"] == 0.0
    assert info["protocol"]["n_action_steps"] == 5, "as openpi's LIBERO example executes"
    assert len(list((tmp_path / "videos").iterdir())) == 2
    latency = info["overall"]["decision_ms"]
    assert latency["decisions"] == 12, "three steps of five that a chunk may take"
    assert 0 < latency["median"] <= latency["p95"] <= latency["max"]
    (obs,) = {tuple(sorted(obs)) for obs in walker.seen}
    assert obs == ("observation/image", "observation/state", "observation/wrist_image", "prompt")
    assert {obs["observation/image"].shape for obs in walker.seen} == {(224, 224, 3)}
    assert {obs["observation/state"].dtype.str for obs in walker.seen} == {"<f4"}


def test_the_episodes_are_paired_with_those_of_another_policy(tmp_path: Path) -> None:
    with openpi_server(Walker()) as url:
        walker = evaluated(url, tmp_path / "walker", *LIBERO, *WALKS, "--videos", "0")
    expert = evaluated("expert", tmp_path / "expert", "--videos", "0")
    assert [e["id"] for e in walker["per_episode"]] == [e["id"] for e in expert["per_episode"]]
    table = "\n".join(tables(("expert", "walker"), expert, walker))
    assert "| all 12 | 66.7 | 100.0 | +33.3 |" in table


def test_our_own_server_gives_the_episodes_of_the_policy_itself(tmp_path: Path) -> None:
    def policy() -> VLAPolicy:
        processor = Processor.from_statistics(SPEC, STATISTICS, instruction_length=24)
        return VLAPolicy(sides_model(instruction_length=24), processor, version=7)

    # One world: the server's batches have any size, and then the last bits of an action may differ.
    config = ActingConfig(world=WORLD, tasks=("left", "right"), episodes=6, num_worlds=1, n_action_steps=2)
    with acting("here", Folder("here", policy()), config, WorkersConfig(workers=0)) as (setup, tasks, steps):
        measure(setup, tasks, config.evaluation(steps), RunFolder(tmp_path / "here"))
    here = read_eval_info(tmp_path / "here" / "eval_info.json")
    with served(policy()) as url:
        there = evaluated(url, tmp_path / "there", "--videos", "0", "--num-worlds", "1")
    assert there["per_episode"] == here["per_episode"]
    assert there["protocol"] == here["protocol"]
    assert {episode["failure"] for episode in there["per_episode"]} <= {None, "step limit", "wrong side"}


WRONG = {
    "a wrong shape": ({"actions": np.zeros(7)}, r"answers with actions of shape \(7,\)"),
    "too few columns": ({"actions": np.zeros((10, 3))}, r"the answer has 3 columns; the world's action has 1: dx"),
    "too few actions": ({"actions": np.zeros((2, 7))}, "the answer has 2 actions, and 5 are to be executed of each"),
    "NaN": ({"actions": np.full((10, 7), np.nan)}, "answers with actions that are not finite numbers"),
    "another key": ({"action": np.zeros((10, 7))}, "'actions' is missing; what came: 'action', 'server_timing'"),
    "text": ("all is well", "refuses the observation: all is well"),
    "garbage": (b"\xc1", "answers with something other than actions: the 1 bytes"),
}


@pytest.mark.parametrize(("answer", "message"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_answer_ends_its_own_episode_by_name_and_no_other(answer: Any, message: str, tmp_path: Path) -> None:
    walker = Walker()

    def infer(obs: dict[str, Any]) -> Any:
        good = walker(obs)
        return answer if obs["prompt"] == "go right, number 1000002" else good

    with openpi_server(infer) as url:
        info = evaluated(url, tmp_path, *LIBERO, *WALKS, "--videos", "0", "--num-worlds", "4")
    (failed,) = [(id_, why) for id_, why in failures(info).items() if why is not None]
    assert failed[0] == "sides/right/train/1000002"
    assert failed[1].startswith("its policy failed: ")
    assert re.search(message, failed[1])
    assert info["overall"]["pc_success"] == pytest.approx(100 * 11 / 12)


def test_a_server_that_raises_costs_the_episode_and_its_last_words_are_kept(tmp_path: Path) -> None:
    walker = Walker()

    def infer(obs: dict[str, Any]) -> Any:
        if obs["prompt"] == "go left, number 1000000":
            raise RuntimeError("the GPU is full")
        return walker(obs)

    with openpi_server(infer) as url:
        info = evaluated(url, tmp_path, *LIBERO, *WALKS, "--videos", "0", "--num-worlds", "4")
    (why,) = [why for why in failures(info).values() if why is not None]
    assert "RuntimeError: the GPU is full" in why
    assert info["overall"]["n_episodes"] == 12


def test_an_observation_without_an_answer_costs_its_episode_alone(tmp_path: Path) -> None:
    walker = Walker()

    def infer(obs: dict[str, Any]) -> Any:
        if obs["prompt"] == "go right, number 1000001":
            ended.wait(timeout=600)
        return walker(obs)

    ended = threading.Event()
    hasty = ("--server.timeout-s", "1.5", "--server.patience-s", "2")
    with openpi_server(infer) as url:
        info = evaluated(url, tmp_path, *LIBERO, *WALKS, *hasty, "--videos", "0", "--num-worlds", "4")
        ended.set()
    (why,) = [why for why in failures(info).values() if why is not None]
    assert why.endswith("gave no answer for 2 s")


def test_a_server_that_comes_back_costs_nothing(tmp_path: Path) -> None:
    walker = Walker()
    with openpi_server(lambda _: {"actions": np.zeros((10, 7))}) as url:
        port = int(url.rpartition(":")[2])
    gone = threading.Event()

    def infer(obs: dict[str, Any]) -> Any:
        good = walker(obs)
        if len(walker.seen) == 5:
            gone.set()
        return good

    done = threading.Event()

    def serve_twice() -> None:
        with openpi_server(infer, port=port):
            gone.wait(timeout=600)
        with openpi_server(infer, port=port):
            done.wait(timeout=600)

    server = threading.Thread(target=serve_twice)
    server.start()
    try:
        info = evaluated(url, tmp_path, *LIBERO, *WALKS, "--videos", "0", "--num-worlds", "2")
    finally:
        gone.set()
        done.set()
        server.join()
    assert info["overall"]["pc_success"] == 100.0


def test_when_a_server_is_gone_what_was_measured_is_kept_and_the_rest_is_set_aside_by_name(tmp_path: Path) -> None:
    walker = Walker()
    gone = threading.Event()

    def infer(obs: dict[str, Any]) -> Any:
        if len(walker.seen) >= 6:
            gone.set()
            time.sleep(0.5)
        return walker(obs)

    found: dict[str, Any] = {}

    def evaluate(url: str) -> None:
        hasty = ("--server.timeout-s", "5", "--server.patience-s", "1")
        found.update(evaluated(url, tmp_path, *LIBERO, *WALKS, *hasty, "--videos", "0", "--num-worlds", "2"))

    with openpi_server(infer) as url:
        evaluation = threading.Thread(target=evaluate, args=(url,))
        evaluation.start()
        gone.wait(timeout=600)
    evaluation.join(timeout=300)
    assert not evaluation.is_alive(), "each episode would have waited for the server again"
    reasons = [why for why in failures(found).values() if why is not None]
    assert 0 < len(reasons) < 12
    assert all(why.startswith(f"its policy failed: {url} ") for why in reasons)


def test_a_worker_gets_the_source_without_its_connections() -> None:
    world = SidesWorld(2)
    with openpi_server(Walker()) as url:
        config = AdapterConfig(preset="libero", columns=(3,), scale=(0.1,), offset=(0.5,))
        source = foreign_source(url, config, ServerAccessConfig())
        assert source is not None
        assert source.steps(None) == 5
        source.make_policy(world)
        in_worker = pickle.loads(pickle.dumps(source))  # noqa: S301, our own object
        policy = in_worker.make_policy(world)
        specs = evaluation_specs("sides", ("left", "right"), 2)
        observation, _ = world.reset_to(specs[:2], [0, 1])
        policy.begin([0, 1], observation["instruction"], (0, 0))
        assert policy.act([0, 1], observation).actions[:, :, 0].tolist() == [[-1.0] * 5, [1.0] * 5]
        for each in (source, in_worker):
            each.close()


def test_a_server_that_never_answers_right_is_given_up_with_its_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with openpi_server(lambda _: {"actions": np.zeros(7)}) as url:
        said = refused(
            ["eval", url, "--world", WORLD, "--out", str(tmp_path), "--episodes", "20", "--tasks", "left", *LIBERO],
            capsys,
        )
    last = said.splitlines()[-1]
    assert last.startswith("llamarm: none of the first 16 episodes could be run to its end; of the last one its policy")
    assert last.endswith("answers with actions of shape (7,), expected [actions, dimensions]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--adapter.cameras", "a=top"), "a is to show the camera 'top', and the world has front, wrist"),
        (("--adapter.cameras", "top"), "--adapter.cameras 'top' is not KEY=CAMERA or KEY=CAMERA:HEIGHTxWIDTH"),
        (("--adapter.state", "s=y"), "'y' is neither a name nor an index of the world's state of 1 numbers: x"),
        (("--adapter.state", "s=0..0@rot6d:quat_xyzw"), "0..0 has 1 numbers, and a rotation as rot6d 6"),
        (("--adapter.rotation", "3:quaternion"), "rotation convention 'quaternion' does not exist; conventions: axis_"),
        (
            ("--adapter.columns", "0", "1"),
            "--adapter.columns has 2 columns, expected one for each dimension of the",
        ),
        (("--adapter.scale", "1", "2"), "--adapter.scale has 2 values, expected one, or one for each dimension of the"),
    ],
)
def test_what_does_not_fit_the_world_is_refused_before_an_episode(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walker = Walker()
    with openpi_server(walker) as url:
        said = refused(["eval", url, "--world", WORLD, "--out", str(tmp_path), *options], capsys)
    assert message in said
    assert said.count("\n") == 1 + said.startswith("llamarm ws")
    assert not walker.seen


def test_a_preset_for_cameras_that_the_world_lacks_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with openpi_server(Walker()) as url:
        said = refused(["eval", url, "--world", WORLD, "--out", str(tmp_path), "--adapter.preset", "aloha"], capsys)
    assert (
        "images[cam_high] is to show the camera 'cam_high', and the world has front, wrist; name one: "
        "--adapter.cameras images[cam_high]=front:224x224\n" in said
    )


def test_options_of_a_server_are_refused_with_another_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (("--adapter.preset", "libero"), ("--server.timeout-s", "5")):
        said = refused(["eval", "expert", "--world", WORLD, "--out", str(tmp_path), *options], capsys)
        assert said == (
            "llamarm: options --adapter and --server are of a server, ws://HOST:PORT or vla-eval+ws://HOST:PORT, got "
            "expert\n"
        )


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n_action_steps": 0}, "says that n_action_steps is 0, expected 1 or more (--n-action-steps)"),
        ({"n_action_steps": 9, "action_horizon": 5}, "n_action_steps must be within 1..5, the chunk's length, got 9"),
        ({"n_action_steps": "all"}, "says that n_action_steps is 'all', expected a value of int"),
    ],
)
def test_a_server_that_misstates_its_protocol_is_refused_before_an_episode(
    metadata: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with openpi_server(Walker(), metadata=metadata) as url:
        said = refused(["eval", url, "--world", WORLD, "--out", str(tmp_path), *LIBERO, *WALKS], capsys)
    assert message in said
    assert "evaluation" not in said


def test_nobody_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with openpi_server(Walker()) as url:
        pass
    for name in (url, f"vla-eval+{url}"):
        said = refused(["eval", name, "--server.patience-s", "0.2", "--out", str(tmp_path), "--world", WORLD], capsys)
        assert said.startswith(f"llamarm: {url} cannot be reached: ")
        assert said.endswith("; start its server, or correct the address\n")
        assert said.count("\n") == 1


def test_waiting_for_a_server_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with openpi_server(Walker()) as url:
        pass
    said = refused(["eval", url, "--server.patience-s", "1.5", "--out", str(tmp_path), "--world", WORLD], capsys)
    waits, reason = said.splitlines()
    assert waits.startswith(f"llamarm {url}: ")
    assert waits.endswith("Connection refused; tries again for 1.5 s (--server.patience-s)")
    assert reason.startswith(f"llamarm: {url} cannot be reached: ")


def test_a_served_policy_of_another_world_is_refused_with_the_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(VLAPolicy(tiny_vla(), tiny_processor())) as url:
        said = refused(["eval", url, "--world", WORLD, "--out", str(tmp_path)], capsys)
    assert f"the policy of {url} was made for another world:\n" in said
    assert "\n  state_names is ['x'], expected " in said


def test_a_function_gives_a_policy_to_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "walking.py").write_text(
        "import numpy as np\n"
        "from llamarm import ActionChunk\n"
        "class Walking:\n"
        "    version = 3\n"
        "    def __init__(self, world_spec): self.size = world_spec.action.size\n"
        "    def begin(self, worlds, instructions, seeds): pass\n"
        "    def act(self, worlds, observation):\n"
        "        right = ['right' in text for text in observation['instruction']]\n"
        "        side = np.array([[1.0 if each else -1.0] * self.size for each in right])\n"
        "        return ActionChunk(actions=np.repeat(side[:, None], 4, axis=1))\n"
    )
    monkeypatch.chdir(tmp_path)
    info = evaluated("walking:Walking", tmp_path / "out", "--videos", "0", "--n-action-steps", "2")
    assert info["overall"]["pc_success"] == 100.0
    assert info["protocol"]["policy_versions"] == [3]


def test_a_function_that_gives_no_policy_is_told_what_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.py").write_text("def make(world_spec): return None\n")
    monkeypatch.chdir(tmp_path)
    said = refused(["eval", "none:make", "--world", WORLD, "--out", str(tmp_path / "out")], capsys)
    assert said.endswith(
        "llamarm: policy 'none:make' gave a NoneType, expected a llamarm.Policy; it lacks version, begin, act\n"
    )
