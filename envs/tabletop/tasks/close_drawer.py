"""Close the named drawer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts
from envs.tabletop.layout import Episode
from envs.tabletop.scene import HANDLE_HALF_M, NUM_DRAWERS
from envs.tabletop.task import Array, Task, View
from envs.tabletop.tasks.open_drawer import other_drawer_moved

CLOSED_M = 0.012
_FINGER_HALF_M = 0.01


class CloseDrawer(Task):
    """Succeeds when the named drawer is shut; moving the other one by 4 cm ends the episode."""

    name = "close_drawer"
    kind = "fixtures"
    max_steps = 60
    num_targets = NUM_DRAWERS
    target_drawer_open = True
    wrong_name = "wrong drawer"
    paraphrases = (
        "close the {colour} drawer",
        "shut the {colour} drawer",
        "push the {colour} drawer closed",
        "push the {colour} drawer back in",
        "close the drawer with the {colour} handle",
        "slide the {colour} drawer shut",
        "push the {colour} handle to close the drawer",
        "get the {colour} drawer closed",
    )
    held_out_paraphrases = (
        "shut the drawer with the {colour} handle",
        "push the {colour} drawer until it is closed",
        "slide the {colour} drawer back in",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        """The drawer's colour."""
        return {"colour": episode.drawer_colours[episode.target]}

    def success(self, view: View) -> NDArray[np.bool_]:
        """The target drawer is shut."""
        return view.of_target(view.drawer_m) < CLOSED_M

    def wrong(self, view: View) -> NDArray[np.bool_]:
        """The other drawer was moved."""
        return other_drawer_moved(view)

    def places(self, view: View) -> tuple[Array, Array]:
        """The handle, and where it is when the drawer is shut."""
        handle = view.of_target(view.handle_pos)
        return handle, handle + view.of_target(view.drawer_m)[:, None] * np.array((1.0, 0, 0))

    def expert(self, view: View) -> NDArray[np.float32]:
        """Come down in front of the handle with closed fingers and push."""
        handle = view.of_target(view.handle_pos)
        gap = HANDLE_HALF_M[0] + _FINGER_HALF_M
        front = handle - np.array((gap + 0.018, 0, 0.002))
        offset = view.tcp_pos - handle
        ready = (offset[:, 0] < -gap + 0.012) & (np.abs(offset[:, 1]) < 0.018) & (np.abs(offset[:, 2]) < 0.02)
        ahead = np.column_stack((view.tcp_pos[:, 0] + 0.06, handle[:, 1:]))
        push = experts.act(view, ahead, -view.tcp_yaw, experts.CLOSE)
        return experts.choose(ready, push, experts.press(view, front))
