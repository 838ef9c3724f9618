"""Slide the named object 10 cm in the named direction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts
from envs.tabletop.instructions import DIRECTION_WORDS, name_object
from envs.tabletop.layout import DIRECTIONS, Episode
from envs.tabletop.task import Array, Task, View
from envs.tabletop.tasks.push import corridor_is_free

SLIDE_M = 0.10
ASTRAY_M = 0.05


class Slide(Task):
    """Succeeds 8 cm along the way; more than 5 cm the wrong way or astray ends the episode."""

    name = "slide"
    kind = "objects"
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
        """The way is free and stays on the table within reach."""
        start = episode.object_xy_m[episode.target]
        end = start + SLIDE_M * np.array(DIRECTIONS[episode.direction])
        return bool(0.36 < end[0] < 0.63 and abs(end[1]) < 0.21) and corridor_is_free(episode, start, end)

    def words(self, episode: Episode) -> dict[str, str]:
        """The object and the direction."""
        return {"object": name_object(episode, episode.target), "direction": DIRECTION_WORDS[episode.direction]}

    def success(self, view: View) -> NDArray[np.bool_]:
        """The target has come far enough, on its way."""
        along, across = self._progress(view)
        return (along > 0.8 * SLIDE_M) & (np.abs(across) < ASTRAY_M)

    def wrong(self, view: View) -> NDArray[np.bool_]:
        """The target went back or aside."""
        along, across = self._progress(view)
        return (along < -ASTRAY_M) | (np.abs(across) >= ASTRAY_M)

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and where it is to come to rest."""
        pos = view.of_target(view.object_pos)
        goal = self._start(view) + SLIDE_M * self._direction(view)
        return pos, np.column_stack((goal, pos[:, 2]))

    def expert(self, view: View) -> NDArray[np.float32]:
        """Push along the direction, back onto the line where it strayed."""
        pos = view.of_target(view.object_pos)
        way = self._start(view) + (SLIDE_M + 0.05) * self._direction(view) - pos[:, :2]
        return experts.push(view, pos, way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6))

    def _start(self, view: View) -> Array:
        return np.stack([e.object_xy_m[e.target] for e in view.episodes])  # [n, 2]

    def _direction(self, view: View) -> Array:
        return np.array([DIRECTIONS[e.direction] for e in view.episodes])  # [n, 2]

    def _progress(self, view: View) -> tuple[Array, Array]:
        moved = view.of_target(view.object_pos)[:, :2] - self._start(view)
        direction = self._direction(view)
        along = (moved * direction).sum(axis=1)
        return along, moved[:, 1] * direction[:, 0] - moved[:, 0] * direction[:, 1]
