"""The table: one MuJoCo model that holds everything any task of the suite may need.

All worlds share it, so one batch can run any mix of tasks. What an episode uses is placed and coloured per world
(`layout.py`); what it does not use is parked under the floor, invisible and weightless.

Axes: the arm stands at the origin, x points away from it over the table, y to its left, z = 0 is the table top. Metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.tabletop.arm import add_arm
from envs.types import CameraSpec

PHYSICS_DT_S = 0.005

NUM_OBJECTS = 3
NUM_RECEPTACLES = 2
NUM_DRAWERS = 2
NUM_BUTTONS = 3
NUM_DISTRACTORS = 2

CUBE_HALF_M = 0.0225
CYLINDER_RADIUS_M, CYLINDER_HALF_HEIGHT_M = 0.0235, 0.0225
OBJECT_HALF_HEIGHT_M = 0.0225
"""Cubes and cylinders are equally high, so that either can be stacked on the other."""
SHAPES = ("cube", "cylinder")
OBJECT_MASS_KG = 0.08
SLIDING_FRICTION = 0.4
"""Between things and the table. Fingers have 1.5; were the product of the two above 1, a pushed thing would jam."""
BOWL_RADIUS_M, BOWL_HEIGHT_M, BOWL_WALLS = 0.058, 0.03, 8
ZONE_RADIUS_M = 0.055
DRAWER_TRAVEL_M = 0.11
HANDLE_HALF_M = (0.015, 0.018, 0.022)
BUTTON_RADIUS_M, BUTTON_TRAVEL_M, BUTTON_TOP_M = 0.024, 0.014, 0.045
DIAL_BAR_HALF_M = (0.038, 0.011, 0.013)
DIAL_TOP_M = 0.05
DIAL_LIMIT_RAD = 1.2

MAX_CONTACTS, MAX_CONSTRAINTS = 64, 256
"""Room for the contacts and constraint rows of one table, where a simulator must know before. Hands that push at random
into everything made at most 37 and 152."""

CAMERAS = (CameraSpec(name="front", height=128, width=128), CameraSpec(name="wrist", height=64, width=64))
FRONT_CAMERA_POS_M = (0.98, 0.0, 0.70)
FRONT_CAMERA_TARGET_M = (0.485, 0.0, 0.02)
FRONT_CAMERA_FOVY_DEG = 36.0

TABLE_MATERIALS = ("plain", "speckle", "weave", "tiles", "gradient", "cross")
PARKED_ORDER = (
    *(f"object{i}" for i in range(NUM_OBJECTS)),
    *(f"{kind}{i}" for kind in ("bowl", "zone") for i in range(NUM_RECEPTACLES)),
    *(f"distractor{i}" for i in range(NUM_DISTRACTORS)),
    "cabinet",
    "panel",
    "dial",
)
"""Everything that can be parked, each far enough from the next not to touch it."""

_CABINET_HALF_M = (0.06, 0.075, 0.03)
_WOOD = (0.62, 0.48, 0.36, 1.0)
_METAL = (0.55, 0.57, 0.60, 1.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The compiled model and the ids that the suite needs, looked up once."""

    model: mujoco.MjModel
    tcp_site: int
    table_geom: int
    object_bodies: tuple[int, ...]
    object_geoms: tuple[dict[str, int], ...]
    """Of each object, the geom of each of SHAPES."""
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


def parked_pos_m(name: str) -> tuple[float, float, float]:
    """Where that body waits while no episode uses it."""
    return (2.0 * PARKED_ORDER.index(name), 0.0, -5.0)


