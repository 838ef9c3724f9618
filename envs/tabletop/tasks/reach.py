"""Touch the top of the named object with the closed fingertips."""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.tabletop.scene.things import OBJECT_HALF_HEIGHT_M
from envs.types import Array

TOUCH_M = 0.02
TOP_M = (0.0, 0.0, OBJECT_HALF_HEIGHT_M + 0.008)


class Reach(ObjectsTask):
    """Succeeds when the fingertips touch the named object's top; touching another one ends the episode."""

    name = "reach"
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

    def success(self, view: View) -> Array:
        """The fingertips are at the top of the target."""
        return self._touched(view)[view.rows, view.target]

    def wrong(self, view: View) -> Array:
        """The fingertips are at the top of another object."""
        return view.any_other(self._touched(view))

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and its top."""
        pos = view.of_target(view.object_pos)
        return pos, pos + constant(TOP_M, pos)

    def expert(self, view: View) -> Array:
        """Descend on the top with closed fingers."""
        pos = view.of_target(view.object_pos)
        return experts.press(view, pos + constant(TOP_M, pos))

    def _touched(self, view: View) -> Array:
        xp = array_namespace(view.tcp_pos)
        offset = view.tcp_pos[:, None] - view.object_pos - constant(TOP_M, view.tcp_pos)
        return xp.linalg.vector_norm(offset, axis=-1) < TOUCH_M
