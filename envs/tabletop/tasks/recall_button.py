"""Press the button that was lit first, once all of them are lit: a delayed-response task, which needs memory.

    step 0 .. 3     the target is lit, the other buttons are dark       cue
    step 4 .. 11    all are dark                                        delay
    step 12 ..      all are lit                                         go

Before the go signal the expert moves the hand to one place, whatever the target, so its position does not reveal the
cue; and no chunk of 8 actions that begins while the cue is visible extends beyond the delay. So a policy without
history can only guess.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from envs.arrays import constant
from envs.tabletop import experts
from envs.tabletop.episodes.episode import Episode
from envs.tabletop.episodes.task import View
from envs.tabletop.scene.things import NUM_BUTTONS
from envs.tabletop.tasks.press_button import PressButton
from envs.types import Array

CUE_STEPS = 4
GO_STEP = 12
READY_M = (0.45, 0.0, 0.25)
"""Waiting position of the hand."""
SHINING, DARK = (0.95, 0.95, 0.80), (0.10, 0.10, 0.12)


class RecallButton(PressButton):
    """Succeeds when the button that was lit first is pressed; pressing another one ends the episode."""

    name = "recall_button"
    max_steps = 52
    has_signals = True
    paraphrases = (
        "press the button that shone first",
        "push the button that was lit at first",
        "wait for the lights and press the button that shone before",
        "press the button that you saw shine",
    )
    held_out_paraphrases = ("remember which button was lit and press it",)

    def words(self, episode: Episode) -> dict[str, str]:
        """None: the cue shows the target."""
        del episode
        return {}

    def button_rgb(self, view: View) -> Array:
        """Button colours for cue, delay and go."""
        xp = array_namespace(view.tcp_pos)
        buttons = xp.arange(NUM_BUTTONS, device=view.target.device)
        cued = (view.step[:, None] < CUE_STEPS) & (buttons == view.target[:, None])  # [n, buttons]
        shines = cued | (view.step[:, None] >= GO_STEP)
        return xp.where(shines[:, :, None], constant(SHINING, view.tcp_pos), constant(DARK, view.tcp_pos))

    def expert(self, view: View) -> Array:
        """Wait at READY_M, then descend through the button."""
        ready = view.tcp_pos * 0.0 + constant(READY_M, view.tcp_pos)
        waiting = experts.act(view, ready, -view.tcp_yaw, experts.CLOSE)
        return experts.choose(view.step < GO_STEP, waiting, super().expert(view))
