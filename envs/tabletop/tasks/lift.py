"""Grasp the named object and lift it."""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts, terms
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.tabletop.scene.things import CUBE_HALF_M
from envs.types import Array

LIFT_M = 0.08


class Lift(ObjectsTask):
    """Succeeds when the named object is 8 cm above its initial position; lifting another one ends the episode."""

    name = "lift"
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

    def success(self, view: View) -> Array:
        return terms.lifted(view.of_target(view.object_pos), LIFT_M)

    def wrong(self, view: View) -> Array:
        return view.any_other(terms.lifted(view.object_pos, LIFT_M))

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and its goal position above."""
        xp = array_namespace(view.object_pos)
        pos = view.of_target(view.object_pos)
        return pos, xp.concat((pos[:, :2], xp.full_like(pos[:, 2:], LIFT_M + CUBE_HALF_M)), axis=1)

    def expert(self, view: View) -> Array:
        """Grasp, then move straight up."""
        pos = view.of_target(view.object_pos)
        held = experts.holding(view, pos, 2 * CUBE_HALF_M)
        up = experts.act(view, view.tcp_pos + constant((0, 0, 0.06), pos), 0.0, experts.CLOSE)
        return experts.choose(held, up, experts.grasp_object(view))
