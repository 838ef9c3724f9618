"""The commands that need a world, on the tabletop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from next_commands import next_commands

from agent import cli
from agent.commands.drive import judge
from agent.commands.shared.options import parse_with
from agent.commands.train import Train
from agent.recipes import sft_memory
from agent.robot.drive import Outcome
from agent.runs.policies import load_policy
from envs.make import make_world
from rollout.dataset.read import DatasetReader
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import SIZES, ModelConfig
from vla_model.weights.checkpoint import save_policy


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for the tabletop with random weights."""
    with closing(make_world("tabletop")) as world:
        spec = world.world_spec
    vectors = {"observation.state": spec.state, "action": spec.action, "label.localization": spec.localization}
    unit = {name: {"mean": np.zeros(v.size), "std": np.ones(v.size)} for name, v in vectors.items()}
    folder = tmp_path_factory.mktemp("untrained") / "policy"
    torch.manual_seed(0)
    save_policy(folder, VLA(SIZES["nano"](spec)), Processor.from_statistics(spec, unit))
    return folder


@pytest.fixture
def threads_of_torch() -> Iterator[None]:
    """As many as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_of_torch")
def test_drive_moves_the_arm_in_real_time_and_records_it(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "drives"
    cli.main(["drive", str(untrained), "--task", "stack", "--seconds", "1", "--record", str(record)])
    lines = capsys.readouterr().out.splitlines()
    assert " -> no success: time limit, " in lines[0]
    assert lines[-1].startswith("interventions: ")
    (row,) = DatasetReader(record).episodes
    assert 1 <= row["length"] <= 10
    assert lines[0].startswith(row["tasks"][0])


@pytest.mark.usefixtures("threads_of_torch")
def test_drive_refuses_an_invalid_robot_or_task(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        ("--task", "stak"): "task 'stak' does not exist, did you mean 'stack'?",
        ("--robot", "arm"): "robot 'arm' is neither 'sim' nor MODULE:FUNCTION",
        ("--instruction", ""): "--instruction has an empty value",
        (
            "--robot",
            "pathlib:Path",
        ): "robot 'pathlib:Path' gave a PosixPath, expected a robot, whose spec is a RobotSpec",
        (
            "--robot",
            "json:dumps",
        ): "robot 'json:dumps' raised TypeError: dumps() missing 1 required positional argument",
        ("--robot", "no_such_arm:make"): "cannot be imported: No module named 'no_such_arm'",
    }
    for args, text in expected.items():
        with pytest.raises(SystemExit):
            cli.main(["drive", str(untrained), *args])
        assert text in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "success"), [("y", True), ("", False), (None, None)], ids=["yes", "no", "eof"])
def test_a_person_judges_a_drive_without_a_success_flag(
    answer: str | None, success: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(question: str) -> str:
        assert question == "time limit. Success? [y/N] "
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", said)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    nothing = np.zeros(0)
    outcome = Outcome(
        instruction="go",
        success=None,
        ended="time limit",
        num_steps=0,
        missed_periods=0,
        lateness_ms=nothing,
        inference_ms=nothing,
        interventions=(),
    )
    assert judge(outcome) is success
    assert judge(replace(outcome, success=False)) is False, "the robot knows"


def test_plan_prints_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["plan", "--memory", "1GiB", "--models", "nano", "llama3_8b"])
    text = capsys.readouterr().out
    assert "nano" in text
    assert "too large in every format: llama3_8b" in text
    with pytest.raises(SystemExit):
        cli.main(["plan", "--memory", "lots"])
    assert "'lots' is not an amount of memory" in capsys.readouterr().err


def evaluated(folder: Path, *args: str) -> dict[str, Any]:
    """What `llamarm eval` writes."""
    cli.main(["eval", *args, "--out", str(folder), "--num-worlds", "2"])
    return json.loads((folder / "eval_info.json").read_text())


def test_eval_of_the_expert_writes_results_controls_and_a_video(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = evaluated(tmp_path, "expert", "--tasks", "reach", "press_button", "--episodes", "2", "--controls")
    said = capsys.readouterr().err
    amount = "4 episodes of 2 tasks"
    assert said.startswith(f"llamarm eval: evaluates {amount}, then {amount} with each blind control\n")
    assert next_commands(said) == [["report", str(tmp_path)]]
    assert info["overall"]["n_episodes"] == 4
    assert info["overall"]["pc_success"] == 100.0
    assert set(info["controls"]) == {"shuffled instructions", "black frames"}
    assert info["controls"]["black frames"]["pc_success"] == 100.0, "this expert reads the simulator"
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "press_button-train-1000000-success.mp4",
        "reach-train-1000000-success.mp4",
    ]


def test_the_model_is_configured_by_options(tmp_path: Path) -> None:
    def model_of(*args: str) -> ModelConfig:
        command = ["--out", str(tmp_path), *args]
        return parse_with(Train, "train sft_memory", command, config=sft_memory()).config.model

    assert model_of() == ModelConfig(history_length=1, history_stride=64)
    options = ("--model", "smol", "--model.num-experts", "4", "--model.vision", "vit", "--model.history-length", "0")
    assert model_of(*options) == ModelConfig(
        name="smol", num_experts=4, vision="vit", history_length=0, history_stride=64
    )


@pytest.mark.long
def test_a_policy_with_a_history_is_trained_and_evaluated_in_a_worker(tmp_path: Path) -> None:
    small = "--demonstrations.episodes-per-task 2 --learner.num-updates 2 --learner.batch-size 4".split()
    small += ["--learner.warmup-updates", "1"]
    judged = ("--evaluation.episodes-per-task", "1", "--evaluation.videos-per-task", "0", "--evaluation.no-controls")
    cli.main(
        [
            "train",
            "sft_memory",
            "--workers",
            "1",
            *small,
            "--learner.batch-size",
            "4",
            *judged,
            "--out",
            str(tmp_path / "run"),
        ]
    )
    info = json.loads((tmp_path / "run" / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 1
    policy = load_policy(str(tmp_path / "run"))
    assert policy.model.config.history == (1, 64)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose episodes ran in a Ray worker."""
    root = tmp_path_factory.mktemp("trained") / "run"
    cli.main(["train", "sft_tiny", "--workers", "1", "--evaluation.no-controls", "--out", str(root)])
    return root


