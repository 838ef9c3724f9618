"""Put the named object into the named bowl."""

from __future__ import annotations

from envs.arrays import constant
from envs.tabletop import experts, terms
from envs.tabletop.episodes.task import ObjectsTask, View
from envs.types import Array


class PickPlace(ObjectsTask):
    """Succeeds when the named object lies in the named bowl and the gripper has released it."""

    name = "pick_place"
    max_steps = 90
    receptacles = ("bowl",)
    paraphrases = (
        "put the {object} in the {bowl}",
        "place the {object} in the {bowl}",
        "pick up the {object} and put it in the {bowl}",
        "drop the {object} into the {bowl}",
        "move the {object} into the {bowl}",
        "take the {object} and place it inside the {bowl}",
        "the {object} belongs in the {bowl}",
        "set the {object} down in the {bowl}",
    )
    held_out_paraphrases = (
        "pick up the {object} and drop it in the {bowl}",
        "the {bowl} is where the {object} should go",
        "grab the {object} and place it into the {bowl}",
    )

    def success(self, view: View) -> Array:
        return terms.inside_bowl(view, view.of_target(view.object_pos))

    def expert(self, view: View) -> Array:
        """Grasp, carry over the bowl, release."""
        bowl = view.of_goal(view.receptacle_pos)
        return experts.grasp_and_carry(view, bowl + constant((0, 0, 0.045), bowl), tolerance_m=0.02)
