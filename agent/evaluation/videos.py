"""Videos of episodes: every camera side by side, with the instruction and the outcome, playable in a browser.

H.264 in yuv420p with the index at the front, which browsers play natively and start before the download ends.

Shape letters: F frames, H x W pixels of a camera, h x w pixels of the video.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rollout.types import Trajectory

_VIEW_HEIGHT = 320
_MARGIN = 14
_LINE_HEIGHT = 26
_TEXT_SIZE = 18
_HOLD_S = 1.5
"""How long the last frame is shown, with the outcome."""
_BACKGROUND = (24, 24, 27)
_WHITE, _GREY, _GREEN, _RED = ((250, 250, 250), (161, 161, 170), (74, 222, 128), (248, 113, 113))


def write_video(folder: Path, trajectory: Trajectory, *, failure: str | None, control_dt_s: float) -> Path:
    """Write a video of one episode into `folder`, in real time if every step was recorded.

    Args:
        trajectory: with at least one camera and one frame.
        failure: why it failed; None where it succeeded.

    Returns:
        The file, named after task, variation, seed and outcome: pick_place-train-1000003-success.mp4.
    """
    spec = trajectory.spec
    outcome = "success" if failure is None else f"failed-{failure}"
    name = re.sub(r"[^a-z0-9._]+", "-", f"{spec.task}-{spec.variation}-{spec.seed}-{outcome}".lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    frames_per_s = Fraction(len(trajectory.frame_step), trajectory.num_steps) / Fraction(
        control_dt_s
    ).limit_denominator(1000)
    _encode(path, _pages(trajectory, failure, control_dt_s, float(frames_per_s)), frames_per_s)
    return path


def write_comparison(
    path: Path, before: Trajectory, after: Trajectory, *, failures: tuple[str | None, str | None], control_dt_s: float
) -> None:
    """Write a video of one episode before and after fine-tuning, side by side.

    Args:
        before: with a frame of every step.
        after: the same, of the same spec.
        failures: why each failed; None where it succeeded.
    """
    sides = [
        list(_side(title, trajectory, failure, control_dt_s))
        for title, trajectory, failure in zip(("before", "after"), (before, after), failures, strict=True)
    ]
    length = max(map(len, sides))
    pages = (
        _headed(after.instruction, np.concatenate([side[min(i, len(side) - 1)] for side in sides], axis=1))
        for i in range(length + round(_HOLD_S / control_dt_s))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    _encode(path, pages, 1 / Fraction(control_dt_s).limit_denominator(1000))


def video_poster(path: Path) -> bytes:
    """The frame in the middle of a video, as a JPEG."""
    with av.open(path) as container:
        frames = container.decode(video=0)
        frame = next(islice(frames, container.streams.video[0].frames // 2, None)).to_ndarray(format="bgr24")
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _pages(
    trajectory: Trajectory, failure: str | None, control_dt_s: float, frames_per_s: float
) -> Iterator[NDArray[np.uint8]]:
    """The video's pictures, [h, w, 3]."""
    for views, clock, outcome in _moments(trajectory, failure, control_dt_s):
        page = _page(np.concatenate(views, axis=1), trajectory.instruction, clock, outcome)
        for _ in range(max(1, round(_HOLD_S * frames_per_s)) if outcome else 1):
            yield page


def _side(title: str, trajectory: Trajectory, failure: str | None, control_dt_s: float) -> Iterator[NDArray[np.uint8]]:
    """One half of a comparison, its cameras below each other, [h, w, 3]."""
    for views, clock, outcome in _moments(trajectory, failure, control_dt_s):
        yield _page(np.concatenate(views, axis=0), title, clock, outcome, narrow=True)


_Outcome = tuple[str, tuple[int, int, int]]
"""Words and their colour."""


