"""A camera that is a video file: it ends, which is a failure, and is opened again."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from agent.robot.camera import OpenCVCamera
from agent.robot.clock import WallClock
from envs.types import CameraSpec
from rollout.dataset_frames import encode_video

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


def test_a_camera_that_ends_is_opened_again_and_goes_on(video: Path) -> None:
    camera = OpenCVCamera(str(video), SPEC, reconnect_after_s=0.01)
    camera.connect()
    deadline_s = time.monotonic() + 10
    while camera.num_connections < 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    camera.close()
    assert camera.num_connections >= 3


def test_a_camera_that_is_gone_leaves_its_last_frame_with_its_time(video: Path) -> None:
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
