"""Slide the named object 10 cm in the named direction."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from envs.tabletop import experts
from envs.tabletop.episodes.episode import DIRECTIONS, Episode
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.tabletop.tasks.push import corridor_is_free
from envs.types import Array

SLIDE_M = 0.10
ASTRAY_M = 0.05


class Slide(ObjectsTask):
    """Succeeds 8 cm along the direction; more than 5 cm backwards or sideways ends the episode."""

    name = "slide"
    max_steps = 70
    wrong_name = "wrong direction"
    paraphrases = (
        "slide the {object} {direction}",
        "push the {object} {direction}",
        "move the {object} {direction}",
        "shove the {object} {direction}",
        "nudge the {object} {direction}",
        "slide the {object} a bit {direction}",
        "push the {object} a little {direction}",
        "make the {object} slide {direction}",
    )
    held_out_paraphrases = (
        "move the {object} a little {direction}",
        "give the {object} a push {direction}",
        "shove the {object} a bit {direction}",
    )

    def can_begin(self, episode: Episode) -> bool:
        """The path is free and stays on the table within reach."""
        start = episode.object_xy_m[episode.target]
        end = start + SLIDE_M * np.array(DIRECTIONS[episode.direction])
        return bool(0.36 < end[0] < 0.63 and abs(end[1]) < 0.21) and corridor_is_free(episode, start, end)

    def success(self, view: View) -> Array:
        along, across = self._progress(view)
        return (along > 0.8 * SLIDE_M) & (array_namespace(across).abs(across) < ASTRAY_M)

    def wrong(self, view: View) -> Array:
        along, across = self._progress(view)
        return (along < -ASTRAY_M) | (array_namespace(across).abs(across) >= ASTRAY_M)

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and its goal position."""
        pos = view.of_target(view.object_pos)
        goal = view.start_pos + SLIDE_M * view.direction
        return pos, array_namespace(pos).concat((goal, pos[:, 2:]), axis=1)

    def expert(self, view: View) -> Array:
        """Push along the direction, correcting sideways deviations."""
        pos = view.of_target(view.object_pos)
        way = view.start_pos + (SLIDE_M + 0.05) * view.direction - pos[:, :2]
        return experts.push(view, pos, experts.unit(way))

    def _progress(self, view: View) -> tuple[Array, Array]:
        moved, direction = view.of_target(view.object_pos)[:, :2] - view.start_pos, view.direction
        along = array_namespace(moved).sum(moved * direction, axis=1)
        return along, moved[:, 1] * direction[:, 0] - moved[:, 0] * direction[:, 1]
