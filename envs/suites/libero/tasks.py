"""LIBERO's suites, LIBERO-PRO's variations of them, step limits, and which seed begins in which initial state.

Nothing here imports a simulator, because both interpreters import this module.
"""

from __future__ import annotations

import re

from envs.suites.libero.names import GOAL, LONG, NINETY, OBJECT, SPATIAL

SUITES: dict[str, tuple[str, ...]] = {
    "spatial": SPATIAL,
    "object": OBJECT,
    "goal": GOAL,
    "10": LONG,
    "90": NINETY,
}
"""{suite: its tasks}. Published averages are over the first four."""

HORIZONS = {"spatial": 220, "object": 280, "goal": 300, "10": 520, "90": 400}
"""Step limits of published evaluations (Kim et al. 2024, OpenVLA), after the settling steps."""

SETTLE_STEPS = 10
"""Actions without motion, fingers opening, before the first observation."""

TRAIN = "train"
VARIATIONS = (TRAIN, "lan", "object", "swap", "task")
"""LIBERO itself, and LIBERO-PRO's complete suites: another sentence, recoloured or resized objects, exchanged places,
and another goal in the same scene. libero-90 has none."""
WIDE = "wide"
"""Training episodes without what LIBERO-PRO evaluates (wide/): of the same four suites."""
RESTYLED = "restyled"
"""Training episodes of LIBERO's own tasks and places in other words, colours and sizes than LIBERO-PRO's
(wide/restyled.py); a seed has the places of "train", unless things would push each other over."""
EPISODES_PER_SCENE = 10
"""Consecutive seeds of a task's wide or restyled episodes that share a compiled scene."""
WITHOUT_RESOURCES = ("env",)
"""Suites of LIBERO-PRO, as variations, of which the package has neither tasks nor initial states."""

MUJOCO = "3.3.2"
"""Newer versions change physics and frames: objects of the official states jump while they settle, and policies lose
several points (docs/libero.md)."""

NUM_OFFICIAL = 50
"""Official initial states of every task and variation."""
FIRST_OFFICIAL_SEED = 1_000_000
"""The first seed of evaluations (agent/runs/seeds.py): the episode of seed FIRST_OFFICIAL_SEED + i begins in official
state i, for i below NUM_OFFICIAL. All other seeds sample a state as the suite's own reset does."""

_SUITE_OF = {task: suite for suite, tasks in SUITES.items() for task in tasks}


def suite_of(task: str) -> str:
    """The key in SUITES of a task."""
    return _SUITE_OF[task]


def variations_of(task: str) -> tuple[str, ...]:
    """The variations that a task has."""
    return (TRAIN,) if suite_of(task) == "90" else (*VARIATIONS, WIDE, RESTYLED)


def scene_number(variation: str, seed: int) -> int:
    """Which of a task's scenes in that variation a seed's episode runs in; only "wide" and "restyled" have several."""
    return seed // EPISODES_PER_SCENE if variation in (WIDE, RESTYLED) else 0


def placed_as(variation: str) -> str:
    """The variation in whose initial states the episodes of a variation begin."""
    return TRAIN if variation == RESTYLED else variation


def folder_of(task: str, variation: str) -> str:
    """The folder of the package that holds the task's BDDL file and initial states."""
    base = f"libero_{suite_of(task)}"
    return base if variation == TRAIN else f"{base}_{variation}"


def published_sentence(task: str, variation: str) -> str | None:
    """The sentence that published evaluations give to a policy: the words of the task's name, as the suite's
    `Task.language` and the demonstrations that these policies were trained on have it.

    None of the variations whose sentence is another one than the task's, which only the BDDL file has.
    """
    if variation in ("lan", "task", WIDE, RESTYLED):
        return None
    return re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ")


def official_index(seed: int) -> int | None:
    """The index of the official state in which an episode begins, or None if its state is sampled."""
    index = seed - FIRST_OFFICIAL_SEED
    return index if 0 <= index < NUM_OFFICIAL else None
