"""The page's panels as HTML and images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from agent.console.drive_session import Status
from agent.console.page import side_by_side
from agent.console.panels import outcome_html, safety_html, status_html, usage_html
from agent.robot.drive import Outcome
from agent.robot.inference import Answer
from agent.robot.safety import Intervention
from agent.robot.types import Reading
from agent.robot.watch import Period

PERIOD = Period(
    number=24,
    time_s=2.41,
    late_s=0.0012,
    reading=Reading(frames={}, state=np.zeros(1, np.float32), time_s=0.0),
    sent=np.zeros(1, np.float32),
    by_hand=False,
    holding=None,
    answer=Answer(chunk=np.zeros((1, 8, 1), np.float32), expert_usage=None, inference_s=0.0238),
    moves_since=2.0,
    interventions=(),
)
OUTCOME = Outcome(
    instruction="<b>lift</b> it",
    success=False,
    ended="step limit",
    num_steps=3,
    missed_periods=0,
    lateness_ms=np.zeros(3),
    inference_ms=np.zeros(0),
    interventions=(),
)


def test_the_headline_shows_who_drives_or_why_the_arm_holds() -> None:
    driving = Status(state="driving", period=PERIOD)
    assert "The policy drives" in status_html(driving, 0.1, 30.0)
    assert "You drive" in status_html(replace(driving, period=replace(PERIOD, by_hand=True)), 0.1, 30.0)
    held = replace(driving, period=replace(PERIOD, holding="late chunk"))
    assert "Holding: late chunk" in status_html(held, 0.1, 30.0)
    assert "No success: step limit" in status_html(Status(outcome=OUTCOME), 0.1, 30.0)
    succeeded = replace(OUTCOME, success=True, ended="success")
    assert ">Success<" in status_html(Status(outcome=succeeded), 0.1, 30.0)
    assert "Did it succeed?" in status_html(Status(state="judging", outcome=OUTCOME), 0.1, 30.0)
    assert "cannot be reached" in status_html(Status(trouble="the arm cannot be reached"), 0.1, 30.0)


def test_the_figures_are_those_of_the_newest_period() -> None:
    text = status_html(Status(state="driving", period=PERIOD), 0.1, 29.6)
    for figure in ("2.4 s, period 24", "1.2 of 100 ms", "23.8 ms", "2 of 8", "30 updates/s"):
        assert figure in text


def test_typed_text_is_escaped() -> None:
    assert "&lt;b&gt;lift&lt;/b&gt; it" in outcome_html(Status(outcome=OUTCOME))
    assert "<b>lift" not in outcome_html(Status(outcome=OUTCOME))


def test_bars_are_as_wide_as_the_shares_of_the_experts() -> None:
    text = usage_html(np.array([[0.5, 0.25, 0.25]], np.float32))
    assert text.count("width:25.0%") == 2 and text.count("width:50.0%") == 1
    assert "reports no experts" in usage_html(None)


def test_interventions_are_counted_with_the_newest_first() -> None:
    def note(time_s: float, reason: object, detail: str) -> Intervention:
        return Intervention(time_s=time_s, period=0, reason=reason, detail=detail)  # ty: ignore[invalid-argument-type]

    text = safety_html([note(0.1, "position", "x"), note(0.2, "position", "y<"), note(0.3, "stop", "on the page")])
    assert "position 2, stop 1" in text
    assert text.index("0.3 s") < text.index("0.2 s") < text.index("0.1 s")
    assert "y&lt;" in text
    assert "No interventions" in safety_html([])


def test_cameras_are_shown_side_by_side_with_unchanged_pixels() -> None:
    front, wrist = np.full((4, 6, 3), 10, np.uint8), np.full((2, 3, 3), 20, np.uint8)
    picture = side_by_side([front, wrist])
    factor = 396 // (6 + 4 + 3)
    assert picture.shape == (4 * factor, 9 * factor + 4, 3)
    assert (picture[: 4 * factor, : 6 * factor] == 10).all()
    assert (picture[: 2 * factor, 6 * factor + 4 :] == 20).all()
    assert (picture[2 * factor :, 6 * factor :] == 255).all()
    large = side_by_side([np.zeros((480, 640, 3), np.uint8)])
    assert large.shape[1] == 396
