"""Push the named object to the named zone, without lifting it."""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from envs.tabletop import experts
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.types import Array

IN_ZONE_M = 0.032
CORRIDOR_M = 0.085
BOWL_CORRIDOR_M = 0.105


class Push(ObjectsTask):
    """Succeeds when the named object's centre is well inside the named zone."""

    name = "push"
    max_steps = 80
    receptacles = ("zone",)
    paraphrases = (
        "push the {object} to the {zone}",
        "push the {object} onto the {zone}",
        "shove the {object} to the {zone}",
        "slide the {object} to the {zone}",
        "push the {object} until it is on the {zone}",
        "move the {object} to the {zone} by pushing it",
        "nudge the {object} onto the {zone}",
        "push the {object} across the table to the {zone}",
    )
    held_out_paraphrases = (
        "shove the {object} until it is on the {zone}",
        "slide the {object} across the table onto the {zone}",
        "get the {object} to the {zone} by pushing it",
    )

    def can_begin(self, episode: Episode) -> bool:
        """The path from behind the object to the zone is free."""
        start, end = episode.object_xy_m[episode.target], episode.receptacle_xy_m[episode.goal]
        return corridor_is_free(episode, start, end)

    def success(self, view: View) -> Array:
        gap = view.of_target(view.object_pos) - view.of_goal(view.receptacle_pos)
        return array_namespace(gap).linalg.vector_norm(gap[:, :2], axis=1) < IN_ZONE_M

    def expert(self, view: View) -> Array:
        """Push the object straight towards the zone from behind."""
        pos = view.of_target(view.object_pos)
        way = (view.of_goal(view.receptacle_pos) - pos)[:, :2]
        return experts.push(view, pos, experts.unit(way))


def corridor_is_free(episode: Episode, start: NDArray[np.float64], end: NDArray[np.float64]) -> bool:
    """Whether no other object or bowl is in the way of a push from `start` to `end`, including the run-up."""
    way = (end - start) / np.linalg.norm(end - start)
    begin = start - 0.08 * way
    others = np.delete(episode.object_xy_m, episode.target, axis=0)
    bowls = episode.receptacle_xy_m if episode.receptacle == "bowl" else np.empty((0, 2))
    obstacles = np.concatenate((others, bowls))
    clearance_m = np.concatenate((np.full(len(others), CORRIDOR_M), np.full(len(bowls), BOWL_CORRIDOR_M)))
    along = np.clip((obstacles - begin) @ way, 0, np.linalg.norm(end - begin))
    nearest = begin + along[:, None] * way
    return bool((np.linalg.norm(obstacles - nearest, axis=1) > clearance_m).all())
