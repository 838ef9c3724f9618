"""examples/libero_recordings.py: people's demonstrations of LIBERO as a dataset that `sft_libero` trains on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.recipes import sft_libero
from agent.training.recordings import check_recordings
from envs.suites.libero.sensor import FAST, PUBLISHED
from envs.suites.libero.tasks import SUITES
from envs.suites.libero.world import FOUR, INTERPRETER
from envs.types import EpisodeSpec
from examples import libero_recordings
from rollout.dataset.read import DatasetReader
from rollout.dataset.schema import read_world_spec
from rollout.dataset.write import DatasetWriter
from rollout.types import Trajectory

SENTENCE = "put the bowl on the plate"


def lerobot_libero(root: Path, lengths: tuple[int, ...] = (6, 4)) -> Path:
    """A LeRobotDataset with lerobot/libero's features: cameras image and image2, 10 Hz, and nothing of llamarm's."""
    spec = PUBLISHED.world_spec(FOUR)
    cameras = tuple(replace(c, name=name) for c, name in zip(spec.cameras, ("image", "image2"), strict=True))
    none = replace(spec.localization, names=(), units=(), low=(), high=(), places=())
    spec = replace(spec, cameras=cameras, localization=none, control_dt_s=0.1)
    with DatasetWriter(root, spec, robot_type="panda") as writer:
        for number, length in enumerate(lengths):
            writer.append(recorded(number, length))
    info = json.loads((root / "meta/info.json").read_text())
    del info["llamarm"]
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


def recorded(number: int, length: int) -> Trajectory:
    rng, steps = np.random.default_rng(number), np.arange(length)
    action = rng.uniform(-1, 1, (length, 7)).astype(np.float32)
    action[:, 6] = np.where(steps < length // 2, -1, 1)
    frames = {
        name: np.full((length, 256, 256, 3), 40 * (i + 1), np.uint8) for i, name in enumerate(("image", "image2"))
    }
    return Trajectory(
        spec=EpisodeSpec(suite="recorded", task="recorded", seed=number),
        instruction=SENTENCE,
        frames=frames,
        frame_step=steps,
        decision_step=steps,
        state=rng.uniform(0, 0.03, (length, 8)).astype(np.float32),
        action=action,
        label=action,
        localization=np.zeros((length, 0), np.float32),
        reward_terms={},
        reward=np.zeros(length, np.float32),
        success=True,
        terminated=True,
        truncated=False,
        failure=None,
        policy_version=-1,
        duration_s=0.1 * length,
    )


@pytest.fixture
def without_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERPRETER.variable, "/nowhere/python")


@pytest.mark.usefixtures("without_suite")
def test_a_recording_becomes_a_dataset_of_the_world_with_the_same_numbers(tmp_path: Path) -> None:
    source, out = lerobot_libero(tmp_path / "source"), tmp_path / "out"
    libero_recordings.main([str(source), str(out)])
    libero_recordings.main([str(source), str(out)])  # what is there already is not added again
    theirs, ours = DatasetReader(source), DatasetReader(out)
    assert [row["spec_id"] for row in ours.episodes] == [
        f"libero/{SENTENCE.replace(' ', '_')}/human/{i}" for i in (0, 1)
    ]
    assert read_world_spec(ours.info).differences(FAST.world_spec(FOUR), labels=False) == []
    for number in (0, 1):
        before, after = theirs.episode(number), ours.episode(number)
        assert after.instruction == SENTENCE and after.frames["front"].shape[1:] == (128, 128, 3)
        assert abs(after.frames["front"].mean() - 40) < 3 and abs(after.frames["wrist"].mean() - 80) < 3
        for key in ("observation.state", "action"):
            assert (before.columns[key] == after.columns[key]).all()


def test_the_recipe_takes_the_dataset_and_evaluates_in_the_world(tmp_path: Path) -> None:
    try:
        INTERPRETER.python()
    except ValueError as error:
        pytest.skip(str(error))
    out = tmp_path / "out"
    libero_recordings.main([str(lerobot_libero(tmp_path / "source")), str(out)])
    config = replace(sft_libero(), data=(str(out),))
    assert config.is_simulated and check_recordings(config).localization.size == 0
    assert DatasetReader(out).episode(0).instruction == SENTENCE, "the BDDL file says the same"


def test_every_task_is_found_by_the_sentence_of_its_file_name() -> None:
    assert sorted(libero_recordings.TASKS.values()) == sorted(task for suite in FOUR for task in SUITES[suite])
    book = "pick up the book and place it in the back compartment of the caddy"
    assert libero_recordings.TASKS[book].startswith("STUDY_SCENE1")


def test_a_recording_with_other_cameras_is_refused_with_those_it_has() -> None:
    with pytest.raises(ValueError, match="has none of image, agentview, front; it has: top, side"):
        libero_recordings.pick({"top": 0, "side": 1}, libero_recordings.CAMERAS["front"])
