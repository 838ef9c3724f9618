"""Turn the dial to the named side."""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import FixturesTask, View
from envs.tabletop.scene.things import DIAL_BAR_HALF_M
from envs.types import Array

TURNED_RAD = 0.6
SIDES = ("left", "right")


class TurnDial(FixturesTask):
    """Succeeds 34 degrees to the named side; 34 degrees to the other side ends the episode."""

    name = "turn_dial"
    max_steps = 60
    wrong_name = "wrong direction"
    paraphrases = (
        "turn the dial to the {side}",
        "turn the knob {side}",
        "rotate the dial to the {side}",
        "twist the knob to the {side}",
        "rotate the knob {side}",
        "twist the dial {side}",
        "grab the dial and turn it to the {side}",
        "turn the dial {side}",
    )
    held_out_paraphrases = (
        "twist the dial to the {side}",
        "grab the knob and rotate it to the {side}",
        "give the dial a turn to the {side}",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        """The side, seen from the arm: left is counter-clockwise from above."""
        return {"side": SIDES[episode.goal]}

    def success(self, view: View) -> Array:
        return self._sense(view) * view.dial_rad > TURNED_RAD

    def wrong(self, view: View) -> Array:
        return self._sense(view) * view.dial_rad < -TURNED_RAD

    def places(self, view: View) -> tuple[Array, Array]:
        """The dial, and the goal position of the far end of its bar."""
        xp = array_namespace(view.dial_rad)
        angle = self._sense(view) * TURNED_RAD
        end = DIAL_BAR_HALF_M[0] * xp.stack((xp.cos(angle), xp.sin(angle), xp.zeros_like(angle)), axis=1)
        return view.dial_pos, view.dial_pos + end

    def expert(self, view: View) -> Array:
        """Grasp across the bar and turn it."""
        point = view.dial_pos - constant((0, 0, DIAL_BAR_HALF_M[2]), view.dial_pos)
        held = experts.holding(view, point, 2 * DIAL_BAR_HALF_M[1])
        twist = experts.act(view, point, self._sense(view), experts.CLOSE)
        return experts.choose(held, twist, experts.grasp(view, point, view.dial_rad - view.tcp_yaw))

    def _sense(self, view: View) -> Array:
        xp = array_namespace(view.goal)
        return 1.0 - 2.0 * xp.astype(view.goal, view.dial_rad.dtype)  # [n]: 1 left, -1 right