def test_train_collects_and_evaluates_in_a_worker(trained: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    assert record["config"]["rollout"]["workers"] == 1
    assert record["sessions"][0]["outcome"] == "finished"
    assert [phase["name"] for phase in record["phases"]] == ["collect", "update", "evaluate"]
    assert record["phases"][0]["workers_replaced"] == 0
    info = json.loads((trained / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 2
    assert "<html" in (trained / "report.html").read_text()


def test_eval_of_a_run_reproduces_its_evaluation(trained: Path, tmp_path: Path) -> None:
    """Its tasks, and as many actions of each chunk; the policy is that of the last checkpoint."""
    for number, policy in enumerate((trained, trained / "checkpoints" / "000004")):
        protocol = evaluated(tmp_path / str(number), str(policy), "--episodes", "1", "--videos", "0")["protocol"]
        assert protocol["tasks"] == ["press_button", "reach"]
        assert protocol["n_action_steps"] == 2
        assert protocol["policy_versions"] == [4]


def test_eval_runs_on_warp_with_the_expert_and_with_a_policy_in_a_worker(trained: Path, tmp_path: Path) -> None:
    on_warp = ("--device", "warp", "--tasks", "reach", "--videos", "0")
    expert = evaluated(tmp_path / "expert", "expert", *on_warp, "--episodes", "2")["overall"]
    assert (expert["n_episodes"], expert["pc_success"]) == (2, 100.0)
    policy = evaluated(tmp_path / "policy", str(trained), *on_warp, "--episodes", "1", "--workers", "1")["overall"]
    assert policy["n_episodes"] == 1


TINY_IMPROVEMENT = """
    --workers 0 --iterations 1 --selection-episodes 1 --learner.batch-size 8 --practice.tasks reach
    --practice.episodes-per-task 2 --practice.num-worlds 2 --evaluation.episodes-per-task 2 --evaluation.num-worlds 2
    --evaluation.no-controls
""".split()


def test_train_ppo_fine_tunes_a_run_and_compares_the_policies(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "better"
    options = [*TINY_IMPROVEMENT, "--algorithm.warmup-iterations", "0"]
    cli.main(["train", "ppo_tabletop", "--init", str(trained), "--out", str(run), *options])
    text = capsys.readouterr().out
    assert "first -> best policy: " in text
    assert "of 2 episodes: " in text
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["init"] == str(trained)
    assert [phase["name"] for phase in record["phases"]] == ["improve", "evaluate"]
    infos = [json.loads((folder / "eval_info.json").read_text()) for folder in (run / "before", run)]
    ids = [[row["id"] for row in info["per_episode"]] for info in infos]
    assert ids[0] == ids[1] == ["tabletop/reach/train/1000000", "tabletop/reach/train/1000001"]
    assert "Before and after" in (run / "report.html").read_text()
    assert json.loads((run / "changes.json").read_text()).keys() <= {"fixed", "broken"}
    assert (run / "best" / "pretrained_model" / "model.safetensors").exists()


def test_train_without_an_initial_policy_is_refused_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for init, message in {
        (): "there is no initial policy; name a run or a policy's folder with --init",
        ("--init", str(tmp_path / "nothing")): "nothing is neither a policy (config.json), nor a checkpoint, nor a run",
    }.items():
        with pytest.raises(SystemExit) as exit_:
            cli.main(["train", "grpo_tabletop", *init, "--out", str(out)])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
        assert not out.exists()
