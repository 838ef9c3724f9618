"""Turn the dial to the named side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from envs.tabletop import experts
from envs.tabletop.layout import Episode
from envs.tabletop.scene import DIAL_BAR_HALF_M
from envs.tabletop.task import Array, Task, View

TURNED_RAD = 0.6
SIDES = ("left", "right")


class TurnDial(Task):
    """Succeeds 34 degrees to the named side; as much to the other side ends the episode."""

    name = "turn_dial"
    kind = "fixtures"
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

    def success(self, view: View) -> NDArray[np.bool_]:
        """Turned far enough."""
        return self._sense(view) * view.dial_rad > TURNED_RAD

    def wrong(self, view: View) -> NDArray[np.bool_]:
        """Turned the other way."""
        return self._sense(view) * view.dial_rad < -TURNED_RAD

    def places(self, view: View) -> tuple[Array, Array]:
        """The dial, and where the far end of its bar is to be."""
        angle = self._sense(view) * TURNED_RAD
        end = DIAL_BAR_HALF_M[0] * np.column_stack((np.cos(angle), np.sin(angle), np.zeros(len(angle))))
        return view.dial_pos, view.dial_pos + end

    def expert(self, view: View) -> NDArray[np.float32]:
        """Grasp the bar across, and twist."""
        point = view.dial_pos - np.array((0, 0, DIAL_BAR_HALF_M[2]))
        held = experts.holding(view, point, 2 * DIAL_BAR_HALF_M[1])
        twist = experts.act(view, point, self._sense(view), experts.CLOSE)
        return experts.choose(held, twist, experts.grasp(view, point, view.dial_rad - view.tcp_yaw))

    def _sense(self, view: View) -> Array:
        return 1.0 - 2.0 * view.goal.astype(np.float64)  # [n]: 1 left, -1 right
