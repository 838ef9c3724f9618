"""Evaluation over several variations: which episodes the controls run, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sides_world import Reader, SidesWorld, evaluate_here

from agent.evaluation.config import EvaluationConfig
from agent.evaluation.eval_info import read_eval_info
from agent.evaluation.evaluate import LOST, evaluation_specs
from agent.evaluation.measure import EvaluationSetup, measure
from agent.evaluation.statistics import Proportion
from agent.runs.run_folder import RunFolder
from agent.runs.seeds import FIRST_EVALUATION_SEED
from envs.types import ChunkResult, EpisodeSpec, Info, Observation
from envs.world import World
from rollout.workers.workers import WorkersConfig
from vla_model.types import ActionChunk


def reader(workers: int) -> EvaluationSetup:
    return EvaluationSetup(SidesWorld(1), SidesWorld, lambda _: Reader(), WorkersConfig(workers=workers))


def test_controls_run_the_first_variation_and_report_the_policys_success_in_it(tmp_path: Path) -> None:
    config = EvaluationConfig(
        episodes_per_task=2, variations=("near", "far"), videos_per_task=0, n_action_steps=None, num_worlds=2
    )
    evaluation, controls = measure(reader(workers=0), ("left", "right"), config, RunFolder(tmp_path))
    assert len(evaluation.results) == 8
    assert set(controls) == {"shuffled instructions", "black frames"}
    assert all({r.spec.variation for r in control.results} == {"near"} for control in controls.values())
    written = read_eval_info(tmp_path / "eval_info.json")["controls"]["shuffled instructions"]
    assert written["variations"] == ["near"]
    assert (written["n_episodes"], written["pc_success"]) == (4, 0.0)
    assert (written["policy"]["n_episodes"], written["policy"]["pc_success"]) == (4, 100.0)


def test_a_single_task_has_no_shuffled_instructions(tmp_path: Path) -> None:
    config = EvaluationConfig(episodes_per_task=2, videos_per_task=0, n_action_steps=None, num_worlds=2)
    _, controls = measure(reader(workers=0), ("left",), config, RunFolder(tmp_path))
    assert set(controls) == {"black frames"}


def test_worlds_and_policies_are_made_once_for_an_evaluation_and_its_controls(tmp_path: Path) -> None:
    made: list[str] = []

    def make_world(num_worlds: int) -> SidesWorld:
        made.append("world")
        return SidesWorld(num_worlds)

    def make_policy(_: World) -> Reader:
        made.append("policy")
        return Reader()

    config = EvaluationConfig(episodes_per_task=2, videos_per_task=1, n_action_steps=None, num_worlds=2)
    setup = EvaluationSetup(SidesWorld(1), make_world, make_policy, WorkersConfig(workers=0))
    _, controls = measure(setup, ("left", "right"), config, RunFolder(tmp_path))
    assert len(controls) == 2
    assert made == ["world", "policy"]


def test_workers_give_the_same_evaluation_as_one_process(tmp_path: Path) -> None:
    config = EvaluationConfig(episodes_per_task=3, variations=("near", "far"), n_action_steps=1, num_worlds=2)

    def measured(workers: int) -> dict[str, Any]:
        measure(reader(workers), ("left", "right"), config, RunFolder(tmp_path / str(workers)))
        info = read_eval_info(tmp_path / str(workers) / "eval_info.json")
        for name in ("eval_s", "eval_ep_s", "steps_per_s", "frames_per_s", "decision_ms"):
            del info["overall"][name]
        return info

    assert measured(workers=2) == measured(workers=0)
    assert len(list((tmp_path / "2" / "videos").iterdir())) == 4


class Fatal(SidesWorld):
    """Raises at the beginning of the second episode."""

    def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
        if any(spec.seed == FIRST_EVALUATION_SEED + 1 and spec.task == "left" for spec in specs):
            raise ValueError("no such table")
        return super().reset_to(specs, worlds)


def test_an_evaluation_in_which_every_seed_lost_an_episode_is_kept(tmp_path: Path) -> None:
    config = EvaluationConfig(episodes_per_task=1, videos_per_task=0, n_action_steps=None, num_worlds=2)

    class FatalAtOnce(SidesWorld):
        def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> tuple[Observation, Info]:
            if any(spec.task == "left" for spec in specs):
                raise ValueError("no such table")
            return super().reset_to(specs, worlds)

    measured = EvaluationSetup(FatalAtOnce(1), FatalAtOnce, lambda _: Reader(), WorkersConfig(workers=1))
    evaluation, controls = measure(measured, ("left", "right"), config, RunFolder(tmp_path))
    assert (evaluation.failures, controls) == ({LOST: 1}, {})
    assert read_eval_info(tmp_path / "eval_info.json")["overall"]["pc_success"] == 50.0


def test_an_evaluation_and_each_control_are_written_before_another_control_fails(tmp_path: Path) -> None:
    class Blinded(Reader):
        def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
            if not observation["frames"]["front"].any():
                raise RuntimeError("it is dark")
            return super().act(worlds, observation)

    config = EvaluationConfig(episodes_per_task=1, videos_per_task=0, n_action_steps=None, num_worlds=2)
    measured = EvaluationSetup(SidesWorld(1), SidesWorld, lambda _: Blinded(), WorkersConfig(workers=0))
    with pytest.raises(RuntimeError, match="it is dark"):
        measure(measured, ("left", "right"), config, RunFolder(tmp_path))
    written = read_eval_info(tmp_path / "eval_info.json")
    assert written["overall"]["pc_success"] == 100.0
    assert {name: control["pc_success"] for name, control in written["controls"].items()} == {
        "shuffled instructions": 0.0
    }


class Frail(SidesWorld):
    """Seed 1000001 of task left gives an infinite reward in its second step."""

    def step_chunk(self, actions: Any, **options: Any) -> ChunkResult:
        before = self.t.copy()
        result = super().step_chunk(actions, **options)
        for n, spec in enumerate(self.specs):
            if spec is not None and (spec.task, spec.seed) == ("left", FIRST_EVALUATION_SEED + 1) and before[n] < 2:
                result.reward[n, 1 - before[n]] = -np.inf
        return result


def test_an_episode_whose_world_raised_counts_as_failed_and_the_evaluation_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluationConfig(episodes_per_task=2, videos_per_task=2, n_action_steps=2, num_worlds=2)
    measured = EvaluationSetup(Frail(1), Frail, lambda _: Reader(), WorkersConfig(workers=0))
    evaluation, controls = measure(measured, ("left", "right"), config, RunFolder(tmp_path))
    reason = "its world failed: the reward is -inf (step 2)"
    assert evaluation.failures == {reason: 1}
    assert evaluation.success == Proportion(successes=3, episodes=4)
    assert evaluation.mean_over_tasks == 0.75
    assert len(evaluation.instructions) == 3
    info = read_eval_info(tmp_path / "eval_info.json")
    (failed,) = [row for row in info["per_episode"] if not row["success"]]
    assert (failed["id"], failed["failure"]) == ("sides/left/train/1000001", reason)
    assert (info["per_task"][0]["pc_success"], info["per_task"][0]["median_steps"]) == (50.0, 3.0)
    assert {r.spec.seed for r in controls["black frames"].results} == {FIRST_EVALUATION_SEED}
    assert capsys.readouterr().err.count("set aside") == 1, "a control reports its own episodes only"


def test_an_episode_whose_world_raised_counts_as_failed_without_workers_too() -> None:
    specs = evaluation_specs("sides", ("left", "right"), 2)
    results = evaluate_here(Reader(), Frail(2), specs).results
    assert [(r.lost, r.failure) for r in results if not r.success] == [
        (True, "its world failed: the reward is -inf (step 2)")
    ]


@pytest.mark.long
def test_an_episode_that_ends_every_worker_counts_as_failed_and_is_not_shuffled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvaluationConfig(episodes_per_task=2, videos_per_task=0, n_action_steps=None, num_worlds=2)
    measured = EvaluationSetup(Fatal(1), Fatal, lambda _: Reader(), WorkersConfig(workers=1))
    evaluation, controls = measure(measured, ("left", "right"), config, RunFolder(tmp_path))
    assert evaluation.failures == {LOST: 1}
    assert evaluation.success == Proportion(successes=3, episodes=4)
    assert {r.spec.seed for r in controls["black frames"].results} == {FIRST_EVALUATION_SEED}
    assert len(controls["shuffled instructions"].results) == 2
    assert "set aside: sides/left/train/1000001" in capsys.readouterr().err
