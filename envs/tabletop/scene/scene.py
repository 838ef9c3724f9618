"""The table: one MuJoCo model with everything that any task of the suite needs.

All worlds share it, so one batch can run any mix of tasks. Things that an episode uses are placed and coloured per
world (`episodes/`); the others are parked below the floor, invisible and weightless.

Axes: the arm stands at the origin, x points away from it over the table, y to its left, z = 0 is the table top. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np

from envs.arm import TOOL_SITE, WRIST_CAMERA, ArmSpec
from envs.errors import UserError
from envs.tabletop.scene.things import (
    NO_CONTACT,
    NUM_BUTTONS,
    NUM_DISTRACTORS,
    NUM_DRAWERS,
    NUM_OBJECTS,
    NUM_RECEPTACLES,
    OBJECT_REGION_M,
    PARKED_ORDER,
    RECEPTACLE_REGION_M,
    RELEASED_OPENING_M,
    SHAPES,
    SLIDING_FRICTION,
    add_things,
)
from envs.types import CameraSpec

PHYSICS_DT_S = 0.005

MAX_CONTACTS, MAX_CONSTRAINTS = 64, 256
"""Buffer sizes for contacts and constraint rows per table, for simulators that preallocate. Random pushing into
everything used at most 37 and 152."""

CAMERAS = (CameraSpec(name="front", height=128, width=128), CameraSpec(name=WRIST_CAMERA, height=64, width=64))
FRONT_CAMERA_POS_M = (0.98, 0.0, 0.70)
FRONT_CAMERA_TARGET_M = (0.485, 0.0, 0.02)
FRONT_CAMERA_FOVY_DEG = 36.0

TABLE_MATERIALS = ("plain", "speckle", "weave", "tiles", "gradient", "cross")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The compiled model and the ids that the suite needs."""

    model: mujoco.MjModel
    arm: ArmSpec
    joints: slice
    """The arm's joints in qpos, ctrl and other per-joint arrays."""
    fingers: slice
    """The same for its fingers."""
    tcp_site: int
    table_geom: int
    object_bodies: tuple[int, ...]
    object_geoms: tuple[dict[str, int], ...]
    """{shape of SHAPES: geom id} of each object."""
    object_qpos: tuple[int, ...]
    """First qpos index of each object's free joint."""
    object_qvel: tuple[int, ...]
    bowl_bodies: tuple[int, ...]
    zone_bodies: tuple[int, ...]
    distractor_bodies: tuple[int, ...]
    base_body: int
    cabinet_body: int
    drawer_qpos: tuple[int, ...]
    drawer_geoms: tuple[tuple[int, int], ...]
    """Handle and lid of each drawer: the parts that carry its colour."""
    panel_body: int
    button_qpos: tuple[int, ...]
    button_geoms: tuple[int, ...]
    dial_body: int
    dial_knob_body: int
    dial_qpos: int
    camera_ids: tuple[int, ...]
    light: int
    materials: tuple[int, ...]
    """Ids of TABLE_MATERIALS."""
    geoms_of: dict[int, tuple[int, ...]]
    """All geoms of a body and of the bodies below it."""


def build_scene(arm: ArmSpec) -> Scene:
    """Compile the model of the table with that arm.

    Raises:
        UserError: the arm does not reach the regions of things, does not open wide enough to release them, or its model
            has other joints or actuators than it names, or settings that would apply to the table too.
    """
    _check_fits(arm)
    spec = arm.model()
    _check_model(arm.name, spec)
    spec.compiler.degree = False
    spec.option.timestep = PHYSICS_DT_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    _add_room(spec)
    add_things(spec)
    return _index(spec.compile(), arm)


