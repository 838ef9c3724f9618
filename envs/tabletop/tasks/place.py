"""Pick the named object up and place it on the named zone."""

from __future__ import annotations

from envs.arrays import constant
from envs.tabletop import experts, terms
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.tabletop.scene.things import OBJECT_HALF_HEIGHT_M, ZONE_RADIUS_M
from envs.types import Array


class Place(ObjectsTask):
    """Succeeds when the named object stands on the named zone and the gripper has released it."""

    name = "place"
    max_steps = 90
    receptacles = ("zone",)
    paraphrases = (
        "place the {object} on the {zone}",
        "put the {object} on the {zone}",
        "pick up the {object} and put it on the {zone}",
        "set the {object} down on the {zone}",
        "carry the {object} to the {zone}",
        "lift the {object} and place it on the {zone}",
        "pick the {object} up and set it on the {zone}",
        "grasp the {object} and lay it on the {zone}",
    )
    held_out_paraphrases = (
        "carry the {object} over and set it on the {zone}",
        "pick up the {object} and lay it on the {zone}",
        "the {zone} is where the {object} should be placed",
    )

    def success(self, view: View) -> Array:
        return terms.resting_on(
            view, view.of_target(view.object_pos), view.of_goal(view.receptacle_pos), ZONE_RADIUS_M - 0.01
        )

    def expert(self, view: View) -> Array:
        """Grasp, carry over the zone, put down."""
        zone = view.of_goal(view.receptacle_pos)
        return experts.grasp_and_carry(view, zone + constant((0, 0, OBJECT_HALF_HEIGHT_M), zone), tolerance_m=0.015)
