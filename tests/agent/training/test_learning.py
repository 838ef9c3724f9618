"""Tests that train for minutes: `make test-learning`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.learning.config import LearnerConfig
from agent.recipes import sft_demo
from agent.runs.run_folder import start_run
from agent.training.loop import train

pytestmark = pytest.mark.learning


def test_a_few_minutes_of_cloning_solve_drawer_and_button_tasks_and_depend_on_instructions_and_frames(
    tmp_path: Path,
) -> None:
    demo = sft_demo()
    config = replace(
        demo,
        demonstrations=replace(
            demo.demonstrations, tasks=("open_drawer", "close_drawer", "press_button"), episodes_per_task=120
        ),
        learner=LearnerConfig(batch_size=128, num_updates=600),
        evaluation=replace(demo.evaluation, episodes_per_task=15, videos_per_task=0),
    )
    evaluation, controls = train(config, start_run(tmp_path / "run", config))
    assert evaluation is not None
    assert evaluation.mean_over_tasks >= 0.75
    assert controls["shuffled instructions"].mean_over_tasks <= evaluation.mean_over_tasks / 2
    assert controls["black frames"].mean_over_tasks <= 0.15
