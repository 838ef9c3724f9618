"""Open the named drawer by its handle."""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import FixturesTask, View
from envs.tabletop.scene.things import DRAWER_TRAVEL_M, HANDLE_HALF_M, NUM_DRAWERS
from envs.types import Array

OPEN_M = 0.085
OTHER_MOVED_M = 0.04


class OpenDrawer(FixturesTask):
    """Succeeds when the named drawer is pulled out; moving the other one by 4 cm ends the episode."""

    name = "open_drawer"
    max_steps = 70
    num_targets = NUM_DRAWERS
    target_drawer_open = False
    wrong_name = "wrong drawer"
    paraphrases = (
        "open the {colour} drawer",
        "pull the {colour} drawer open",
        "pull out the {colour} drawer",
        "slide the {colour} drawer open",
        "open the drawer with the {colour} handle",
        "grab the {colour} handle and pull",
        "pull the {colour} handle towards you",
        "get the {colour} drawer open",
    )
    held_out_paraphrases = (
        "pull open the drawer with the {colour} handle",
        "grab the {colour} handle and open the drawer",
        "slide out the {colour} drawer",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        return {"colour": episode.drawer_colours[episode.target]}

    def success(self, view: View) -> Array:
        return view.of_target(view.drawer_m) > OPEN_M

    def wrong(self, view: View) -> Array:
        moved_m = array_namespace(view.drawer_m).abs(view.drawer_m - view.drawer_start_m)
        return view.any_other(moved_m > OTHER_MOVED_M)

    def places(self, view: View) -> tuple[Array, Array]:
        """The handle, and its position when the drawer is open."""
        handle = view.of_target(view.handle_pos)
        missing = DRAWER_TRAVEL_M - view.of_target(view.drawer_m)
        return handle, handle - missing[:, None] * constant((1, 0, 0), handle)

    def expert(self, view: View) -> Array:
        """Grasp the handle and pull."""
        handle = view.of_target(view.handle_pos)
        held = experts.holding(view, handle, 2 * HANDLE_HALF_M[1])
        pull = experts.act(view, handle - constant((0.08, 0, 0), handle), -view.tcp_yaw, experts.CLOSE)
        return experts.choose(held, pull, experts.grasp(view, handle, -view.tcp_yaw))
