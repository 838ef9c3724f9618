"""Demonstrations: which episodes are in the dataset after failures and interruptions.

The expert of the sides world stands still in every episode whose seed is a multiple of 5, and always in task "either".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sides_world import SidesWorld

from agent.training.config import DemonstrationsConfig
from agent.training.demonstrations import (
    FAILED_PATH,
    HOW_PATH,
    Demonstrations,
    DemonstrationsLedger,
    check_expert,
    collect_demonstrations,
    fill_dataset,
)
from envs.types import EpisodeSpec, Info, Observation
from rollout.collect import collect
from rollout.dataset.read import DatasetReader
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from rollout.workers.workers import WorkersConfig

CONFIG = DemonstrationsConfig(world="sides", tasks=("left", "right"), episodes_per_task=9, num_worlds=4)


def fill(root: Path, config: DemonstrationsConfig = CONFIG, stop_after: int | None = None) -> Demonstrations:
    world = SidesWorld(config.num_worlds)

    def run(specs: Sequence[EpisodeSpec]) -> Iterator[Trajectory]:
        for count, trajectory in enumerate(collect(ExpertPolicy(world), world, specs)):
            if count == stop_after:
                raise KeyboardInterrupt
            yield trajectory

    return fill_dataset(config, world, root, run, {})


def stored(root: Path) -> set[str]:
    return {row["spec_id"] for row in DatasetReader(root).episodes}


def test_each_task_gets_its_first_seeds_in_which_the_expert_succeeds(tmp_path: Path) -> None:
    outcome = fill(tmp_path)
    seeds = [1, 2, 3, 4, 6, 7, 8, 9, 11]
    assert stored(tmp_path) == {f"sides/{task}/train/{seed}" for task in ("left", "right") for seed in seeds}
    assert outcome.episodes == {"left": 9, "right": 9}
    assert outcome.failed == {"left": {"step limit": 3}, "right": {"step limit": 3}}, "seeds 0, 5 and 10"
    episode = DatasetReader(tmp_path).episode(0)
    assert episode.row["success"]
    assert episode.columns["action"].ravel().tolist() == ([-1.0] * 3 if "left" in episode.row["spec_id"] else [1.0] * 3)


@pytest.mark.parametrize("stop_after", [0, 3, 7, 17])
def test_resumed_collection_has_the_same_episodes_without_duplicates(tmp_path: Path, stop_after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "stopped", stop_after=stop_after)
    resumed = fill(tmp_path / "stopped")
    whole = fill(tmp_path / "whole")
    assert resumed == whole
    assert stored(tmp_path / "stopped") == stored(tmp_path / "whole")
    failed = [json.loads(line)["id"] for line in (tmp_path / "stopped" / FAILED_PATH).read_text().splitlines()]
    assert len(failed) == len(set(failed)) == 6


def test_the_number_of_worlds_does_not_change_which_episodes_are_stored(tmp_path: Path) -> None:
    fill(tmp_path / "one", replace(CONFIG, num_worlds=1))
    fill(tmp_path / "many", replace(CONFIG, num_worlds=16))
    assert stored(tmp_path / "one") == stored(tmp_path / "many")


def test_a_larger_number_of_episodes_extends_the_dataset(tmp_path: Path) -> None:
    fill(tmp_path, replace(CONFIG, episodes_per_task=2))
    few = stored(tmp_path)
    fill(tmp_path, replace(CONFIG, episodes_per_task=4))
    assert few < stored(tmp_path)
    assert len(stored(tmp_path)) == 8


def test_further_variations_have_as_many_episodes_of_each_task_and_may_be_added_later(tmp_path: Path) -> None:
    fill(tmp_path, replace(CONFIG, episodes_per_task=2))
    both = replace(CONFIG, episodes_per_task=2, further_variations=("wide",))
    outcome = fill(tmp_path, both)
    assert stored(tmp_path) == {
        f"sides/{task}/{variation}/{seed}"
        for task in ("left", "right")
        for variation in ("train", "wide")
        for seed in (1, 2)
    }
    assert outcome.episodes == {"left": 4, "right": 4} and outcome.failed["left"] == {"step limit": 2}
    with pytest.raises(ValueError, match="of either, variation train, cannot succeed in 2 of 4 episodes"):
        fill(tmp_path, replace(both, tasks=("either",)))


def test_an_expert_that_always_fails_ends_collection_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expert of either cannot succeed in 3 of 6 episodes: step limit 6 times"):
        fill(tmp_path, replace(CONFIG, tasks=("left", "either"), episodes_per_task=3))
    assert len(stored(tmp_path)) == 3, "the other task's episodes are kept"


def test_unknown_tasks_and_evaluation_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="task 'lfet' does not exist, did you mean 'left'\\? There are: left, right"):
        DemonstrationsLedger(replace(CONFIG, tasks=("lfet", "right")), "sides", ("left", "right"))
    ledger = DemonstrationsLedger(replace(CONFIG, first_seed=999_999), "sides", ("left", "right"))
    with pytest.raises(ValueError, match="are for evaluation"):
        ledger.missing()


def test_an_episode_that_ends_every_worker_is_skipped(tmp_path: Path) -> None:
    world = SidesWorld(4)
    lost = EpisodeSpec(suite="sides", task="left", seed=2)

    def run(specs: Sequence[EpisodeSpec]) -> Iterator[Trajectory]:
        return collect(ExpertPolicy(world), world, [spec for spec in specs if spec != lost])

    outcome = fill_dataset(CONFIG, world, tmp_path, run, {lost: "hung: no decision for 9 s"})
    assert outcome.episodes == {"left": 9, "right": 9}
    assert outcome.failed["left"] == {"step limit": 3, "its workers died, hung: no decision for 9 s": 1}


def test_a_world_that_cannot_begin_is_refused_before_anything_is_collected() -> None:
    class Unable(SidesWorld):
        def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
            observation, info = super().reset_to(specs, worlds)
            return observation, info | {"broken": dict.fromkeys(worlds, "no room on the table")}

    with pytest.raises(ValueError, match="task 'left' of sides cannot begin: no room on the table"):
        check_expert(Unable(1), ("left",), "train")


def test_an_episode_whose_world_raised_is_skipped_and_not_retried(tmp_path: Path) -> None:
    world = SidesWorld(4)
    lost, begun = EpisodeSpec(suite="sides", task="left", seed=2), list[EpisodeSpec]()

    def run(specs: Sequence[EpisodeSpec]) -> Iterator[Trajectory]:
        begun.extend(specs)
        return collect(ExpertPolicy(world), world, [spec for spec in specs if spec != lost])

    why = "its world failed: the reward is inf (step 3)"
    for _ in range(2):
        outcome = fill_dataset(CONFIG, world, tmp_path, run, {}, {lost: why})
        assert outcome.failed["left"] == {"step limit": 3, why: 1}
    assert begun.count(lost) == 1


def test_the_tabletop_expert_demonstrates_in_this_process(tmp_path: Path) -> None:
    config = DemonstrationsConfig(tasks=("reach", "press_button"), episodes_per_task=2, num_worlds=2)
    assert collect_demonstrations(config, tmp_path, WorkersConfig(workers=0)).episodes == {
        "reach": 2,
        "press_button": 2,
    }
    assert {row["success"] for row in DatasetReader(tmp_path).episodes} == {True}


@pytest.mark.parametrize("damage", ["cut", "emptied", "object", "torn and gone on"])
def test_an_incomplete_failure_record_is_dropped_and_its_seed_retried(tmp_path: Path, damage: str) -> None:
    whole = fill(tmp_path)
    file = tmp_path / FAILED_PATH
    content = file.read_text()
    damaged = {
        "cut": content[:-5],
        "emptied": "",
        "object": "{}",
        "torn and gone on": content[: len(content) // 2] + content,
    }
    file.write_text(damaged[damage])
    assert fill(tmp_path) == whole
    notes = [json.loads(line)["id"] for line in file.read_text().splitlines()]
    assert sorted(notes) == sorted(f"sides/{task}/train/{seed}" for task in ("left", "right") for seed in (0, 5, 10))


def test_a_failure_record_without_a_newline_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, replace(CONFIG, episodes_per_task=2))
    file = tmp_path / FAILED_PATH
    file.write_text(file.read_text().rstrip("\n"))
    fill(tmp_path)
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_std": 0.3}, "noise_std was 0.1, now 0.3"),
        ({"noise_share": 0.25}, "noise_share was 0.5, now 0.25"),
        ({"noise_correlation": 0.0}, "noise_correlation was 0.8, now 0.0"),
        ({"noise_std": 0.0}, "noise_std was 0.1, now 0.0; use the same settings"),
        ({"world": "sides_world:other"}, "world was 'sides', now 'sides_world:other'"),
        ({"device": "warp"}, "device was 'cpu', now 'warp'"),
    ],
)
def test_a_dataset_is_extended_only_with_the_same_settings(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = replace(CONFIG, noise_std=0.1, episodes_per_task=2)
    fill(tmp_path, config)
    with pytest.raises(ValueError, match="demonstrated otherwise") as caught:
        fill(tmp_path, replace(config, episodes_per_task=4, **changes))
    assert message in str(caught.value)
    assert len(stored(tmp_path)) == 4
    fill(tmp_path, replace(config, episodes_per_task=4, num_worlds=2))
    assert len(stored(tmp_path)) == 8


def test_without_noise_its_share_and_correlation_may_differ(tmp_path: Path) -> None:
    fill(tmp_path, replace(CONFIG, episodes_per_task=2))
    fill(tmp_path, replace(CONFIG, episodes_per_task=3, noise_share=0.1))
    assert len(stored(tmp_path)) == 6


def test_a_dataset_without_recorded_settings_is_extended(tmp_path: Path) -> None:
    fill(tmp_path, replace(CONFIG, episodes_per_task=2))
    (tmp_path / HOW_PATH).unlink()
    fill(tmp_path, replace(CONFIG, noise_std=0.1))
    assert len(stored(tmp_path)) == 18


def test_extra_episodes_of_a_dataset_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert "not requested" not in capsys.readouterr().err
    fill(tmp_path)
    assert "not requested" not in capsys.readouterr().err
    fill(tmp_path, replace(CONFIG, tasks=("left",), episodes_per_task=4))
    assert "also holds 14 episodes that were not requested: sides/left/train/" in capsys.readouterr().err