def _moments(
    trajectory: Trajectory, failure: str | None, control_dt_s: float
) -> Iterator[tuple[list[NDArray[np.uint8]], str, _Outcome | None]]:
    """Views, time and outcome of every recorded frame, and of the end: what the last action led to, or where that was
    not recorded the last frame again.
    """
    total = trajectory.num_steps

    def views(frames: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return [_view(camera, frame) for camera, frame in frames.items()]

    for i, step in enumerate(trajectory.frame_step.tolist()):
        yield (
            views({camera: frames[i] for camera, frames in trajectory.frames.items()}),
            f"step {step} of {total}    {step * control_dt_s:.1f} s",
            None,
        )
    outcome = ("success", _GREEN) if failure is None else (f"failed: {failure}", _RED)
    final = trajectory.final_frames or {camera: frames[-1] for camera, frames in trajectory.frames.items()}
    yield views(final), f"step {total} of {total}    {total * control_dt_s:.1f} s", outcome


def _page(
    picture: NDArray[np.uint8], text: str, clock: str, outcome: _Outcome | None, *, narrow: bool = False
) -> NDArray[np.uint8]:
    """The picture [h, w, 3] with a caption on top, where a player's controls do not cover it.

    With narrow, the outcome has a line of its own.
    """
    caption, line = _caption(text, picture.shape[1], more_lines=1 + narrow)
    end = _write(caption, clock, _MARGIN, line, _GREY, 400)
    if outcome is not None:
        _write(caption, outcome[0], *((_MARGIN, line + 1) if narrow else (end + 24, line)), outcome[1], 700)
    return _even(np.concatenate([caption, picture]))


def _headed(text: str, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    caption, _ = _caption(text, picture.shape[1], more_lines=0)
    return _even(np.concatenate([caption, picture]))


def _caption(text: str, width: int, more_lines: int) -> tuple[NDArray[np.uint8], int]:
    """A band with the text and space for more lines below it; and the number of lines of the text."""
    lines = textwrap.wrap(text, width=max(16, (width - 2 * _MARGIN) // 10))
    caption = np.full((2 * _MARGIN + _LINE_HEIGHT * (len(lines) + more_lines), width, 3), _BACKGROUND, np.uint8)
    for i, line in enumerate(lines):
        _write(caption, line, _MARGIN, i, _WHITE, 500)
    return caption, len(lines)


def _even(page: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cropped to even sides, as yuv420p requires."""
    return page[: page.shape[0] // 2 * 2, : page.shape[1] // 2 * 2]


def _view(camera: str, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One camera's frame [H, W, 3], scaled to the video's height, with its name."""
    width = round(frame.shape[1] * _VIEW_HEIGHT / frame.shape[0])
    view = np.asarray(cv2.resize(frame, (width, _VIEW_HEIGHT), interpolation=cv2.INTER_CUBIC), np.uint8)
    for shift, colour in ((1, _BACKGROUND), (0, _WHITE)):  # a shadow, for contrast on bright frames
        cv2.putText(view, camera, (10 + shift, 22 + shift), colour, cv2.FontFace("sans"), 14, 600)
    return view


def _write(picture: NDArray[np.uint8], text: str, x: int, line: int, colour: tuple[int, int, int], weight: int) -> int:
    """Draw a line of text in place; returns where it ends, in pixels."""
    baseline = _MARGIN + line * _LINE_HEIGHT + _TEXT_SIZE
    end, _ = cv2.putText(picture, text, (x, baseline), colour, cv2.FontFace("sans"), _TEXT_SIZE, weight)
    return int(end[0])


def _encode(path: Path, pages: Iterator[NDArray[np.uint8]], frames_per_s: Fraction) -> None:
    with av.open(path, "w", options={"movflags": "+faststart"}) as container:
        stream = None
        for page in pages:
            if stream is None:
                stream = container.add_stream("libx264", rate=frames_per_s, options={"crf": "23", "preset": "veryfast"})
                stream.height, stream.width = page.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        assert stream is not None, f"no frame to record in {path}"
        container.mux(stream.encode())