def build_scene() -> Scene:
    """Compile the model."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = PHYSICS_DT_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    _add_room(spec)
    add_arm(spec)
    for i in range(NUM_OBJECTS):
        _add_object(spec, f"object{i}")
    for i in range(NUM_RECEPTACLES):
        _add_bowl(spec, f"bowl{i}")
        _add_zone(spec, f"zone{i}")
    for i in range(NUM_DISTRACTORS):
        _add_distractor(spec, f"distractor{i}")
    _add_cabinet(spec)
    _add_buttons(spec)
    _add_dial(spec)
    return _index(spec.compile())


def _add_room(spec: mujoco.MjSpec) -> None:
    visual = spec.visual
    visual.headlight.active = 0
    visual.global_.offwidth = visual.global_.offheight = 1024
    visual.map.znear, visual.map.zfar = 0.01, 20.0
    # A software renderer's frame costs what its vertices cost. Against MuJoCo's 28, 16 and 4 this changes a handful of
    # pixels of a frame of 128 x 128 and halves its time.
    visual.quality.numslices, visual.quality.numstacks, visual.quality.numquads = 16, 8, 1
    spec.stat.extent, spec.stat.center = 1.0, np.array((0.5, 0.0, 0.0))
    world = spec.worldbody
    # As a headlight of the front camera would shine, for every camera: a light that moved with the gripper would change
    # what a colour looks like.
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
        contype=0,
        conaffinity=0,
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


def _add_object(spec: mujoco.MjSpec, name: str) -> None:
    """A body that holds both shapes; an episode shrinks the one it has not (`placing.py`).

    One inertia serves both, the cube's: that of the cylinder differs by less than a tenth.
    """
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_freejoint(name=name)
    surface = {"friction": (SLIDING_FRICTION, 0.01, 0.0005), "condim": 4, "rgba": (1, 0, 0, 1)}
    body.add_geom(
        name=f"{name}_cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_HALF_M, CUBE_HALF_M, CUBE_HALF_M),
        mass=OBJECT_MASS_KG,
        **surface,
    )
    body.add_geom(
        name=f"{name}_cylinder",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(CYLINDER_RADIUS_M, CYLINDER_HALF_HEIGHT_M, 0),
        mass=0,
        **surface,
    )


def _add_bowl(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(BOWL_RADIUS_M, 0.002, 0), pos=(0, 0, 0.002), rgba=(1, 0, 0, 1)
    )
    half_side = (BOWL_RADIUS_M + 0.004) * np.tan(np.pi / BOWL_WALLS)
    for angle in np.arange(BOWL_WALLS) * 2 * np.pi / BOWL_WALLS:
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(0.004, half_side, BOWL_HEIGHT_M / 2),
            pos=(BOWL_RADIUS_M * np.cos(angle), BOWL_RADIUS_M * np.sin(angle), BOWL_HEIGHT_M / 2),
            quat=(np.cos(angle / 2), 0, 0, np.sin(angle / 2)),
            rgba=(1, 0, 0, 1),
        )


def _add_zone(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(ZONE_RADIUS_M, 0.0005, 0),
        pos=(0, 0, 0.0006),
        rgba=(1, 0, 0, 1),
        contype=0,
        conaffinity=0,
    )


def _add_distractor(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=(0.028, 0.02, 0.015), pos=(0, 0, 0.012), rgba=(0.2, 0.2, 0.2, 1)
    )


def _add_cabinet(spec: mujoco.MjSpec) -> None:
    """Two drawers side by side that open towards the arm, each with a coloured handle and a coloured lid above it."""
    cabinet = spec.worldbody.add_body(name="cabinet", pos=parked_pos_m("cabinet"))
    depth, width, height = _CABINET_HALF_M
    box = mujoco.mjtGeom.mjGEOM_BOX
    for i, side in enumerate((1.0, -1.0)):
        y = side * width
        cabinet.add_geom(type=box, size=(depth, width, 0.003), pos=(0, y, 2 * height), rgba=_WOOD)
        cabinet.add_geom(name=f"lid{i}", type=box, size=(0.03, 0.04, 0.002), pos=(0, y, 2 * height + 0.004), rgba=_WOOD)
        cabinet.add_geom(type=box, size=(depth, 0.003, height), pos=(0, y + side * width, height), rgba=_WOOD)
        drawer = cabinet.add_body(name=f"drawer{i}", pos=(-0.004, y, 0.026))
        drawer.add_joint(
            name=f"drawer{i}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(-1, 0, 0),
            range=(0, DRAWER_TRAVEL_M),
            limited=True,
            damping=[4.0, 0.0, 0.0],
            frictionloss=0.6,
            armature=0.05,
        )
        inner = width - 0.008
        wall = {"type": box, "rgba": (0.75, 0.62, 0.5, 1.0), "contype": 1, "conaffinity": 1}
        drawer.add_geom(size=(0.055, inner, 0.002), pos=(0, 0, -0.02), mass=0.15, **wall)
        drawer.add_geom(size=(0.003, inner, 0.022), pos=(-0.055, 0, 0), mass=0.1, **wall)
        drawer.add_geom(size=(0.055, 0.002, 0.018), pos=(0, inner, -0.004), mass=0.02, **wall)
        drawer.add_geom(size=(0.055, 0.002, 0.018), pos=(0, -inner, -0.004), mass=0.02, **wall)
        drawer.add_geom(
            name=f"handle{i}",
            type=box,
            size=HANDLE_HALF_M,
            pos=(-0.058 - HANDLE_HALF_M[0] - 0.004, 0, HANDLE_HALF_M[2] - 0.006),
            mass=0.05,
            friction=(1.2, 0.01, 0.001),
            condim=4,
            rgba=_METAL,
        )
    cabinet.add_geom(type=box, size=(0.003, 2 * width, height), pos=(depth, 0, height), rgba=_WOOD)


def _add_buttons(spec: mujoco.MjSpec) -> None:
    panel = spec.worldbody.add_body(name="panel", pos=parked_pos_m("panel"))
    panel.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.034, 0.12, 0.01), pos=(0, 0, 0.01), rgba=(0.35, 0.36, 0.38, 1)
    )
    half_height = (BUTTON_TOP_M - 0.02) / 2
    for i in range(NUM_BUTTONS):
        button = panel.add_body(name=f"button{i}", pos=(0, 0.08 * (1 - i), 0.0))
        button.add_joint(
            name=f"button{i}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=(0, 0, -1),
            range=(0, BUTTON_TRAVEL_M),
            limited=True,
            stiffness=[150.0, 0.0, 0.0],
            damping=[5.0, 0.0, 0.0],
            springref=-0.01,
            armature=0.02,
        )
        button.add_geom(
            name=f"button{i}",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            size=(BUTTON_RADIUS_M, half_height, 0),
            pos=(0, 0, BUTTON_TOP_M - half_height),
            mass=0.03,
            rgba=(1, 0, 0, 1),
        )


def _add_dial(spec: mujoco.MjSpec) -> None:
    dial = spec.worldbody.add_body(name="dial", pos=parked_pos_m("dial"))
    dial.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.042, 0.01, 0), pos=(0, 0, 0.01), rgba=(0.30, 0.31, 0.33, 1)
    )
    knob = dial.add_body(name="knob", pos=(0, 0, DIAL_TOP_M - DIAL_BAR_HALF_M[2]))
    knob.add_joint(
        name="knob",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=(0, 0, 1),
        range=(-DIAL_LIMIT_RAD, DIAL_LIMIT_RAD),
        limited=True,
        damping=[0.03, 0.0, 0.0],
        frictionloss=0.02,
        armature=0.002,
    )
    knob.add_geom(
        name="knob",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=DIAL_BAR_HALF_M,
        mass=0.05,
        friction=(1.2, 0.01, 0.001),
        condim=4,
        rgba=(0.95, 0.95, 0.95, 1),
    )
    # A mark at the far end, so that the eye can tell one direction of the bar from the other.
    knob.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(0.009, DIAL_BAR_HALF_M[1], 0.001),
        pos=(DIAL_BAR_HALF_M[0] - 0.01, 0, DIAL_BAR_HALF_M[2]),
        mass=0.001,
        contype=0,
        conaffinity=0,
        rgba=(0.1, 0.1, 0.1, 1),
    )


def _index(model: mujoco.MjModel) -> Scene:
    def body(name: str) -> int:
        return model.body(name).id

    def qpos(joint: str) -> int:
        return int(model.jnt_qposadr[model.joint(joint).id])

    objects = [f"object{i}" for i in range(NUM_OBJECTS)]
    return Scene(
        model=model,
        tcp_site=model.site("tcp").id,
        table_geom=model.geom("table").id,
        object_bodies=tuple(body(n) for n in objects),
        object_geoms=tuple({shape: model.geom(f"{n}_{shape}").id for shape in SHAPES} for n in objects),
        object_qpos=tuple(qpos(n) for n in objects),
        object_qvel=tuple(int(model.jnt_dofadr[model.joint(n).id]) for n in objects),
        bowl_bodies=tuple(body(f"bowl{i}") for i in range(NUM_RECEPTACLES)),
        zone_bodies=tuple(body(f"zone{i}") for i in range(NUM_RECEPTACLES)),
        distractor_bodies=tuple(body(f"distractor{i}") for i in range(NUM_DISTRACTORS)),
        base_body=body("link0"),
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
