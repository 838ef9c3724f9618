"""Samples an Episode from an EpisodeSpec: positions, colours and instruction.

Two kinds of table exist, each with more things than the instruction needs: one with loose objects and two bowls or two
marked zones, one with a cabinet of two drawers, three buttons and a dial. The kind does not determine the task.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.tabletop.episodes.episode import COLOURS, DIRECTIONS, Episode
from envs.tabletop.episodes.task import Task
from envs.tabletop.episodes.variations import HELD_OUT_PAIRS, SYNONYMS, Look, Pose, sample_look, sample_pose
from envs.tabletop.scene.things import (
    DRAWER_TRAVEL_M,
    NUM_BUTTONS,
    NUM_DRAWERS,
    NUM_OBJECTS,
    NUM_RECEPTACLES,
    OBJECT_REGION_M,
    RECEPTACLE_REGION_M,
    SHAPES,
)
from envs.types import EpisodeSpec

OBJECT_SPACING_M = 0.10
RECEPTACLE_SPACING_M = 0.15
OBJECT_TO_RECEPTACLE_M = 0.125


def sample_episode(spec: EpisodeSpec, task: Task, num_joints: int) -> Episode:
    """The episode of that spec, the same in every process.

    Suite, task and seed determine the sample: no two tasks share layouts, looks or poses. Variations of one task and
    seed share everything that they do not change (e.g. the same layout in other colours), for paired comparisons, and
    repeats share everything. The table does not depend on the arm's number of joints.

    Raises:
        UserError: no layout fits the task (a fault of the task, not of the seed).
    """
    streams = np.random.SeedSequence((zlib.crc32(f"{spec.suite}/{spec.task}".encode()), spec.seed)).spawn(5)
    layout, vision, language, execution, combination = (np.random.default_rng(s) for s in streams)
    look = sample_look(vision, spec.variation == "vision")
    pose = sample_pose(execution, spec.variation == "execution", NUM_OBJECTS, num_joints)
    if task.kind == "objects":
        episode = _draw_objects(layout, combination, spec, task, look, pose)
    else:
        episode = _draw_fixtures(layout, spec, task, look, pose)
    bank = task.held_out_paraphrases if spec.variation == "paraphrase" else task.paraphrases
    sentence = bank[int(language.integers(len(bank)))].format(**task.words(episode))
    if spec.variation == "synonym":
        sentence = " ".join(str(language.choice(SYNONYMS.get(word, (word,)))) for word in sentence.split())
    return replace(episode, instruction=sentence)


def _draw_objects(
    rng: np.random.Generator, pair_rng: np.random.Generator, spec: EpisodeSpec, task: Task, look: Look, pose: Pose
) -> Episode:
    receptacle = str(rng.choice(task.receptacles))
    receptacle_colours = rng.permutation(list(COLOURS))[:NUM_RECEPTACLES].tolist()
    target, goal = int(rng.integers(NUM_OBJECTS)), int(rng.integers(NUM_RECEPTACLES))
    if task.goal_is_object:
        goal = int(rng.choice([i for i in range(NUM_OBJECTS) if i != target]))
    named = (target, goal) if task.goal_is_object else (target,)
    goal_colour = receptacle_colours[goal] if task.goal_by_colour else None
    pairs = _draw_pairs(pair_rng, named, goal_colour, spec.variation == "combination")
    if goal_colour is not None and (colour := pairs[target][0]) != goal_colour:
        receptacle_colours = [goal_colour if c == colour else c for c in receptacle_colours]
        receptacle_colours[goal] = colour
    direction = str(rng.choice(list(DIRECTIONS)))
    for _ in range(1000):
        receptacle_xy = _scatter(rng, NUM_RECEPTACLES, RECEPTACLE_REGION_M, RECEPTACLE_SPACING_M, np.empty((0, 2)), 0.0)
        object_xy = (
            _scatter(rng, NUM_OBJECTS, OBJECT_REGION_M, OBJECT_SPACING_M, receptacle_xy, OBJECT_TO_RECEPTACLE_M)
            if receptacle_xy is not None
            else None
        )
        if receptacle_xy is None or object_xy is None:
            continue
        episode = Episode(
            spec=spec,
            instruction="",
            kind="objects",
            target=target,
            goal=goal,
            direction=direction,
            colours=tuple(c for c, _ in pairs),
            shapes=tuple(s for _, s in pairs),
            object_xy_m=object_xy,
            receptacle=receptacle,
            receptacle_colours=tuple(receptacle_colours),
            receptacle_xy_m=receptacle_xy,
            look=look,
            pose=pose,
        )
        if task.can_begin(episode):
            return episode
    raise UserError(f"no layout for {spec.id} in 1000 tries: task {task.name!r} needs more space than the table has")


def _draw_pairs(
    rng: np.random.Generator, named: tuple[int, ...], goal_colour: str | None, unseen: bool
) -> list[tuple[str, str]]:
    """Colour and shape of each object, all different.

    Args:
        named: the objects that the instruction names, the target first. None of them is a held-out pair, except the
            target if `unseen`.
        goal_colour: the target's colour if the colour determines the goal; ignored if `unseen`.
        unseen: whether the target is a held-out pair.
    """
    every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    if unseen:
        allowed = [p for p in every if p in HELD_OUT_PAIRS]
    else:
        allowed = [p for p in every if p not in HELD_OUT_PAIRS and goal_colour in (None, p[0])]
    target = allowed[int(rng.integers(len(allowed)))]
    others = [p for p in every if p != target]
    rng.shuffle(others)
    # Half of the time another object has the same colour, so that the shape in the instruction matters too.
    if rng.random() < 0.5:
        others.sort(key=lambda p: p[0] != target[0])
    pairs = {named[0]: target}
    for index in named[1:]:
        pairs[index] = next(p for p in others if p not in HELD_OUT_PAIRS)
        others.remove(pairs[index])
    rest = iter(others)
    return [pairs[i] if i in pairs else next(rest) for i in range(NUM_OBJECTS)]


def _draw_fixtures(rng: np.random.Generator, spec: EpisodeSpec, task: Task, look: Look, pose: Pose) -> Episode:
    drawer_colours = tuple(rng.permutation(list(COLOURS))[:NUM_DRAWERS].tolist())
    button_colours = tuple(rng.permutation(list(COLOURS))[:NUM_BUTTONS].tolist())
    target, goal = int(rng.integers(task.num_targets)), int(rng.integers(2))
    opened = [float(rng.uniform(0.9, 1.0) * DRAWER_TRAVEL_M) if rng.random() < 0.5 else 0.0 for _ in range(NUM_DRAWERS)]
    if task.target_drawer_open is not None:
        opened[target] = float(rng.uniform(0.9, 1.0) * DRAWER_TRAVEL_M) if task.target_drawer_open else 0.0
    side = float(rng.choice((-1.0, 1.0)))
    return Episode(
        spec=spec,
        instruction="",
        kind="fixtures",
        target=target,
        goal=goal,
        colours=button_colours,
        drawer_colours=drawer_colours,
        drawer_open_m=tuple(opened),
        cabinet_xy_m=(float(rng.uniform(0.61, 0.64)), float(-0.06 * side + rng.uniform(-0.015, 0.015))),
        panel_xy_m=(float(rng.uniform(0.355, 0.375)), float(rng.uniform(-0.05, 0.05))),
        dial_xy_m=(float(rng.uniform(0.48, 0.56)), float(side * rng.uniform(0.15, 0.17))),
        look=look,
        pose=pose,
    )


def _scatter(
    rng: np.random.Generator,
    count: int,
    region_m: Sequence[tuple[float, float]],
    spacing_m: float,
    obstacles_m: NDArray[np.float64],  # [B, 2]
    clearance_m: float,
) -> NDArray[np.float64] | None:
    """`count` sampled points, [count, 2], apart from each other and from obstacles; None if sampling failed."""
    low, high = np.array(region_m).T
    placed: list[NDArray[np.float64]] = []
    for _ in range(count):
        candidates = rng.uniform(low, high, (64, 2))
        clear = np.ones(64, bool)
        for points, distance in ((np.array(placed).reshape(-1, 2), spacing_m), (obstacles_m, clearance_m)):
            gaps = np.linalg.norm(candidates[:, None] - points[None], axis=-1)  # [64, B]
            clear &= (gaps >= distance).all(axis=1)
        if not clear.any():
            return None
        placed.append(candidates[np.argmax(clear)])
    return np.array(placed)
