"""A video file as a camera, which ends and is reopened, and a fake camera with every kind of failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.robot.camera import OpenCVCamera, StillPicture, to_rgb
from agent.robot.clock import WallClock
from envs.types import CameraSpec
from rollout.dataset.frames import encode_video

SPEC = CameraSpec(name="front", height=24, width=48)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames that are red on the left and blue on the right, twice as large as the spec."""
    frames = np.zeros((10, 48, 96, 3), np.uint8)
    frames[:, :, :48, 0] = 200
    frames[:, :, 48:, 2] = 200
    path = tmp_path / "camera.mp4"
    encode_video(path, frames, 10, "h264")
    return path


def test_frames_come_in_the_specs_size_as_rgb_with_their_time(video: Path) -> None:
    camera = OpenCVCamera(str(video), SPEC, reconnect_after_s=0.01)
    before_s = WallClock().now_s()
    camera.connect()
    frame, time_s = camera.latest()
    camera.close()
    assert (frame.shape, frame.dtype) == ((24, 48, 3), np.uint8)
    assert frame[12, 6] == pytest.approx([200, 0, 0], abs=25)
    assert frame[12, 42] == pytest.approx([0, 0, 200], abs=25)
    assert before_s <= time_s <= WallClock().now_s()


def test_a_camera_whose_stream_ends_is_reopened(video: Path) -> None:
    camera = OpenCVCamera(str(video), SPEC, reconnect_after_s=0.01)
    camera.connect()
    deadline_s = time.monotonic() + 10
    while camera.num_connections < 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    camera.close()
    assert camera.num_connections >= 3


def test_a_camera_can_be_closed_before_connecting_and_reconnected_after_closing(video: Path) -> None:
    camera = OpenCVCamera(str(video), SPEC, reconnect_after_s=0.01)
    camera.close()
    for connection in range(1, 3):
        before_s = WallClock().now_s()
        camera.connect()
        assert camera.num_connections >= connection
        assert camera.latest()[1] >= before_s, "the last frame of the connection before is none of this one"
        camera.close()


def test_a_lost_camera_keeps_its_last_frame_with_its_time(video: Path) -> None:
    camera = OpenCVCamera(str(video), SPEC, reconnect_after_s=0.01)
    camera.connect()
    video.unlink()
    deadline_s = time.monotonic() + 10
    while WallClock().now_s() - camera.latest()[1] < 0.2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    _, time_s = camera.latest()
    time.sleep(0.05)
    assert camera.latest()[1] == time_s, "it grows old"
    camera.close()


def test_a_camera_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    camera = OpenCVCamera(str(tmp_path / "none.mp4"), SPEC, reconnect_after_s=0.01)
    with pytest.raises(ConnectionError, match=r"camera 'front': no frame from .*none\.mp4.* within 0\.2 s"):
        camera.connect(timeout_s=0.2)


