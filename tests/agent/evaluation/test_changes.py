"""Videos of episodes whose outcome fine-tuning changed: which episodes, and both policies side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from sides_world import Reader, SidesWorld, evaluate_here

from agent.evaluation.changes import write_changes
from agent.evaluation.eval_info import eval_info, write_eval_info
from agent.evaluation.evaluate import evaluation_specs
from agent.runs.run_folder import RunFolder
from envs.types import EpisodeSpec, Observation
from rollout.collect import collect
from rollout.types import Trajectory
from vla_model.types import ActionChunk, Policy

SPECS = evaluation_specs("sides", ["left", "right"], 4)


class Rightist(Reader):
    """Goes right for every instruction."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        count = len(observation["instruction"])
        return ActionChunk(actions=np.ones((count, 2, 1), np.float32))


class Leftist(Rightist):
    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        return ActionChunk(actions=-super().act(worlds, observation).actions)


def measured(root: Path, before: Policy, after: Policy) -> RunFolder:
    run = RunFolder(root)
    for folder, policy in ((run.before, before), (run, after)):
        write_eval_info(folder.eval_info, eval_info(evaluate_here(policy, SidesWorld(2), SPECS), {}))
    return run


def video(run: RunFolder, policies: dict[str, Policy], spoil: str = "") -> tuple[dict[str, Any], list[str]]:
    """Content of changes.json, and the episodes that ran again; outcomes of those whose id ends with `spoil` differ."""
    ran: list[str] = []

    def rerun(folder: Path, specs: list[EpisodeSpec]) -> Iterable[Trajectory]:
        ran.extend(spec.id for spec in specs)
        for t in collect(policies[folder.parent.name], SidesWorld(2), specs, all_frames=True):
            yield replace(t, success=False, failure="unlucky") if spoil and t.spec.id.endswith(spoil) else t

    write_changes(run, SPECS, rerun, control_dt_s=0.1)
    return json.loads(run.changes.read_text()), ran


def pictures(path: Path) -> NDArray[np.uint8]:
    with av.open(path) as container:
        return np.stack([np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in container.decode(video=0)])


def test_one_fixed_and_one_broken_episode_are_recorded_before_and_after(tmp_path: Path) -> None:
    policies: dict[str, Policy] = {"000000": Rightist(), "best": Leftist()}
    run = measured(tmp_path, policies["000000"], policies["best"])
    changes, ran = video(run, policies)
    assert changes == {
        "fixed": {"id": "sides/left/train/1000000", "video": "videos/fixed.mp4"},
        "broken": {"id": "sides/right/train/1000000", "video": "videos/broken.mp4"},
    }
    assert len(ran) == 2 * 6, "three of each kind, with both policies"
    video_of_fixed = pictures(run.videos / "fixed.mp4")
    assert len(video_of_fixed) == 4 + 15, "3 steps, the end, and the end held for 1.5 s"
    left, right = np.split(video_of_fixed[-1].astype(int), 2, axis=1)
    assert np.abs(left[:160] - right[:160]).max() > 100, "captions: before, failed; after, success"
    assert ((right[:160, :, 1] - right[:160, :, 0]) > 60).any(), "success is written in green"
    assert not ((left[:160, :, 1] - left[:160, :, 0]) > 60).any()


def test_an_episode_whose_outcome_is_not_reproduced_is_skipped(tmp_path: Path) -> None:
    policies: dict[str, Policy] = {"000000": Rightist(), "best": Reader()}
    run = measured(tmp_path, policies["000000"], policies["best"])
    (run.videos).mkdir()
    (run.videos / "broken.mp4").write_bytes(b"of an earlier evaluation")
    changes, _ = video(run, policies, spoil="1000000")
    assert changes == {"fixed": {"id": "sides/left/train/1000001", "video": "videos/fixed.mp4"}}
    assert not (run.videos / "broken.mp4").exists()


@pytest.mark.parametrize("policy", [Reader, Leftist])
def test_without_changed_episodes_nothing_runs_again(tmp_path: Path, policy: Any) -> None:
    run = measured(tmp_path, policy(), policy())
    assert video(run, {}) == ({}, [])
