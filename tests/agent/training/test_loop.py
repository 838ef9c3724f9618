"""The training loop on the tabletop with small settings: the run's files, and resumption after an interruption."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_runs import assert_refused_before_collection, small
from torch import Tensor

from agent.learning.config import OptimizerName
from agent.learning.learner import Learner
from agent.recipes import RECIPES
from agent.report.render import write_report
from agent.runs.checks import check_config
from agent.runs.run_folder import PRETRAINED, RunFolder, start_run
from agent.training.config import ImproveConfig
from agent.training.improve_checks import check_improvement
from agent.training.loop import learn, train
from rollout.dataset.batches import TrainingData
from rollout.distributed import Process
from vla_model.create import create_policy
from vla_model.model import VLA
from vla_model.sizes import ModelConfig
from vla_model.weights.adapters import load_adapted
from vla_model.weights.checkpoint import save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import merged_state_dict


def final_state(run: RunFolder) -> dict[str, Tensor]:
    last = run.last_checkpoint()
    assert last is not None
    return load_file(last / "learner.safetensors")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = start_run(tmp_path_factory.mktemp("straight") / "run", small())
    train(small(), run)
    return run


def test_a_run_writes_checkpoints_events_and_an_evaluation(straight: RunFolder) -> None:
    assert [p.name for p in sorted(straight.checkpoints.iterdir())] == ["000002", "000004"]
    for part in ("config.json", "model.safetensors", "processor.json", "tokenizer.json"):
        assert (straight.checkpoint(4) / PRETRAINED / part).exists()
    assert list(straight.tensorboard.glob("events.*"))
    info = json.loads(straight.eval_info.read_text())
    assert info["overall"]["n_episodes"] == 2
    assert 0.0 <= info["overall"]["pc_success"] <= 100.0


def test_the_readmes_first_example_runs(straight: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    assert "runs/demo" in example
    exec(compile(example.replace("runs/demo", str(straight.root)), "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert " -> " in said
    assert " -> None" not in said, "an episode that its step limit ends has no other failure"


def test_an_interrupted_run_resumes_to_identical_numbers(
    straight: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(tmp_path / "run", small())
    update = Learner.update

    def interrupted(self: Learner[VLA], *args: Any) -> dict[str, float]:
        if self.num_updates_done == 2:
            signal.raise_signal(signal.SIGINT)
        return update(self, *args)

    monkeypatch.setattr(Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small(), run)
    last = run.last_checkpoint()
    assert last is not None and last.name == "000003", "what was learned until the interruption is kept"
    monkeypatch.undo()
    train(small(), start_run(run.root, small(), resume=True))
    expected, resumed = final_state(straight), final_state(run)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


LORA = FineTuning(mode="lora", lora_rank=2, towers=True)


@pytest.mark.parametrize(
    ("fine_tuning", "optimizer"),
    [(LORA, "adamw"), (LORA, "muon"), (FineTuning(mode="head"), "adamw")],
    ids=["lora", "lora with muon", "head"],
)
def test_a_run_with_adapters_resumes_to_identical_numbers_and_saves_the_adapter(
    straight: RunFolder, fine_tuning: FineTuning, optimizer: OptimizerName, tmp_path: Path
) -> None:
    config, data = replace(small(), fine_tuning=fine_tuning), TrainingData([straight.dataset])
    config = replace(config, learner=replace(config.learner, optimizer=optimizer))
    runs = [RunFolder(tmp_path / name) for name in ("straight", "resumed")]
    for run in runs:
        shutil.copytree(straight.dataset, run.dataset)
    learn(config, runs[0], Process(interrupted=lambda: False, report=lambda **_: None))
    stops = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        learn(config, runs[1], Process(interrupted=lambda: next(stops), report=lambda **_: None))
    learn(config, runs[1], Process(interrupted=lambda: False, report=lambda **_: None))
    expected, resumed = map(final_state, runs)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)

    torch.manual_seed(config.seed)
    save_policy(tmp_path / "base", *create_policy(config.model, data.world_spec, data.stats))
    last = runs[0].checkpoint(4)
    adapted, _ = load_adapted(tmp_path / "base", last / "adapter")
    merged, whole = merged_state_dict(adapted), load_file(last / PRETRAINED / "model.safetensors")
    assert merged.keys() == whole.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(merged[name], tensor)


def test_an_unknown_model_is_refused_before_anything_is_collected(tmp_path: Path) -> None:
    config = replace(small(), model=ModelConfig(name="nanno"))
    assert_refused_before_collection(config, tmp_path / "run", "models: nano")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(num_layers=2, hidden_size=50), "hidden_size must be a multiple"),
        (ModelConfig(foreseen_steps=(5, 0)), "foreseen-steps is 0"),
    ],
)
def test_an_invalid_model_is_refused_before_anything_is_collected(
    model: ModelConfig, message: str, tmp_path: Path
) -> None:
    config = replace(small(), model=model)
    assert_refused_before_collection(config, tmp_path / "run", message)


def test_an_auxiliary_dataset_is_used_and_a_missing_one_is_refused_before_collection(
    straight: RunFolder, tmp_path: Path
) -> None:
    config = replace(small(), auxiliary=(str(straight.dataset),))
    run = start_run(tmp_path / "run", config)
    train(config, run)
    alone, also = final_state(straight), final_state(run)
    assert any(not torch.equal(alone[name], also[name]) for name in alone)
    config = replace(small(), auxiliary=(str(tmp_path / "nowhere"),))
    assert_refused_before_collection(config, tmp_path / "other", "nowhere")


def test_recorded_datasets_are_cloned_in_place_of_demonstrations(straight: RunFolder, tmp_path: Path) -> None:
    data = (str(straight.dataset),)
    config = replace(small(), data=data, evaluation=replace(small().evaluation, episodes_per_task=0))
    run = start_run(tmp_path / "run", config)
    assert train(config, run) == (None, {})
    expected, found = final_state(straight), final_state(run)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not run.dataset.exists()
    assert [phase["name"] for phase in run.record["phases"]] == ["update"]
    write_report(run.root)


def test_recordings_of_another_world_are_refused_with_evaluation(straight: RunFolder, tmp_path: Path) -> None:
    alien = tmp_path / "alien"
    shutil.copytree(straight.dataset, alien)
    info = json.loads((alien / "meta" / "info.json").read_text())
    info["llamarm"]["world_spec"]["action"]["names"][0] = "shoulder"
    (alien / "meta" / "info.json").write_text(json.dumps(info))
    config = replace(small(), data=(str(alien),))
    run = start_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match="made for another world:\n  action names are"):
        train(config, run)
    assert not run.checkpoints.exists()


def test_recordings_without_successes_or_with_unknown_tasks_are_refused(straight: RunFolder, tmp_path: Path) -> None:
    failed = tmp_path / "failed"
    shutil.copytree(straight.dataset, failed)
    for path in (failed / "meta" / "episodes").rglob("*.parquet"):
        rows = pq.read_table(path)
        no = pa.array([False] * len(rows))
        pq.write_table(rows.set_column(rows.schema.get_field_index("success"), "success", no), path)
    demonstrations = replace(small().demonstrations, tasks=("lfit",))
    for i, (config, message) in enumerate(
        [
            (replace(small(), data=(str(failed),)), "no episode of .*failed was selected"),
            (
                replace(small(), data=(str(straight.dataset),), demonstrations=demonstrations),
                "task 'lfit' does not exist, did you mean 'lift'",
            ),
            (
                replace(small(), evaluation=replace(small().evaluation, episodes_per_task=-1)),
                "evaluation.episodes-per-task is -1",
            ),
        ]
    ):
        run = start_run(tmp_path / str(i), config)
        with pytest.raises(ValueError, match=message):
            train(config, run)
        assert not run.checkpoints.exists()


def test_every_recipe_has_a_config_and_a_docstring() -> None:
    for recipe in RECIPES.values():
        config = recipe()
        check_config(config)
        if isinstance(config, ImproveConfig):
            check_improvement(config)
        assert recipe.__doc__
