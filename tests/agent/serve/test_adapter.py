"""Adapter: hand-computed requests and actions, and the conventions of rotations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from agent.serve.foreign.adapter import Adapter, resized_with_pad
from agent.serve.foreign.config import PRESETS, AdapterConfig
from agent.serve.foreign.rotations import SIZES, convert
from envs.types import CameraSpec, Observation, VectorSpec, WorldSpec


def vector(*names: str, grippers: tuple[int, ...] = ()) -> VectorSpec:
    ones = (1.0,) * len(names)
    return VectorSpec(names=names, units=("1",) * len(names), low=(-1.0,) * len(names), high=ones, grippers=grippers)


SPEC = WorldSpec(
    cameras=(CameraSpec(name="front", height=4, width=8), CameraSpec(name="wrist", height=4, width=4)),
    state=vector("x", "y", "z", *(f"rot_{i}" for i in range(6)), "opening"),
    action=vector("x", "y", "z", "rot_x", "rot_y", "rot_z", "gripper", grippers=(6,)),
    localization=vector("x"),
    control_dt_s=0.05,
)
QUARTER = [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
"""A quarter turn about z, as rot6d: the columns (0, 1, 0) and (-1, 0, 0) of its matrix."""


def seen() -> Observation:
    frames = {c.name: np.full((2, c.height, c.width, 3), 200, np.uint8) for c in SPEC.cameras}
    state = np.array([[9.0] * 10, [1.0, 2.0, 3.0, *QUARTER, 0.04]], np.float32)
    return Observation(frames=frames, state=state, instruction=("left", "right"))


def requested(**config: Any) -> dict[str, Any]:
    return Adapter(AdapterConfig(**config), SPEC).request(seen(), 1, "lift it")


def adapted(answer: Any, **config: Any) -> np.ndarray:
    return Adapter(AdapterConfig(**config), SPEC).actions(np.array(answer, np.float32))


def test_without_options_a_request_is_what_our_own_server_reads() -> None:
    request = requested()
    assert list(request) == ["observation/front", "observation/wrist", "observation/state", "prompt"]
    assert_array_equal(request["observation/front"], seen()["frames"]["front"][1])
    assert_array_equal(request["observation/state"], seen()["state"][1])
    assert request["prompt"] == "lift it"


def test_the_presets_have_the_keys_of_openpis_examples() -> None:
    libero = requested(preset="libero")
    assert sorted(libero) == ["observation/image", "observation/state", "observation/wrist_image", "prompt"]
    assert libero["observation/wrist_image"].shape == (224, 224, 3)
    droid = requested(preset="droid")
    assert sorted(droid) == [
        "observation/exterior_image_1_left",
        "observation/gripper_position",
        "observation/joint_position",
        "observation/wrist_image_left",
        "prompt",
    ]
    assert (droid["observation/joint_position"].shape, droid["observation/gripper_position"].shape) == ((7,), (1,))
    cameras = tuple(f"images[cam_{name}]=front:224x224" for name in ("high", "low", "left_wrist", "right_wrist"))
    aloha = requested(preset="aloha", cameras=cameras)
    assert sorted(aloha) == ["images", "prompt", "state"]
    assert sorted(aloha["images"]) == ["cam_high", "cam_left_wrist", "cam_low", "cam_right_wrist"]
    assert aloha["images"]["cam_high"].shape == (3, 224, 224), "ALOHA's frames begin with the channel"
    assert [PRESETS[name].n_action_steps for name in ("libero", "droid", "aloha")] == [5, 8, 10]


def test_a_frame_keeps_its_proportions_and_is_centred_on_black() -> None:
    wide = resized_with_pad(np.full((4, 8, 3), 200, np.uint8), 8, 8)
    assert_array_equal(wide[:, 0, 0], [0, 0, 200, 200, 200, 200, 0, 0])
    tall = resized_with_pad(np.full((8, 2, 3), 200, np.uint8), 4, 4)
    assert_array_equal(tall[0, :, 0], [0, 200, 0, 0])
    same = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert_array_equal(resized_with_pad(same, 4, 4), same)


def test_the_state_of_libero_is_made_of_parts_of_ours() -> None:
    state = "observation/state=x..z,rot_0..rot_5@rot6d:axis_angle,opening,9"
    request = requested(preset="libero", state=(state,))
    assert_allclose(request["observation/state"], [1, 2, 3, 0, 0, math.pi / 2, 0.04, 0.04], atol=1e-6)


def test_columns_are_chosen_scaled_and_shifted_and_grippers_thresholded_alone() -> None:
    answer = [[0.5, 10, 20, 30, 1, 2, 3, 0.7], [0.5, 11, 21, 31, 1, 2, 3, 0.2]]
    columns = (1, 2, 3, 4, 5, 6, 7)
    plain = adapted(answer, columns=columns, scale=(0.1,), offset=(-1.0,))
    assert_allclose(plain, [[0, 1, 2, -0.9, -0.8, -0.7, 0.7], [0.1, 1.1, 2.1, -0.9, -0.8, -0.7, 0.2]], atol=1e-6)
    closes = adapted(answer, columns=columns, gripper_threshold=0.5)
    assert closes[:, 6].tolist() == [1.0, -1.0]
    opens = adapted(answer, columns=columns, gripper_threshold=0.5, gripper_opens=True)
    assert opens[:, 6].tolist() == [-1.0, 1.0]
    byte = adapted(answer, columns=columns, scale=(1,) * 6 + (2,), offset=(0,) * 6 + (-1,), gripper_opens=True)
    assert_allclose(byte[:, 6], [-0.4, 0.6], atol=1e-6)


def test_a_rotation_of_the_answer_becomes_a_rotation_vector() -> None:
    half = math.sqrt(0.5)
    for convention, values in {
        "quat_xyzw": [0, 0, half, half],
        "quat_wxyz": [half, 0, 0, half],
        "rot6d": QUARTER,
        "rot6d_interleaved": [0, -1, 1, 0, 0, 0],
        "euler_xyz": [0, 0, math.pi / 2],
        "axis_angle": [0, 0, math.pi / 2],
    }.items():
        actions = adapted([[1, 2, 3, *values, 1]], rotation=f"3:{convention}")
        assert_allclose(actions, [[1, 2, 3, 0, 0, math.pi / 2, 1]], atol=1e-6, err_msg=convention)


def test_both_signs_of_a_quaternion_are_one_rotation_vector() -> None:
    quaternion = np.array([[0.1, -0.7, 0.2, 0.3]])
    assert_allclose(convert(quaternion, "quat_xyzw", "axis_angle"), convert(-quaternion, "quat_xyzw", "axis_angle"))
    assert np.linalg.norm(convert(-quaternion, "quat_xyzw", "axis_angle")) <= math.pi


@pytest.mark.parametrize("convention", SIZES)
def test_a_convention_and_back_is_the_same_rotation(convention: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    there = convert(vectors, "axis_angle", convention)
    assert there.shape == (20, SIZES[convention])
    assert_allclose(convert(there, convention, "axis_angle"), vectors, atol=1e-5)


@pytest.mark.parametrize("values", [[0, 0, 0, 0, 0, 0], [1, 0, 0, 2, 0, 0]])
def test_what_is_no_rotation_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"is no rotation as rot6d: two columns .* neither zero nor parallel"):
        adapted([[1, 2, 3, *values, 1]], rotation="3:rot6d")


def test_an_answer_of_another_width_or_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the answer has 8 columns; the world's action has 7: x, y, .*--adapter.colu"):
        adapted([[0.0] * 8])
    with pytest.raises(ValueError, match=r"has 8 columns, its rotation is in 5\.\.10"):
        adapted([[0.0] * 8], rotation="5:rot6d")
    two = Adapter(AdapterConfig(), SPEC, n_action_steps=2)
    assert two.actions(np.zeros((5, 7), np.float32)).shape == (2, 7)
    with pytest.raises(ValueError, match="has 1 actions, and 2 are to be executed"):
        two.actions(np.zeros((1, 7), np.float32))


def test_what_is_given_comes_before_the_preset() -> None:
    config = AdapterConfig(preset="droid", gripper_opens=True, prompt="task").resolved()
    assert (config.gripper_opens, config.prompt, config.gripper_threshold) == (True, "task", 0.5)
    assert config.cameras == PRESETS["droid"].cameras
    assert replace(config, preset=None).resolved().layout == "hwc"