class Device:
    """Replaces cv2.VideoCapture of a device: its frames are a function of their number, which may raise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, frame: Callable[[int], Any], opens: bool = True) -> None:
        self.frame, self.opens = frame, opens
        self.count = 0
        self.opened_s: list[float] = []
        monkeypatch.setattr(cv2, "VideoCapture", self.open)

    def open(self, source: object) -> Device:
        del source
        self.opened_s.append(time.monotonic())
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.opens

    def release(self) -> None: ...

    def read(self) -> tuple[bool, Any]:
        time.sleep(0.002)
        self.count += 1
        return True, self.frame(self.count)


def noise(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 255, (24, 48, 3), np.uint8)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert condition()


BAD: dict[str, Any] = {
    "None": None,
    "empty": np.zeros((0, 0, 3), np.uint8),
    "16 bits": np.full((24, 48, 3), 300, np.uint16),
    "floats": np.zeros((24, 48, 3), np.float32),
    "two channels": np.zeros((24, 48, 2), np.uint8),
    "no picture": np.zeros(5, np.uint8),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_unusable_frame_is_skipped(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, lambda count: BAD[bad] if count in (4, 5) else noise(count))
    camera = OpenCVCamera(0, SPEC)
    camera.connect()
    wait_for(lambda: device.count > 10)
    count, after_s = device.count, WallClock().now_s()
    wait_for(lambda: device.count > count + 2)
    frame, time_s = camera.latest()
    assert (camera.num_connections, camera.trouble) == (1, None)
    assert time_s > after_s
    assert (frame.shape, frame.dtype) == ((24, 48, 3), np.uint8)
    camera.close()


def test_a_camera_without_usable_frames_becomes_stale_and_is_reopened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch, lambda count: noise(count) if count < 4 else np.zeros((24, 48), np.uint16))
    camera = OpenCVCamera(0, SPEC, reconnect_after_s=0.005)
    camera.connect()
    wait_for(lambda: len(device.opened_s) >= 3)
    assert np.array_equal(camera.latest()[0], noise(3)[..., ::-1])
    assert camera.latest()[1] < device.opened_s[1]
    assert camera.trouble is not None and "uint16 (24, 48), expected uint8" in camera.trouble
    camera.close()


def test_a_camera_whose_driver_raises_is_reopened(monkeypatch: pytest.MonkeyPatch) -> None:
    def frame(count: int) -> NDArray[np.uint8]:
        if count == 4:
            raise cv2.error("the driver's own")
        return noise(count)

    device = Device(monkeypatch, frame)
    camera = OpenCVCamera(0, SPEC, reconnect_after_s=0.005)
    camera.connect()
    wait_for(lambda: device.count > 10)
    assert camera.num_connections == 2
    camera.close()


def test_reconnection_backs_off_exponentially(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, noise, opens=False)
    camera = OpenCVCamera(0, SPEC, reconnect_after_s=0.01)
    with pytest.raises(ConnectionError, match=r"no frame from 0 within 0\.5 s: it cannot be opened"):
        camera.connect(timeout_s=0.5)
    pauses_s = np.diff(device.opened_s)
    expected_s = 0.02 * 2.0 ** np.arange(len(pauses_s))
    assert (pauses_s >= expected_s - 0.001).all(), "0.02, 0.04, 0.08, ... s, or more where the machine is busy"


def test_grey_and_rgba_frames_become_rgb() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert to_rgb(grey)[..., 0].tolist() == to_rgb(grey[..., None])[..., 2].tolist() == grey.tolist()
    pixel = np.array([[[1, 2, 3, 4]]], np.uint8)
    assert to_rgb(pixel).tolist() == [[[1, 2, 3]]]
    assert to_rgb(pixel, bgr=True).tolist() == to_rgb(pixel[..., :3], bgr=True).tolist() == [[[3, 2, 1]]]


def test_a_repeated_frame_has_the_time_of_its_first_arrival_after_the_timeout() -> None:
    still, moving = StillPicture(2.0), StillPicture(2.0)
    assert [still.since_s(noise(1).copy(), t) for t in (5.0, 6.0, 7.0, 7.5, 8.0)] == [5.0, 6.0, 7.0, 5.0, 5.0]
    assert still.since_s(noise(2), 8.5) == 8.5
    assert [moving.since_s(noise(i), 5.0 + i) for i in range(5)] == [5.0, 6.0, 7.0, 8.0, 9.0]
    rendered = StillPicture(inf)
    assert [rendered.since_s(noise(1), t) for t in (0.0, 1e6)] == [0.0, 1e6]


def test_a_camera_that_repeats_one_frame_becomes_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, lambda count: noise(min(count, 5)))
    camera = OpenCVCamera(0, SPEC, frozen_after_s=0.05)
    camera.connect()
    wait_for(lambda: device.count > 5 and WallClock().now_s() - camera.latest()[1] > 0.1)
    camera.close()
