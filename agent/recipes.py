"""Recipes: named functions that return one typed RunConfig. A variant calls a recipe and replaces fields of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.demonstrations import DemonstrationsConfig
from agent.learner import LearnerConfig
from agent.loop import RunConfig
from agent.measure import EvaluationConfig
from rollout.workers import WorkersConfig

DEMO_TASKS = ("reach", "lift", "pick_place", "open_drawer", "close_drawer", "press_button")


def sft_demo() -> RunConfig:
    """Six tabletop tasks cloned from the scripted expert, collected to filmed in minutes on two cores."""
    return RunConfig(
        demonstrations=DemonstrationsConfig(tasks=DEMO_TASKS, episodes_per_task=400, noise_std=0.3),
        learner=LearnerConfig(batch_size=128, num_updates=3000),
        evaluation=EvaluationConfig(episodes_per_task=20),
        save_every=500,
    )


def sft_tabletop() -> RunConfig:
    """All tabletop tasks cloned from the scripted expert, judged on every family of variations."""
    demo = sft_demo()
    return replace(
        demo,
        demonstrations=replace(demo.demonstrations, tasks=()),
        learner=replace(demo.learner, num_updates=10000),
        evaluation=replace(demo.evaluation, variations=("train", "vision", "paraphrase", "combination", "execution")),
        save_every=2000,
    )


def sft_tiny() -> RunConfig:
    """A few updates on a few episodes: whether everything runs, not whether it learns."""
    return RunConfig(
        demonstrations=DemonstrationsConfig(tasks=("reach", "press_button"), episodes_per_task=2, num_worlds=2),
        rollout=WorkersConfig(workers=0),
        learner=LearnerConfig(batch_size=8, num_updates=4, warmup_updates=2),
        evaluation=EvaluationConfig(episodes_per_task=1, num_worlds=2),
        save_every=2,
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "sft_demo": sft_demo,
    "sft_tabletop": sft_tabletop,
    "sft_tiny": sft_tiny,
}
"""Every recipe by name."""
