"""Close the named drawer."""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.task import View
from envs.tabletop.scene.things import HANDLE_HALF_M
from envs.tabletop.tasks.open_drawer import OpenDrawer
from envs.types import Array

CLOSED_M = 0.012


class CloseDrawer(OpenDrawer):
    """Succeeds when the named drawer is shut; moving the other one by 4 cm ends the episode."""

    name = "close_drawer"
    max_steps = 60
    target_drawer_open = True
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

    def success(self, view: View) -> Array:
        return view.of_target(view.drawer_m) < CLOSED_M

    def places(self, view: View) -> tuple[Array, Array]:
        """The handle, and its position when the drawer is shut."""
        handle = view.of_target(view.handle_pos)
        return handle, handle + view.of_target(view.drawer_m)[:, None] * constant((1, 0, 0), handle)

    def expert(self, view: View) -> Array:
        """Descend in front of the handle with closed fingers and push."""
        xp = array_namespace(view.tcp_pos)
        handle = view.of_target(view.handle_pos)
        gap = HANDLE_HALF_M[0] + view.arm.finger_half_m
        front = handle - constant((gap + 0.018, 0, 0.002), handle)
        offset = view.tcp_pos - handle
        ready = (offset[:, 0] < -gap + 0.012) & (xp.abs(offset[:, 1]) < 0.018) & (xp.abs(offset[:, 2]) < 0.02)
        ahead = xp.concat((view.tcp_pos[:, :1] + 0.06, handle[:, 1:]), axis=1)
        push = experts.act(view, ahead, -view.tcp_yaw, experts.CLOSE)
        return experts.choose(ready, push, experts.press(view, front))
