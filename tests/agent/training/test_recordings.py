"""Data that changed or do not match the policy are refused or reported before any work; normalisation is kept."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sides_policy import WillingSidesWorld, sides_model, sides_processor, sides_specs

from agent.algorithms.cloning_config import DaggerConfig, RFTConfig
from agent.algorithms.method import Context
from agent.algorithms.sft_config import SFTConfig
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.recipes import sft_tiny
from agent.runs.run_folder import PRETRAINED, RunFolder, start_run
from agent.training.config import RunConfig
from agent.training.demonstrations import collect_demonstrations
from agent.training.loop import train
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.dataset.write import DatasetWriter
from rollout.expert import ExpertPolicy

PLAIN = SFTConfig(localization_weight=0.0, pointing_weight=0.0)
REFUSED = r"theirs is of another kind.*the policy's:\n  action units are .'furlong'"


def cloning(data: Path, **changes: Any) -> RunConfig:
    """Two updates, a checkpoint, and two more; nothing is evaluated."""
    config = sft_tiny()
    return replace(config, data=(str(data),), evaluation=replace(config.evaluation, episodes_per_task=0), **changes)


def collected(data: Path, episodes_per_task: int) -> Path:
    demonstrations = replace(sft_tiny().demonstrations, tasks=("reach",), episodes_per_task=episodes_per_task)
    collect_demonstrations(demonstrations, data, sft_tiny().rollout)
    return data


def statistics(run: RunFolder, update: int) -> Any:
    return json.loads((run.checkpoint(update) / PRETRAINED / "processor.json").read_text())["statistics"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    """A dataset of two episodes, and a run that was interrupted after two updates on it."""
    folder = tmp_path_factory.mktemp("few")
    data = collected(folder / "data", 2)
    run = start_run(folder / "run", cloning(data))
    train(cloning(data), run)
    shutil.rmtree(run.checkpoint(4))
    return data, run


def copied(few: tuple[Path, RunFolder], folder: Path) -> tuple[Path, RunFolder]:
    """Their caches, in a separate folder."""
    shutil.copytree(few[0], folder / "data")
    shutil.copytree(few[1].root, folder / "run")
    run = RunFolder(folder / "run")
    record = run.record
    record["config"]["data"] = [str(folder / "data")]
    run.record_file.write_text(json.dumps(record))
    return folder / "data", run


def test_a_resumed_run_keeps_its_normalisation_and_reports_changed_data(
    few: tuple[Path, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = copied(few, tmp_path)
    (first,) = run.record["data"]
    collected(data, 4)
    config = cloning(data)
    capsys.readouterr()
    train(config, start_run(run.root, config, resume=True))
    assert statistics(run, 4) == statistics(run, 2)
    rows = {entry["from"]: entry["datasets"][0] for entry in run.record["data"]}
    assert (rows[0], rows[2]["episodes"]) == (first["datasets"][0], 4)
    assert f"had 2 episodes of {rows[0]['rows']} rows when this run last read it, now 4" in capsys.readouterr().err
    other = start_run(tmp_path / "other", config)
    train(config, other)
    assert statistics(other, 4) != statistics(run, 4), "four episodes have other statistics"


def test_a_resumed_run_with_unchanged_data_reports_nothing(
    few: tuple[Path, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = copied(few, tmp_path)
    config = cloning(data)
    capsys.readouterr()
    train(config, start_run(run.root, config, resume=True))
    assert "changed" not in capsys.readouterr().err
    assert len(run.record["data"]) == 1


def test_data_of_another_world_is_refused_when_a_run_is_resumed(few: tuple[Path, RunFolder], tmp_path: Path) -> None:
    data, run = copied(few, tmp_path)
    other_units(data)
    config = cloning(data)
    with pytest.raises(ValueError, match=r"differs from the policy's:\n  action units are .'furlong'"):
        train(config, start_run(run.root, config, resume=True))
    assert not run.checkpoint(4).exists()


def test_invalid_additional_datasets_are_refused_before_collection(few: tuple[Path, RunFolder], tmp_path: Path) -> None:
    data, _ = copied(few, tmp_path)
    shutil.rmtree(tmp_path / "data.cache", ignore_errors=True)
    other_units(data)
    for option in ("drives", "auxiliary"):
        config = replace(sft_tiny(), **{option: (str(data),)})
        run = start_run(tmp_path / option, config)
        with pytest.raises(ValueError, match="'furlong'"):
            train(config, run)
        assert not run.dataset.exists()
        assert not (tmp_path / "data.cache").exists()


def test_caches_are_written_to_the_given_folder(few: tuple[Path, RunFolder], tmp_path: Path) -> None:
    shutil.copytree(few[0], tmp_path / "data")
    config = cloning(tmp_path / "data", cache=str(tmp_path / "caches"))
    train(config, start_run(tmp_path / "run", config))
    assert not (tmp_path / "data.cache").exists()
    assert len(list((tmp_path / "caches").iterdir())) == 1
    moved = replace(config, cache="")
    start_run(tmp_path / "run", moved, resume=True)  # where they stand decides nothing


def other_units(data: Path) -> None:
    file = data / "meta/info.json"
    info = json.loads(file.read_text())
    info["llamarm"]["world_spec"]["action"]["units"][0] = "furlong"
    file.write_text(json.dumps(info))


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Demonstrations in the world of the policy, and in one of other units."""
    folder, world = tmp_path_factory.mktemp("sides"), WillingSidesWorld(4)
    for name in ("ours", "theirs"):
        with DatasetWriter(folder / name, world.world_spec, robot_type="sides") as writer:
            for trajectory in collect(ExpertPolicy(world), world, sides_specs(1), all_frames=True):
                writer.append(trajectory)
    other_units(folder / "theirs")
    return folder / "ours", folder / "theirs"


def test_fine_tuning_trains_on_every_dataset_of_demonstrations(sides: tuple[Path, Path], tmp_path: Path) -> None:
    ours = shutil.copytree(sides[0], tmp_path / "ours")
    more = shutil.copytree(sides[0], tmp_path / "more")
    learner = LearnerConfig(batch_size=4, num_updates=1, warmup_updates=0)

    def figures(*roots: Path) -> dict[str, float]:
        config = DaggerConfig(demonstrations=tuple(map(str, roots)), updates=1, sft=PLAIN)
        context = Context(processor=sides_processor(), suite="sides", run=RunFolder(tmp_path / "run"))
        with closing(Learner(sides_model(), learner)) as learning:
            return config.method(context).learn(learning, [], 0)

    rows = TrainingData([ours]).num_rows
    assert [figures(ours)["dataset/rows"], figures(ours, more)["dataset/rows"]] == [rows, 2 * rows]
    with pytest.raises(ValueError, match=r"no demonstrations in .*nowhere; .* name datasets with --algorithm"):
        figures(ours, tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["rft", "dagger", "drives"])
def test_demonstrations_of_another_world_are_refused_in_fine_tuning(
    sides: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    ours, theirs = map(str, sides)
    configs: dict[str, RFTConfig | DaggerConfig] = {
        "rft": RFTConfig(demonstrations=(theirs,)),
        "dagger": DaggerConfig(demonstrations=(theirs,)),
        "drives": DaggerConfig(demonstrations=(ours,), drives=(theirs,)),
    }
    config = configs[place]
    run = start_run(tmp_path / "run", config)
    with pytest.raises(ValueError, match=REFUSED):
        config.method(Context(processor=sides_processor(), suite="sides", run=run))
    assert not list(sides[0].parent.glob("*.cache"))
