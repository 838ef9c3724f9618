"""A copied policy folder, without its run's record, acts, is evaluated and is served as the run is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from agent import cli
from agent.recipes import grpo_tabletop, sft_tiny
from agent.runs.policies import load_policy
from agent.runs.run_folder import PRETRAINED, RunFolder, start_run
from agent.serve import wire
from agent.training.config import RunConfig
from agent.training.improve import improve
from agent.training.loop import deployment_of, train
from vla_model.files.deployment import Deployment
from vla_model.inputs.processor import PROCESSOR_FILE

MADE_FOR = Deployment(n_action_steps=3, world="tabletop", tasks=("reach", "press_button"))


def config_of_run() -> RunConfig:
    config = sft_tiny()
    return replace(config, evaluation=replace(config.evaluation, controls=False, videos_per_task=0, n_action_steps=3))


@pytest.fixture(scope="module", name="run")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = start_run(tmp_path_factory.mktemp("bare") / "run", config_of_run())
    train(config_of_run(), run)
    return run


@pytest.fixture(name="bare")
def copied(run: RunFolder, tmp_path: Path) -> Path:
    return shutil.copytree(run.checkpoint(4) / PRETRAINED, tmp_path / "copy")


def forget(policy: Path) -> None:
    """A folder written before deployments were saved with policies."""
    file = policy / PROCESSOR_FILE
    content = json.loads(file.read_text())
    del content["deployment"]
    file.write_text(json.dumps(content))


def evaluated(policy: Path, out: Path, *args: str) -> dict[str, Any]:
    cli.main(["eval", str(policy), "--episodes", "2", "--videos", "0", "--num-worlds", "2", "--out", str(out), *args])
    return json.loads((out / "eval_info.json").read_text())


def about_policies(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines about policies that `eval` writes to standard error, but for what it will do."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith("llamarm ") and not line.startswith("llamarm eval: ")]


def announced(policy: Path, *args: str) -> tuple[dict[str, Any], list[str]]:
    """The metadata that `serve` sends to a client, and the lines on its standard error but for the last, what to do."""
    command = [sys.executable, "-m", "agent.cli", "serve", str(policy), "--port", "0", *args]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        with connect(process.stdout.readline().split()[0], compression=None, open_timeout=None) as connection:
            metadata = wire.unpack(connection.recv(timeout=60))
        process.terminate()
        _, said = process.communicate(timeout=60)
    *before, last = said.splitlines()
    assert last.startswith("To evaluate it, in another terminal: llamarm eval ws://127.0.0.1:")
    assert last.endswith(f" --world tabletop --out {policy}_served")
    return metadata, before


def test_a_run_saves_its_policys_deployment(run: RunFolder) -> None:
    assert [load_policy(str(run.checkpoint(n))).processor.deployment for n in (2, 4)] == [MADE_FOR, MADE_FOR]


def test_a_copied_policy_folder_evaluates_as_the_run_does(
    run: RunFolder, bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run, of_copy = evaluated(run.root, tmp_path / "a"), evaluated(bare, tmp_path / "b")
    assert of_copy["protocol"]["n_action_steps"] == of_run["protocol"]["n_action_steps"] == 3
    assert of_copy["protocol"]["tasks"] == of_run["protocol"]["tasks"] == ["press_button", "reach"]
    assert of_copy["per_episode"] == of_run["per_episode"]
    assert len(of_copy["per_episode"]) == 4
    assert not about_policies(capsys), "nothing differs"


def test_a_difference_from_the_deployment_is_printed_once(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = evaluated(run.root, tmp_path / "a", "--n-action-steps", "4", "--tasks", "lift")
    assert info["protocol"]["n_action_steps"] == 4
    assert about_policies(capsys) == [
        f"llamarm {run.root}: 4 actions of each chunk are executed; the policy was made for 3",
        f"llamarm {run.root}: it does lift; the policy was made for reach, press_button",
    ]


def test_more_action_steps_than_a_chunk_are_refused_before_anything_runs(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("eval", "experts", "serve"):
        out = [] if command == "serve" else ["--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as exit_:
            cli.main([command, str(bare), "--n-action-steps", "9", *out])
        assert exit_.value.code == 2
        assert capsys.readouterr().err == "llamarm: n_action_steps must be within 1..8, the chunk's length, got 9\n"
    assert not (tmp_path / "out").exists()


def test_training_with_more_action_steps_than_a_chunk_is_refused_before_collecting(tmp_path: Path) -> None:
    config = replace(config_of_run(), evaluation=replace(config_of_run().evaluation, n_action_steps=9))
    run = start_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match=r"n_action_steps must be within 1\.\.8, the chunk's length, got 9"):
        train(config, run)
    assert not run.dataset.exists()


def test_an_older_runs_deployment_is_read_from_its_record(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = RunFolder(shutil.copytree(run.root, tmp_path / "older"))
    forget(older.checkpoint(4) / PRETRAINED)
    assert load_policy(str(older.root)).processor.deployment == MADE_FOR
    info = evaluated(older.root, tmp_path / "a")
    assert (info["protocol"]["n_action_steps"], info["protocol"]["tasks"]) == (3, ["press_button", "reach"])
    assert not about_policies(capsys)


def test_for_an_older_copy_unknown_settings_and_their_defaults_are_printed(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget(bare)
    info = evaluated(bare, tmp_path / "a", "--tasks", "reach")
    assert info["protocol"]["n_action_steps"] == 8
    assert about_policies(capsys) == [
        f"llamarm {bare}: its n_action_steps is not known; all 8 actions of a chunk are executed (--n-action-steps)",
        f"llamarm {bare}: its world is not known; it acts in tabletop (--world)",
    ]


def test_a_copied_policy_folder_is_served_as_the_run_is(run: RunFolder, bare: Path) -> None:
    of_run, said = announced(run.root)
    of_copy, said_too = announced(bare)
    assert of_copy == of_run | {"policy_version": 0}, "the number of its checkpoint is all that a copy does not know"
    assert (of_run["n_action_steps"], of_run["world"], of_run["tasks"]) == (3, "tabletop", ["reach", "press_button"])
    assert of_run["control_hz"] == 10.0
    assert said == said_too == []
    differently, said = announced(bare, "--n-action-steps", "2")
    assert differently == of_copy | {"n_action_steps": 2}
    assert said == [f"llamarm {bare}: 2 actions of each chunk are executed; the policy was made for 3"]


def test_drive_runs_the_only_task_of_a_policys_deployment(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bare / PROCESSOR_FILE
    content = json.loads(file.read_text())
    content["deployment"] = {"n_action_steps": 2, "world": "tabletop_memory", "tasks": ["recall_button"]}
    file.write_text(json.dumps(content))
    cli.main(["drive", str(bare), "--seconds", "0.5"])
    printed = capsys.readouterr()
    assert "button" in printed.out.splitlines()[0]
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("llamarm drive: drives sim for at most 0.5 s: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ("eval", "--out", "out", "--tasks", "raech"),
            "task 'raech' does not exist, did you mean 'reach'? There are: ",
        ),
        (("drive", "--task", "raech"), "task 'raech' does not exist, did you mean 'reach'? There are: "),
        (("drive",), "name the task to drive: --task reach or press_button"),
    ],
)
def test_for_a_refused_task_no_difference_is_printed(
    bare: Path, args: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([args[0], str(bare), *args[1:]])
    error = capsys.readouterr().err
    assert error.startswith(f"llamarm: {said}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["eval", "experts", "drive"])
def test_no_module_named_by_a_policys_folder_is_imported(
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    (tmp_path / "strangers.py").write_text("open('imported', 'w').close()\nmake_world = None\n")
    monkeypatch.chdir(tmp_path)
    theirs = RunFolder(shutil.copytree(run.root, tmp_path / "theirs"))
    pretrained = theirs.checkpoint(4) / PRETRAINED
    file = pretrained / PROCESSOR_FILE
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"deployment": MADE_FOR.to_json() | {"world": "strangers:make_world"}}))
    options = [] if command == "drive" else ["--out", "out"]
    for forgotten in (False, True):  # then the run's record says it
        if forgotten:
            forget(pretrained)
            record = theirs.record
            record["config"]["demonstrations"]["world"] = "strangers:make_world"
            theirs.record_file.write_text(json.dumps(record))
        with pytest.raises(SystemExit) as exit_:
            cli.main([command, "theirs", *options])
        assert exit_.value.code == 2
        assert capsys.readouterr().err == (
            "llamarm: theirs was made for the world 'strangers:make_world', a module that is not imported on the word "
            "of a policy's folder; if you trust it, name it: --world strangers:make_world\n"
        )
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("evaluation", {}, "missing or invalid 'n_action_steps'"),
        ("evaluation", {"n_action_steps": "2", "episodes_per_task": 1}, "missing or invalid '<' not supported"),
        (
            "evaluation",
            {"n_action_steps": True, "episodes_per_task": 1},
            "n_action_steps is True, expected a whole number",
        ),
        ("demonstrations", {"world": "tabletop", "tasks": "lift"}, "tasks are 'lift', expected a list of names"),
        ("demonstrations", ["tabletop"], "missing or invalid 'list' object has no attribute 'get'"),
    ],
)
def test_a_broken_record_of_an_older_run_is_refused(
    run: RunFolder, tmp_path: Path, part: str, value: Any, message: str
) -> None:
    older = RunFolder(shutil.copytree(run.root, tmp_path / "older"))
    forget(older.checkpoint(4) / PRETRAINED)
    record = older.record
    record["config"][part] = value
    older.record_file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        load_policy(str(older.root))


def test_the_deployment_of_an_older_run_on_recordings_has_no_world(run: RunFolder, tmp_path: Path) -> None:
    older = RunFolder(shutil.copytree(run.root, tmp_path / "older"))
    forget(older.checkpoint(4) / PRETRAINED)
    record = older.record
    record["config"]["data"] = ["recorded"]
    record["config"]["evaluation"] |= {"episodes_per_task": 0, "n_action_steps": 99}
    older.record_file.write_text(json.dumps(record))
    assert load_policy(str(older.root)).processor.deployment == Deployment(n_action_steps=8)


def test_a_policy_cloned_from_recordings_without_evaluation_has_no_world() -> None:
    config = config_of_run()
    robot = replace(config, data=("recorded",), evaluation=replace(config.evaluation, episodes_per_task=0))
    assert deployment_of(robot, 8) == Deployment(n_action_steps=3)
    assert (
        deployment_of(replace(robot, evaluation=replace(robot.evaluation, n_action_steps=None)), 8).n_action_steps == 8
    )
    assert deployment_of(config, 8) == MADE_FOR


def test_a_fine_tuning_run_prints_differences_and_saves_its_own_deployment(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = grpo_tabletop()
    config = replace(
        recipe,
        init=str(bare),
        iterations=1,
        selection_episodes=1,
        practice=replace(recipe.practice, tasks=("reach",), episodes_per_task=8, num_worlds=8),
        rollout=replace(recipe.rollout, workers=0),
        learner=replace(recipe.learner, batch_size=8),
        evaluation=replace(recipe.evaluation, episodes_per_task=1, controls=False, videos_per_task=0, num_worlds=1),
    )
    run = start_run(tmp_path / "better", config)
    improve(config, run)
    assert f"llamarm {bare}: 4 actions of each chunk are executed; the policy was made for 3" in capsys.readouterr().err
    for policy in (run.root, run.checkpoint(0), run.checkpoint(1), run.best):
        made_for = load_policy(str(policy)).processor.deployment
        assert made_for == Deployment(n_action_steps=4, world="tabletop", tasks=("reach",))
