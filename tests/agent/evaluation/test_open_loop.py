"""Action error on recorded episodes, by hand-computed numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from so101 import NAMES, TASKS, Layout, action_of, write_recording

from agent.evaluation.open_loop import open_loop, read_action_error, write_action_error
from envs.types import Observation
from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig
from vla_model.inputs.processor import Processor
from vla_model.types import ActionChunk, Policy

LENGTHS = (7, 5, 9)


class Middle:
    """Always the middle of each action's range, for chunks of four."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.seen: list[tuple[list[int], list[int], tuple[str, ...]]] = []

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        assert len(worlds) == len(instructions) == len(seeds)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        self.seen.append((list(worlds), observation["step"].tolist(), observation["instruction"]))
        return ActionChunk(actions=np.zeros((len(worlds), 4, 6), np.float32))

    def forget(self, worlds: Sequence[int]) -> None:
        del worlds


def measured(root: Path) -> tuple[Any, Middle]:
    data = TrainingData([root], reading=ReadingConfig(held_out=0.0))
    processor = Processor.from_statistics(data.world_spec, data.stats)
    processor.conversion = data.conversion
    policy = Middle(processor)
    action = data.stats["action"]
    return open_loop(cast(Policy, policy), data, 2, action["mean"], action["std"]), policy


def test_errors_are_in_recorded_units_beside_those_of_trivial_predictors(tmp_path: Path) -> None:
    root = write_recording(tmp_path / "a", Layout(lengths=LENGTHS))
    found, policy = measured(root)
    conversion = policy.processor.conversion
    assert conversion is not None
    middle = (np.array(conversion.action_low) + np.array(conversion.action_high)) / 2
    recorded = [np.stack([action_of(e, t) for t in range(n)]).astype(float) for e, n in enumerate(LENGTHS)]
    mean = np.concatenate(recorded).mean(0)
    counted = [(e, t) for e, n in enumerate(LENGTHS) for t in range(2, n)]
    errors = found.to_json()["all"]["mean_absolute_error"]
    of_policy = np.mean([np.abs(recorded[e][t] - middle) for e, t in counted], axis=0)
    of_last = np.mean([np.abs(recorded[e][t] - recorded[e][t // 2 * 2 - 1]) for e, t in counted], axis=0)
    of_mean = np.mean([np.abs(recorded[e][t] - mean) for e, t in counted], axis=0)
    for name, expected in (("policy", of_policy), ("last", of_last), ("mean", of_mean)):
        np.testing.assert_allclose(errors[name], expected, rtol=1e-4)
    assert found.to_json()["all"]["actions"] == len(counted)
    assert {task: part.episodes for task, part in found.per_task.items()} == {TASKS[0]: 2, TASKS[1]: 1}
    assert (found.names, set(found.units)) == (NAMES, {"as recorded"})
    assert policy.seen[0] == ([0, 1, 2], [0, 0, 0], (TASKS[0], TASKS[1], TASKS[0]))
    assert [steps[0] for _, steps, _ in policy.seen] == [0, 2, 4, 6, 8]
    assert policy.seen[-1][0] == [2], "the longest episode is left alone"


def test_plots_are_of_whole_episodes_in_recorded_units(tmp_path: Path) -> None:
    found, _ = measured(write_recording(tmp_path / "a", Layout(lengths=LENGTHS)))
    assert [(plot["task"], plot["episode"]) for plot in found.plots] == [(TASKS[0], 0), (TASKS[1], 1)]
    np.testing.assert_allclose(found.plots[1]["recorded"], [action_of(1, t) for t in range(5)], rtol=1e-3, atol=1e-2)
    assert np.shape(found.plots[1]["predicted"]) == (5, 6)
    write_action_error(tmp_path / "action_error.json", found)
    assert read_action_error(tmp_path / "action_error.json")["names"] == list(NAMES)


def test_episodes_of_a_single_decision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every episode has at most 2 actions"):
        measured(write_recording(tmp_path / "a", Layout(lengths=(2, 1))))
