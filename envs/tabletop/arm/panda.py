"""PANDA: a Franka Emika Panda with its parallel gripper, built from primitives.

Joint frames and the limits of position, torque, speed and acceleration are the manufacturer's (Franka Control Interface
documentation, "Robot and interface specifications", in joint and in Cartesian space); masses and inertias are those
identified by Gaz et al., "Dynamic Identification of the Franka Emika Panda Robot with Retrieval of Feasible Parameters
Using Penalty-Based Optimization", RA-L 2019, as in the common MuJoCo models of this arm. The shapes are our own:
capsules and boxes render ten times faster than meshes.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.arm import TOOL_SITE, WRIST_CAMERA, ArmSpec, Joint

_FINGER_TRAVEL_M = 0.04
_FINGER_HALF_M = 0.01

# Position servo stiffness per joint in N m / rad. The damping is 1/25 of it: a lag of 40 ms, less than a control step.
_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)

_SHELL = (0.93, 0.94, 0.95, 1.0)
_DARK = (0.22, 0.23, 0.25, 1.0)

_LINK_CONTACT = {"contype": 2, "conaffinity": 1}
"""Links touch the things on the table (contype 1) but not each other."""


@dataclass(frozen=True, kw_only=True)
class _Link:
    """One moving link: its frame relative to its parent's, its joint about its z axis, its inertia and its shape."""

    pos: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    joint_range_rad: tuple[float, float]
    torque_limit_nm: float
    mass_kg: float
    com_m: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]
    """xx, yy, zz, xy, xz, yz in kg m^2 about the centre of mass."""
    capsules: tuple[tuple[float, ...], ...]
    """Start x y z, end x y z, radius."""


_TURN_BACK, _TURN, _SAME = (1.0, -1.0, 0.0, 0.0), (1.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)

_LINKS = (
    _Link(
        pos=(0, 0, 0.333),
        quat=_SAME,
        joint_range_rad=(-2.8973, 2.8973),
        torque_limit_nm=87,
        mass_kg=4.970684,
        com_m=(0.003875, 0.002081, -0.04762),
        inertia=(0.70337, 0.70661, 0.0091170, -0.000139, 0.0067720, 0.019169),
        capsules=((0, 0, -0.18, 0, 0, -0.02, 0.065),),
    ),
    _Link(
        pos=(0, 0, 0),
        quat=_TURN_BACK,
        joint_range_rad=(-1.7628, 1.7628),
        torque_limit_nm=87,
        mass_kg=0.646926,
        com_m=(-0.003141, -0.02872, 0.003495),
        inertia=(0.0079620, 0.028110, 0.025995, -0.003925, 0.010254, 0.000704),
        capsules=((0, 0, -0.06, 0, 0, 0.06, 0.065), (0, -0.02, 0, 0, -0.18, 0, 0.058)),
    ),
    _Link(
        pos=(0, -0.316, 0),
        quat=_TURN,
        joint_range_rad=(-2.8973, 2.8973),
        torque_limit_nm=87,
        mass_kg=3.228604,
        com_m=(0.027518, 0.039252, -0.066502),
        inertia=(0.037242, 0.036155, 0.010830, -0.004761, -0.011396, -0.012805),
        capsules=((0, 0, -0.13, 0, 0, -0.03, 0.058), (0.03, 0, 0, 0.08, 0.0, 0, 0.05)),
    ),
    _Link(
        pos=(0.0825, 0, 0),
        quat=_TURN,
        joint_range_rad=(-3.0718, -0.0698),
        torque_limit_nm=87,
        mass_kg=3.587895,
        com_m=(-0.053170, 0.104419, 0.027454),
        inertia=(0.025853, 0.019552, 0.028323, 0.007796, -0.001332, 0.008641),
        capsules=((0, 0, -0.05, 0, 0, 0.05, 0.055), (-0.06, 0.06, 0, -0.0825, 0.14, 0, 0.052)),
    ),
    _Link(
        pos=(-0.0825, 0.384, 0),
        quat=_TURN_BACK,
        joint_range_rad=(-2.8973, 2.8973),
        torque_limit_nm=12,
        mass_kg=1.225946,
        com_m=(-0.011953, 0.041065, -0.038437),
        inertia=(0.035549, 0.029474, 0.008627, -0.002117, -0.004037, 0.000229),
        capsules=((0, 0.0, -0.24, 0, 0.05, -0.06, 0.05), (0, 0.02, -0.02, 0, 0, 0, 0.05)),
    ),
    _Link(
        pos=(0, 0, 0),
        quat=_TURN,
        joint_range_rad=(-0.0175, 3.7525),
        torque_limit_nm=12,
        mass_kg=1.666555,
        com_m=(0.060149, -0.014117, -0.010517),
        inertia=(0.001964, 0.004354, 0.005433, 0.000109, -0.001158, 0.000341),
        capsules=((0, 0, -0.05, 0, 0, 0.04, 0.046), (0.04, 0, 0, 0.088, 0.0, 0, 0.044)),
    ),
    _Link(
        pos=(0.088, 0, 0),
        quat=_TURN,
        joint_range_rad=(-2.8973, 2.8973),
        torque_limit_nm=12,
        mass_kg=0.735522,
        com_m=(0.010517, -0.004252, 0.061597),
        inertia=(0.012516, 0.010027, 0.004815, -0.000428, -0.001196, -0.000741),
        capsules=((0, 0, 0.03, 0, 0, 0.08, 0.044),),
    ),
)