def _check_fits(arm: ArmSpec) -> None:
    if arm.opening_m <= RELEASED_OPENING_M:
        raise UserError(
            f"the gripper of arm {arm.name!r} opens by {arm.opening_m} m; to release the table's objects it must open "
            f"by more than {RELEASED_OPENING_M}"
        )
    for region in (OBJECT_REGION_M, RECEPTACLE_REGION_M):
        for axis, (low, high), start, end in zip(
            "xy", region, arm.workspace_low_m[:2], arm.workspace_high_m[:2], strict=True
        ):
            if not start <= low < high <= end:
                raise UserError(
                    f"the workspace of arm {arm.name!r} is {start} .. {end} m in {axis}, and the table's objects are "
                    f"at {low} .. {high}"
                )


def _check_model(name: str, spec: mujoco.MjSpec) -> None:
    spec.compile()
    xml = ElementTree.fromstring(spec.to_xml())
    found = [f"the default {each.tag}" for each in xml.iterfind("default/*") if each.tag != "default"]
    found += [f"the option {option}" for each in xml.iterfind("option") for option in each.attrib]
    if found:
        raise UserError(
            f"the model of arm {name!r} sets {', '.join(found)}, which would apply to the table too; put defaults into "
            "a class of the arm, and leave out options"
        )


def _add_room(spec: mujoco.MjSpec) -> None:
    visual = spec.visual
    visual.headlight.active = 0
    visual.global_.offwidth = visual.global_.offheight = 1024
    visual.map.znear, visual.map.zfar = 0.01, 20.0
    # Vertices dominate the time of a software renderer's frame. Compared with MuJoCo's 28, 16 and 4 this halves it and
    # changes a handful of pixels of a frame of 128 x 128.
    visual.quality.numslices, visual.quality.numstacks, visual.quality.numquads = 16, 8, 1
    spec.stat.extent, spec.stat.center = 1.0, np.array((0.5, 0.0, 0.0))
    world = spec.worldbody
    # Like a headlight of the front camera, but for every camera: a light that moved with the gripper would change how
    # colours appear.
    world.add_light(
        name="front",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        dir=np.array(FRONT_CAMERA_TARGET_M) - FRONT_CAMERA_POS_M,
        ambient=np.full(3, 0.35),
        diffuse=np.full(3, 0.25),
        specular=np.zeros(3),
    )
    world.add_light(
        name="key",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(0.5, 0, 2),
        dir=(0, 0, -1),
        diffuse=(0.5, 0.5, 0.5),
        specular=(0.1, 0.1, 0.1),
    )
    camera_quat = look_at(np.array(FRONT_CAMERA_POS_M), np.array(FRONT_CAMERA_TARGET_M))
    world.add_camera(name="front", pos=FRONT_CAMERA_POS_M, quat=camera_quat, fovy=FRONT_CAMERA_FOVY_DEG)
    world.add_geom(
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(4, 4, 1),
        pos=(0, 0, -0.7),
        rgba=(0.45, 0.46, 0.48, 1),
        **NO_CONTACT,
    )
    _add_table_materials(spec)
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.5, 0.6, 0.02),
        pos=(0.4, 0, -0.02),
        rgba=(0.8, 0.8, 0.8, 1),
        material="plain",
        friction=(SLIDING_FRICTION, 0.005, 0.0001),
    )


def _add_table_materials(spec: mujoco.MjSpec) -> None:
    builtin, mark = mujoco.mjtBuiltin, mujoco.mjtMark
    looks = {
        "plain": (builtin.mjBUILTIN_FLAT, mark.mjMARK_NONE, (1, 1, 1), (1, 1, 1), 1),
        "speckle": (builtin.mjBUILTIN_FLAT, mark.mjMARK_RANDOM, (0.95, 0.95, 0.95), (1, 1, 1), 2),
        "weave": (builtin.mjBUILTIN_CHECKER, mark.mjMARK_NONE, (1, 1, 1), (0.9, 0.9, 0.9), 20),
        "tiles": (builtin.mjBUILTIN_CHECKER, mark.mjMARK_NONE, (1, 1, 1), (0.82, 0.82, 0.82), 6),
        "gradient": (builtin.mjBUILTIN_GRADIENT, mark.mjMARK_NONE, (1, 1, 1), (0.7, 0.7, 0.7), 1),
        "cross": (builtin.mjBUILTIN_FLAT, mark.mjMARK_CROSS, (0.95, 0.95, 0.95), (1, 1, 1), 8),
    }
    for name, (kind, marking, first, second, repeat) in looks.items():
        spec.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=kind,
            mark=marking,
            rgb1=first,
            rgb2=second,
            markrgb=(0.72, 0.72, 0.72),
            random=0.02,
            width=128,
            height=128,
        )
        textures = [""] * mujoco.mjtTextureRole.mjNTEXROLE
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        spec.add_material(name=name, textures=textures, texrepeat=(repeat, repeat), specular=0.1)


