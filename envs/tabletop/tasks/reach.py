"""Touch the top of the named object with the closed fingertips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts
from envs.tabletop.instructions import name_object
from envs.tabletop.layout import Episode
from envs.tabletop.scene import OBJECT_HALF_HEIGHT_M
from envs.tabletop.task import Array, Task, View

TOUCH_M = 0.02
_TOP = np.array((0.0, 0.0, OBJECT_HALF_HEIGHT_M + 0.008))


class Reach(Task):
    """Succeeds at the named object's top; touching another one ends the episode."""

    name = "reach"
    kind = "objects"
    max_steps = 40
    paraphrases = (
        "touch the {object}",
        "reach the {object}",
        "move the gripper to the {object}",
        "tap the {object} with the gripper",
        "touch the top of the {object}",
        "go to the {object} and touch it",
        "put the fingertips on the {object}",
        "point at the {object} and touch it",
    )
    held_out_paraphrases = (
        "reach for the {object} and tap it",
        "bring the gripper to the top of the {object}",
        "make contact with the {object}",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        """The object's colour and shape."""
        return {"object": name_object(episode, episode.target)}

    def success(self, view: View) -> NDArray[np.bool_]:
        """The fingertips are at the top of the target."""
        return self._touched(view)[view.rows, view.target]

    def wrong(self, view: View) -> NDArray[np.bool_]:
        """The fingertips are at the top of another object."""
        touched = self._touched(view)
        touched[view.rows, view.target] = False
        return np.any(touched, axis=1)

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and its top."""
        pos = view.of_target(view.object_pos)
        return pos, pos + _TOP

    def expert(self, view: View) -> NDArray[np.float32]:
        """Come down on the top with closed fingers."""
        return experts.press(view, view.of_target(view.object_pos) + _TOP)

    def _touched(self, view: View) -> NDArray[np.bool_]:
        return np.linalg.norm(view.tcp_pos[:, None] - view.object_pos - _TOP, axis=-1) < TOUCH_M
