"""Stack the named object on another one."""

from __future__ import annotations

from envs.arrays import constant
from envs.tabletop import experts, terms
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.tabletop.scene.things import OBJECT_HALF_HEIGHT_M
from envs.types import Array

_TOP, _TWICE_TOP = (0.0, 0.0, OBJECT_HALF_HEIGHT_M), (0.0, 0.0, 2 * OBJECT_HALF_HEIGHT_M)


class Stack(ObjectsTask):
    """Succeeds when the first object rests on the second and the gripper has released it."""

    name = "stack"
    max_steps = 90
    goal_is_object = True
    paraphrases = (
        "stack the {object} on the {base}",
        "put the {object} on top of the {base}",
        "place the {object} on top of the {base}",
        "pick up the {object} and stack it on the {base}",
        "set the {object} on top of the {base}",
        "build a tower with the {object} on the {base}",
        "lift the {object} onto the {base}",
        "stack the {object} onto the {base}",
    )
    held_out_paraphrases = (
        "pick up the {object} and set it on top of the {base}",
        "build a stack with the {object} on top of the {base}",
        "the {object} goes on top of the {base}",
    )

    def success(self, view: View) -> Array:
        target, top = self.places(view)
        return terms.resting_on(view, target, top, radius_m=0.025)

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and the top of the base."""
        base = view.of_goal(view.object_pos)
        return view.of_target(view.object_pos), base + constant(_TOP, base)

    def expert(self, view: View) -> Array:
        """Grasp, carry over the base, put down."""
        base = view.of_goal(view.object_pos)
        return experts.grasp_and_carry(view, base + constant(_TWICE_TOP, base), tolerance_m=0.008)