def _index(model: mujoco.MjModel, arm: ArmSpec) -> Scene:
    def body(name: str) -> int:
        return model.body(name).id

    def qpos(joint: str) -> int:
        return int(model.jnt_qposadr[model.joint(joint).id])

    moved = (*(joint.name for joint in arm.joints), *arm.fingers)
    joints = tuple(model.joint(i).name for i in range(min(len(moved), model.njnt)))
    actuators = tuple(model.actuator(i).name for i in range(model.nu))
    if (joints, actuators) != (moved, moved):
        raise UserError(
            f"arm {arm.name!r} lists {', '.join(moved)}, and its model has the joints {', '.join(joints)} and the "
            f"actuators {', '.join(actuators)}; list them in the model's order, a joint and its actuator under one name"
        )
    objects = [f"object{i}" for i in range(NUM_OBJECTS)]
    return Scene(
        model=model,
        arm=arm,
        joints=slice(0, len(arm.joints)),
        fingers=slice(len(arm.joints), len(moved)),
        tcp_site=model.site(TOOL_SITE).id,
        table_geom=model.geom("table").id,
        object_bodies=tuple(body(n) for n in objects),
        object_geoms=tuple({shape: model.geom(f"{n}_{shape}").id for shape in SHAPES} for n in objects),
        object_qpos=tuple(qpos(n) for n in objects),
        object_qvel=tuple(int(model.jnt_dofadr[model.joint(n).id]) for n in objects),
        bowl_bodies=tuple(body(f"bowl{i}") for i in range(NUM_RECEPTACLES)),
        zone_bodies=tuple(body(f"zone{i}") for i in range(NUM_RECEPTACLES)),
        distractor_bodies=tuple(body(f"distractor{i}") for i in range(NUM_DISTRACTORS)),
        base_body=body(arm.base_body),
        cabinet_body=body("cabinet"),
        drawer_qpos=tuple(qpos(f"drawer{i}") for i in range(NUM_DRAWERS)),
        drawer_geoms=tuple((model.geom(f"handle{i}").id, model.geom(f"lid{i}").id) for i in range(NUM_DRAWERS)),
        panel_body=body("panel"),
        button_qpos=tuple(qpos(f"button{i}") for i in range(NUM_BUTTONS)),
        button_geoms=tuple(model.geom(f"button{i}").id for i in range(NUM_BUTTONS)),
        dial_body=body("dial"),
        dial_knob_body=body("knob"),
        dial_qpos=qpos("knob"),
        camera_ids=tuple(model.camera(c.name).id for c in CAMERAS),
        light=model.light("key").id,
        materials=tuple(model.material(n).id for n in TABLE_MATERIALS),
        geoms_of={body(n): _geoms_below(model, body(n)) for n in PARKED_ORDER},
    )


def _geoms_below(model: mujoco.MjModel, root: int) -> tuple[int, ...]:
    below = {root}
    for child in range(root + 1, model.nbody):
        if int(model.body_parentid[child]) in below:
            below.add(child)
    return tuple(g for g in range(model.ngeom) if int(model.geom_bodyid[g]) in below)


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion of a camera at `position` that looks at `target` with the world's z up in its frame."""
    backward = position - target
    backward = backward / np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right = right / np.linalg.norm(right)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.stack((right, np.cross(backward, right), backward), axis=1).ravel())
    return quat
