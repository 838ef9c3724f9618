"""Fit: camera frames resized to what a policy sees, and kept as YUV 4:2:0, half the size of RGB.

Cameras and videos have colour at half the resolution anyway, so resizing is defined on the planes Y, U and V: those
that a video's decoder gives, or those of an RGB frame. Each is halved by the mean of its pixels while it is at least
twice as large as wanted, then interpolated linearly.

    fitted frame = RGB of (resized planes of the frame)

Shape letters: H x W pixels of the result, both even; h x w of the frame.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Fit = Literal["stretch", "letterbox"]
"""How a frame of another aspect ratio is resized: distorted, or with black borders."""
Planes: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Y [h, w], U and V [h/2, w/2], of limited range (BT.601)."""

_BLACK = (16, 128, 128)


def fitted(planes: Planes, height: int, width: int, fit: Fit) -> NDArray[np.uint8]:
    """A frame's planes at another size, as one array of YUV 4:2:0, [3/2 H, W].

    Args:
        planes: of the frame.
        height: H.
        width: W.
        fit: "letterbox" keeps the aspect ratio, up to even sizes.
    """
    rows, columns = height, width
    if fit == "letterbox":
        share = min(height / planes[0].shape[0], width / planes[0].shape[1])
        rows, columns = (max(2 * round(side * share / 2), 2) for side in planes[0].shape)
    whole = np.empty((3 * height // 2, width), np.uint8)
    flat, begin = whole.reshape(-1), 0
    for plane, black, half in zip(planes, _BLACK, (1, 2, 2), strict=True):
        part = flat[begin : begin + height * width // half**2].reshape(height // half, width // half)
        begin += part.size
        if (rows, columns) != (height, width):
            part[:] = black
        top, left = ((outer - inner) // 4 * 2 // half for outer, inner in ((height, rows), (width, columns)))
        _resize(plane, part[top : top + rows // half, left : left + columns // half])
    return whole


def planes_of(frame: NDArray[np.uint8]) -> Planes:
    """The planes of an RGB frame [h, w, 3]; of odd sizes, the last row or column is repeated."""
    odd = [side % 2 for side in frame.shape[:2]]
    if any(odd):
        frame = np.pad(frame, ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
    height, width = frame.shape[:2]
    flat = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8).reshape(-1)
    luma, colour = height * width, (2, height // 2, width // 2)
    return flat[:luma].reshape(height, width), *flat[luma:].reshape(colour)


def to_rgb(yuv: NDArray[np.uint8], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """YUV 4:2:0 [3/2 H, W] as RGB [H, W, 3]; written to `out`, contiguous, if given."""
    return np.asarray(cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_I420, dst=out), np.uint8)


def _resize(plane: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    rows, columns = out.shape
    height, width = plane.shape
    while height >= 2 * rows or width >= 2 * columns:
        plane = _halved(plane, by_rows=height >= 2 * rows, by_columns=width >= 2 * columns)
        height, width = plane.shape
    cv2.resize(plane, (columns, rows), dst=out, interpolation=cv2.INTER_LINEAR)


def _halved(plane: NDArray[np.uint8], *, by_rows: bool, by_columns: bool) -> NDArray[np.uint8]:
    """The means of two or four pixels, rounded as by INTER_AREA."""
    height, width = plane.shape
    if by_rows == by_columns or (height if by_rows else width) % 2:
        size = width // 2 if by_columns else width, height // 2 if by_rows else height
        return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)
    # The same numbers as INTER_AREA's, which is fast for four pixels only.
    if by_rows:
        one, other = plane[::2], plane[1::2]
    else:
        one, other = cv2.split(np.ascontiguousarray(plane).reshape(height, width // 2, 2))
    return np.asarray(cv2.addWeighted(one, 0.5, other, 0.5, 0.0), np.uint8)
