"""Press the named button."""

from __future__ import annotations

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import FixturesTask, View
from envs.tabletop.scene.things import NUM_BUTTONS
from envs.types import Array

PRESSED_M = 0.008


class PressButton(FixturesTask):
    """Succeeds when the named button is pressed; pressing another one ends the episode."""

    name = "press_button"
    max_steps = 40
    num_targets = NUM_BUTTONS
    wrong_name = "wrong button"
    paraphrases = (
        "press the {colour} button",
        "push the {colour} button",
        "push the {colour} button down",
        "hit the {colour} button",
        "press down on the {colour} button",
        "activate the {colour} button",
        "click the {colour} button",
        "put your finger on the {colour} button and press",
    )
    held_out_paraphrases = (
        "push down on the {colour} button",
        "press and activate the {colour} button",
        "give the {colour} button a press",
    )

    def words(self, episode: Episode) -> dict[str, str]:
        return {"colour": episode.colours[episode.target]}

    def success(self, view: View) -> Array:
        return view.of_target(view.button_m) > PRESSED_M

    def wrong(self, view: View) -> Array:
        return view.any_other(view.button_m > PRESSED_M)

    def places(self, view: View) -> tuple[Array, Array]:
        """The button, and its top when pressed."""
        top = view.of_target(view.button_pos)
        down_m = view.of_target(view.button_m)[:, None] * constant((0, 0, 1), top)
        return top, top - constant((0, 0, PRESSED_M), top) + down_m

    def expert(self, view: View) -> Array:
        """Descend through the button."""
        top = view.of_target(view.button_pos)
        return experts.press(view, top - constant((0, 0, 0.02), top))