_HOME_RAD = (0.0, -0.18483, 0.0, -2.49674, 0.0, 2.31191, 0.7854)
"""Gripper straight down, tool centre point at about (0.45, 0, 0.25) m."""
_MAX_VELOCITY_RAD_S = (2.175,) * 4 + (2.61,) * 3


def _add_panda(spec: mujoco.MjSpec) -> None:
    base = spec.worldbody.add_body(name="link0", gravcomp=1)
    base.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(0.085, 0.07, 0),
        pos=(0, 0, 0.07),
        rgba=_SHELL,
        contype=0,
        conaffinity=0,
    )
    parent = base
    for i, link in enumerate(_LINKS, start=1):
        parent = _add_link(parent, f"link{i}", link)
        _add_servo(spec, f"joint{i}", _STIFFNESS[i - 1], link.joint_range_rad, link.torque_limit_nm)
    _add_gripper(spec, parent)


def _add_link(parent: mujoco.MjsBody, name: str, link: _Link) -> mujoco.MjsBody:
    body = parent.add_body(
        name=name,
        pos=link.pos,
        quat=_unit(link.quat),
        mass=link.mass_kg,
        ipos=link.com_m,
        fullinertia=link.inertia,
        explicitinertial=True,
        gravcomp=1,
    )
    body.add_joint(
        name=name.replace("link", "joint"),
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(0, 0, 1),
        range=link.joint_range_rad,
        limited=True,
        armature=0.1,
        damping=[1.0, 0.0, 0.0],
    )
    for fromto_and_radius in link.capsules:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=fromto_and_radius[:6],
            size=(fromto_and_radius[6], 0, 0),
            rgba=_SHELL,
            **_LINK_CONTACT,
        )
    return body


def _add_servo(
    spec: mujoco.MjSpec, joint: str, stiffness: float, ctrlrange: tuple[float, float], force_limit: float
) -> None:
    actuator = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrlrange=ctrlrange,
        ctrllimited=True,
        forcerange=(-force_limit, force_limit),
        forcelimited=True,
    )
    actuator.set_to_position(kp=stiffness, kv=stiffness / 25)


