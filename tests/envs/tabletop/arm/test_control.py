"""The mathematics between an action and joint targets."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tables import BLIND, begin, spec

from envs.tabletop.arm import control
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.scene.scene import build_scene
from envs.tabletop.world import TabletopWorld

RANDOM = np.random.default_rng(0)
NUM_JOINTS = len(PANDA.joints)
HOME_RAD = np.array(PANDA.home_rad)
VECTORS = RANDOM.normal(size=(200, 3)) * np.geomspace(1e-6, 1.0, 200)[:, None]
"""Rotation vectors from a millionth of a radian to about two."""


class Arm:
    """The arm of one table, moved by its joint angles alone."""

    def __init__(self) -> None:
        scene = build_scene(PANDA)
        self.model, self.data = scene.model, mujoco.MjData(scene.model)
        self.site, self.hand = scene.tcp_site, scene.model.body("hand").id

    def pose(self, joints: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        self.data.qpos[:NUM_JOINTS] = joints
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        return self.data.site_xpos[self.site].copy(), self.data.site_xmat[self.site].reshape(3, 3).copy()

    def jacobian(self) -> NDArray[np.float64]:
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jac(self.model, self.data, jacobian[:3], jacobian[3:], self.data.site_xpos[self.site], self.hand)
        return jacobian[None, :, :NUM_JOINTS]


def error_to(arm: Arm, joints: NDArray[np.float64], pos: NDArray[np.float64], mat: NDArray[np.float64]) -> np.ndarray:
    now_pos, now_mat = arm.pose(joints)
    return np.concatenate((pos - now_pos, control.rotation_vector(mat[None], now_mat[None])[0]))


def test_rotation_matrices_agree_with_scipy() -> None:
    np.testing.assert_allclose(control.matrix_of(VECTORS), Rotation.from_rotvec(VECTORS).as_matrix(), atol=1e-12)


def test_rotation_vector_inverts_matrix_of_from_any_start() -> None:
    start = Rotation.random(200, rng=RANDOM).as_matrix()
    turned = control.matrix_of(VECTORS) @ start
    np.testing.assert_allclose(control.rotation_vector(turned, start), VECTORS, atol=1e-9)


def test_a_tiny_rotation_keeps_its_relative_accuracy() -> None:
    tiny = np.array([[1e-8, -2e-8, 3e-8]])
    back = control.rotation_vector(control.matrix_of(tiny), np.eye(3)[None])
    np.testing.assert_allclose(back, tiny, rtol=1e-6)


def test_no_rotation_is_the_zero_vector_and_the_identity() -> None:
    np.testing.assert_array_equal(control.matrix_of(np.zeros((2, 3))), np.stack((np.eye(3), np.eye(3))))
    np.testing.assert_array_equal(control.rotation_vector(np.eye(3)[None], np.eye(3)[None]), np.zeros((1, 3)))


def test_a_rotation_beyond_half_a_turn_becomes_the_shorter_one() -> None:
    long_way = np.array([[0.0, 0.0, 1.5 * np.pi]])
    back = control.rotation_vector(control.matrix_of(long_way), np.eye(3)[None])
    np.testing.assert_allclose(back, [[0.0, 0.0, -0.5 * np.pi]], atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_joint_targets_bring_the_gripper_closer_to_the_target_pose(seed: int) -> None:
    rng, arm = np.random.default_rng(seed), Arm()
    joints = HOME_RAD + rng.normal(size=NUM_JOINTS) * 0.15
    pos, mat = arm.pose(joints)
    goal_pos = pos + PANDA.position_scale_m * rng.uniform(-1, 1, 3)
    goal_mat = control.matrix_of(PANDA.rotation_scale_rad * rng.uniform(-1, 1, (1, 3)))[0] @ mat
    errors = [np.linalg.norm(error_to(arm, joints, goal_pos, goal_mat))]
    for _ in range(3):
        arm.pose(joints)
        error = error_to(arm, joints, goal_pos, goal_mat)
        joints = control.joint_targets(PANDA, joints[None], arm.jacobian(), error[None])[0]
        errors.append(np.linalg.norm(error_to(arm, joints, goal_pos, goal_mat)))
    assert errors[1] < 0.4 * errors[0]
    assert errors[3] < 0.05 * errors[0]


def test_the_jacobian_is_mujocos() -> None:
    rng, arm = np.random.default_rng(2), Arm()
    for _ in range(5):
        pos, _ = arm.pose(HOME_RAD + rng.normal(size=NUM_JOINTS) * 0.3)
        axis, anchor = arm.data.xaxis[None, :NUM_JOINTS], arm.data.xanchor[None, :NUM_JOINTS]
        np.testing.assert_allclose(control.arm_jacobian(axis, anchor, pos[None]), arm.jacobian(), atol=1e-12)


def test_the_posture_term_moves_the_elbow_and_not_the_gripper() -> None:
    arm = Arm()
    pos, mat = arm.pose(HOME_RAD)
    _, _, null = np.linalg.svd(arm.jacobian()[0])
    away = HOME_RAD + 0.2 * null[-1]  # along the arm's one free motion
    pos, mat = arm.pose(away)
    moved = control.joint_targets(PANDA, away[None], arm.jacobian(), np.zeros((1, 6)))[0]
    assert np.linalg.norm(moved - HOME_RAD) < 0.95 * np.linalg.norm(away - HOME_RAD)
    drift_m = np.linalg.norm(error_to(arm, moved, pos, mat)[:3])
    assert drift_m < 0.05 * np.linalg.norm(moved - away)


def test_joint_targets_stay_within_the_limits_for_any_error() -> None:
    rng = np.random.default_rng(1)
    low, high = np.array([(joint.low_rad, joint.high_rad) for joint in PANDA.joints]).T
    joints = rng.uniform(low, high, (500, NUM_JOINTS))
    targets = control.joint_targets(
        PANDA, joints, rng.normal(size=(500, 6, NUM_JOINTS)), 10 * rng.normal(size=(500, 6))
    )
    assert ((targets > low) & (targets < high)).all()
    assert (np.abs(targets - joints) > 0.5).any(), "large errors were asked for"


def test_the_gripper_opens_at_minus_one_and_closes_at_one() -> None:
    np.testing.assert_allclose(control.finger_target_m(PANDA, np.array((-1.0, 0.0, 1.0))), (0.04, 0.02, 0.0))


@pytest.mark.parametrize("axis", range(3))
def test_an_action_moves_the_gripper_by_the_units_that_the_spec_names(axis: int) -> None:
    world = TabletopWorld(1, BLIND)
    begin(world, [spec("turn_dial")])
    action = np.zeros((1, 1, 7), np.float32)
    action[0, 0, axis] = 0.5
    pos = [world.step_chunk(action).states[0, -1, 7:10] for _ in range(6)]
    step_m = (pos[5] - pos[1]) / 4
    expected = np.zeros(3)
    expected[axis] = 0.5 * PANDA.position_scale_m
    np.testing.assert_allclose(step_m, expected, atol=0.004)


def test_the_gripper_stays_within_the_workspace() -> None:
    world = TabletopWorld(2, BLIND)
    begin(world, [spec("turn_dial"), spec("turn_dial")])
    actions = np.zeros((2, 30, 7), np.float32)
    actions[0, :, :3], actions[1, :, 2] = (1, 1, 1), -1
    tcp = world.step_chunk(actions).states[:, -1, 7:10]
    tolerance_m = 0.01
    assert (tcp >= np.array(PANDA.workspace_low_m) - tolerance_m - 0.01).all()
    assert (tcp <= np.array(PANDA.workspace_high_m) + tolerance_m + 0.01).all()
    np.testing.assert_allclose(tcp[0, 2], PANDA.workspace_high_m[2], atol=0.03)
