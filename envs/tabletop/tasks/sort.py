"""Sort: put the named object into the bowl of its own colour."""

from __future__ import annotations

from envs.tabletop.tasks.pick_place import PickPlace


class Sort(PickPlace):
    """Succeeds when the named object lies in the bowl of its colour and the gripper has released it."""

    name = "sort"
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
