"""Grasp the named object and lift it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts, terms
from envs.tabletop.instructions import name_object
from envs.tabletop.layout import Episode
from envs.tabletop.scene import CUBE_HALF_M
from envs.tabletop.task import Array, Task, View

LIFT_M = 0.08


class Lift(Task):
    """Succeeds when the named object is 8 cm above where it lay; lifting another one ends the episode."""

    name = "lift"
    kind = "objects"
    max_steps = 60
    paraphrases = (
        "lift the {object}",
        "pick up the {object}",
        "raise the {object} off the table",
        "grasp the {object} and lift it",
        "take the {object} and hold it up",
        "lift up the {object}",
        "grab the {object} and raise it",
        "pick the {object} up from the table",
    )
    held_out_paraphrases = (
        "grab the {object} and lift it up",
        "hold the {object} up in the air",
        "take the {object} off the table",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        """The object's colour and shape."""
        return {"object": name_object(episode, episode.target)}

    def success(self, view: View) -> NDArray[np.bool_]:
        """The target is up."""
        return terms.lifted(view.of_target(view.object_pos), LIFT_M)

    def wrong(self, view: View) -> NDArray[np.bool_]:
        """Another object is up."""
        up = np.stack([terms.lifted(view.object_pos[:, i], LIFT_M) for i in range(view.object_pos.shape[1])], axis=1)
        up[view.rows, view.target] = False
        return np.any(up, axis=1)

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and the height to reach above it."""
        pos = view.of_target(view.object_pos)
        return pos, np.column_stack((pos[:, :2], np.full(len(pos), LIFT_M + CUBE_HALF_M)))

    def expert(self, view: View) -> NDArray[np.float32]:
        """Grasp, then straight up."""
        pos = view.of_target(view.object_pos)
        held = experts.holding(view, pos, 2 * CUBE_HALF_M)
        up = experts.act(view, view.tcp_pos + np.array((0, 0, 0.06)), 0.0, experts.CLOSE)
        return experts.choose(held, up, experts.grasp_object(view))
