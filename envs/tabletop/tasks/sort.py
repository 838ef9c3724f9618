"""Sort: put the named object into the bowl of its own colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts, terms
from envs.tabletop.instructions import name_object
from envs.tabletop.layout import Episode
from envs.tabletop.task import Array, Task, View


class Sort(Task):
    """Succeeds when the named object lies in the bowl of its colour and the gripper has let go."""

    name = "sort"
    kind = "objects"
    max_steps = 90
    receptacles = ("bowl",)
    goal_by_colour = True
    paraphrases = (
        "put the {object} in the bowl of the same color",
        "sort the {object} by color",
        "place the {object} in the matching bowl",
        "put the {object} in the bowl that has its color",
        "move the {object} into the bowl with the same color",
        "sort the {object} into the bowl of its color",
        "drop the {object} into the bowl that matches it",
        "take the {object} to the bowl of the same color",
    )
    held_out_paraphrases = (
        "sort the {object} into the matching bowl",
        "put the {object} in the bowl that matches its color",
        "the {object} goes in the bowl of the same color",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        """The object; its colour decides the bowl."""
        return {"object": name_object(episode, episode.target)}

    def success(self, view: View) -> NDArray[np.bool_]:
        """The target rests in the goal bowl."""
        return terms.inside_bowl(view, view.of_target(view.object_pos))

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and the bowl."""
        return view.of_target(view.object_pos), view.of_goal(view.receptacle_pos)

    def expert(self, view: View) -> NDArray[np.float32]:
        """Grasp, carry over the bowl, let go."""
        return experts.grasp_and_carry(
            view, view.of_goal(view.receptacle_pos) + np.array((0, 0, 0.045)), tolerance_m=0.02
        )