def _add_gripper(spec: mujoco.MjSpec, flange: mujoco.MjsBody) -> None:
    hand = flange.add_body(
        name="hand",
        pos=(0, 0, 0.107),
        quat=(0.9238795, 0, 0, -0.3826834),
        mass=0.73,
        ipos=(-0.01, 0, 0.03),
        inertia=(0.001, 0.0025, 0.0017),
        explicitinertial=True,
        gravcomp=1,
    )
    hand.add_geom(name="palm", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.022, 0.1, 0.03), pos=(0, 0, 0.03), rgba=_SHELL)
    hand.add_site(name=TOOL_SITE, pos=(0, 0, 0.1034), size=(0.005, 0, 0), rgba=(0, 0, 0, 0))
    # In front of the palm and tilted back so that the fingertips are in the lower middle of the frame.
    hand.add_camera(name=WRIST_CAMERA, pos=(0.07, 0, 0.035), quat=_wrist_camera_quat(tilt_rad=0.42), fovy=82)
    for i, side in enumerate((1.0, -1.0), start=1):
        _add_finger(hand, f"finger{i}", side)
    coupling = spec.add_equality(
        type=mujoco.mjtEq.mjEQ_JOINT, name1="finger1", name2="finger2", objtype=mujoco.mjtObj.mjOBJ_JOINT
    )
    coupling.data[:5] = (0, 1, 0, 0, 0)
    coupling.solref = np.array((0.005, 1.0))
    coupling.solimp[:3] = (0.95, 0.99, 0.001)
    for i in (1, 2):
        actuator = spec.add_actuator(
            name=f"finger{i}",
            target=f"finger{i}",
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrlrange=(0, _FINGER_TRAVEL_M),
            ctrllimited=True,
            forcerange=(-35, 35),
            forcelimited=True,
        )
        actuator.set_to_position(kp=1500, kv=40)


def _add_finger(hand: mujoco.MjsBody, name: str, side: float) -> None:
    finger = hand.add_body(
        name=name,
        pos=(0, 0, 0.0584),
        mass=0.015,
        inertia=(2.375e-6, 2.375e-6, 7.5e-7),
        explicitinertial=True,
        gravcomp=1,
    )
    finger.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0, side, 0),
        range=(0, _FINGER_TRAVEL_M),
        limited=True,
        armature=0.1,
        damping=[10.0, 0.0, 0.0],
    )
    finger.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(_FINGER_HALF_M, 0.006, 0.0155), pos=(0, side * 0.012, 0.0155), rgba=_DARK
    )
    # Ribs across the fingertip: a round rib has few, stable contact points with flat and round things, whereas a flat
    # pad against a cylinder has a single drifting contact point, and the cylinder slips out.
    for z in (0.035, 0.0425, 0.05):
        finger.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=(-0.009, side * 0.0055, z, 0.009, side * 0.0055, z),
            size=(0.0055, 0, 0),
            rgba=(0, 0, 0, 0),
            friction=(1.5, 0.02, 0.001),
            condim=4,
            priority=1,
            solref=(0.01, 1),
        )
    # The visible shape of the ribs: capsules are the slowest to render; six of them took a fifth of the frame time.
    finger.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.0125, 0.0055, 0.013),
        pos=(0, side * 0.0055, 0.0425),
        rgba=_DARK,
        contype=0,
        conaffinity=0,
    )


def _wrist_camera_quat(tilt_rad: float) -> tuple[float, float, float, float]:
    """Camera that looks along the hand's +z (its own -z), with hand +x up, tilted towards the tool; w, x, y, z."""
    z_cam = np.array((np.sin(tilt_rad), 0.0, -np.cos(tilt_rad)))  # opposite of the viewing direction
    x_cam = np.array((0.0, 1.0, 0.0))
    y_cam = np.cross(z_cam, x_cam)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.stack((x_cam, y_cam, z_cam), axis=1).ravel())
    return tuple(quat.tolist())


def _unit(quat: tuple[float, float, float, float]) -> tuple[float, ...]:
    return tuple((np.array(quat) / np.linalg.norm(quat)).tolist())


PANDA = ArmSpec(
    name="panda",
    add=_add_panda,
    base_body="link0",
    joints=tuple(
        Joint(
            name=f"joint{i}",
            low_rad=link.joint_range_rad[0],
            high_rad=link.joint_range_rad[1],
            home_rad=home,
            max_velocity_rad_s=velocity,
        )
        for i, (link, home, velocity) in enumerate(zip(_LINKS, _HOME_RAD, _MAX_VELOCITY_RAD_S, strict=True), start=1)
    ),
    fingers=("finger1", "finger2"),
    finger_travel_m=_FINGER_TRAVEL_M,
    finger_half_m=_FINGER_HALF_M,
    position_scale_m=0.04,
    rotation_scale_rad=0.2,
    workspace_low_m=(0.27, -0.34, 0.008),
    workspace_high_m=(0.74, 0.34, 0.45),
    reach_m=1.2,
    max_speed_m_s=1.7,
    max_acceleration_m_s2=13.0,
    max_turn_rad_s=2.5,
    max_turn_rad_s2=25.0,
)
"""The arm of the suite."""
