"""Frames resized to what a policy sees: the numbers are those of OpenCV's means, whichever way is fast."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vla_model.inputs.fit import fitted, planes_of


def plain(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The definition: halved by INTER_AREA while at least twice as large, then linear."""
    height, width = plane.shape
    while height >= 2 * rows or width >= 2 * columns:
        height, width = height // 2 if height >= 2 * rows else height, width // 2 if width >= 2 * columns else width
        plane = np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_LINEAR), np.uint8)


def test_means_of_two_pixels_are_rounded_as_opencv_rounds_them() -> None:
    """Every pair of values, side by side and one above the other."""
    first, second = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    beside = np.stack([first, second], -1).reshape(256, 512)
    grey = np.full((128, 128), 128, np.uint8)
    for plane, size in ((beside, (256, 256)), (np.ascontiguousarray(beside.T), (256, 256))):
        whole = fitted((plane, grey, grey), *size, "stretch")
        np.testing.assert_array_equal(whole[:256], plain(plane, *size))


@pytest.mark.parametrize(
    ("recorded", "seen"),
    [
        ((480, 640), (128, 128)),
        ((360, 480), (128, 128)),
        ((270, 481), (48, 64)),
        ((95, 127), (94, 126)),
        ((64, 640), (64, 64)),
    ],
)
def test_a_frame_is_halved_by_means_and_then_interpolated(recorded: tuple[int, int], seen: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*recorded, 3), np.uint8)
    planes = planes_of(frame)
    whole = fitted(planes, *seen, "stretch").reshape(-1)
    parts = [plain(planes[0], *seen), *(plain(plane, seen[0] // 2, seen[1] // 2) for plane in planes[1:])]
    np.testing.assert_array_equal(whole, np.concatenate([part.reshape(-1) for part in parts]))
