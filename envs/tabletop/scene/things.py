"""The things on the table: their sizes, and functions that add them to the model. Metres, kilograms, radians."""

from __future__ import annotations

import mujoco
import numpy as np

NUM_OBJECTS = 3
NUM_RECEPTACLES = 2
NUM_DRAWERS = 2
NUM_BUTTONS = 3
NUM_DISTRACTORS = 2

CUBE_HALF_M = 0.0225
CYLINDER_RADIUS_M, CYLINDER_HALF_HEIGHT_M = 0.0235, 0.0225
OBJECT_HALF_HEIGHT_M = 0.0225
"""Cubes and cylinders have the same height, so that either can be stacked on the other."""
SHAPES = ("cube", "cylinder")
OBJECT_MASS_KG = 0.08
RELEASED_OPENING_M = 0.06
"""A gripper that is open wider holds none of the objects."""
SLIDING_FRICTION = 0.4
"""Between things and the table. Fingers have 1.5; if the product of the two exceeded 1, a pushed thing would jam."""
BOWL_RADIUS_M, BOWL_HEIGHT_M, BOWL_WALLS = 0.058, 0.03, 8
ZONE_RADIUS_M = 0.055
DRAWER_TRAVEL_M = 0.11
HANDLE_HALF_M = (0.015, 0.018, 0.022)
BUTTON_RADIUS_M, BUTTON_TRAVEL_M, BUTTON_TOP_M = 0.024, 0.014, 0.045
DIAL_BAR_HALF_M = (0.038, 0.011, 0.013)
DIAL_TOP_M = 0.05
DIAL_LIMIT_RAD = 1.2

OBJECT_REGION_M = ((0.37, 0.60), (-0.18, 0.18))
RECEPTACLE_REGION_M = ((0.40, 0.59), (-0.165, 0.165))
"""Where objects, bowls and zones may lie: x and y on the table."""

PARKED_ORDER = (
    *(f"object{i}" for i in range(NUM_OBJECTS)),
    *(f"{kind}{i}" for kind in ("bowl", "zone") for i in range(NUM_RECEPTACLES)),
    *(f"distractor{i}" for i in range(NUM_DISTRACTORS)),
    "cabinet",
    "panel",
    "dial",
)
"""All bodies that can be parked; each position is far enough from the next to avoid contact."""

_CABINET_HALF_M = (0.06, 0.075, 0.03)
_WOOD = (0.62, 0.48, 0.36, 1.0)
_METAL = (0.55, 0.57, 0.60, 1.0)
_PAINTED = (1, 0, 0, 1)
"""Of what gets its colour from the episode."""
_BOX, _CYLINDER, _SLIDE = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtJoint.mjJNT_SLIDE
_GRASPABLE = {"type": _BOX, "mass": 0.05, "friction": (1.2, 0.01, 0.001), "condim": 4}
NO_CONTACT = {"contype": 0, "conaffinity": 0}


def parked_pos_m(name: str) -> tuple[float, float, float]:
    """Position of that body while no episode uses it, [3]."""
    return (2.0 * PARKED_ORDER.index(name), 0.0, -5.0)


def add_things(spec: mujoco.MjSpec) -> None:
    """Add everything that can lie or stand on the table, at its parked position."""
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


def _add_object(spec: mujoco.MjSpec, name: str) -> None:
    """A body with both shapes; an episode shrinks the unused one (`episodes/placing.py`).

    Both use the cube's inertia: the cylinder's differs by less than 10 %.
    """
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_freejoint(name=name)
    surface = {"friction": (SLIDING_FRICTION, 0.01, 0.0005), "condim": 4, "rgba": _PAINTED}
    cylinder = (CYLINDER_RADIUS_M, CYLINDER_HALF_HEIGHT_M, 0)
    body.add_geom(name=f"{name}_cube", type=_BOX, size=(CUBE_HALF_M,) * 3, mass=OBJECT_MASS_KG, **surface)
    body.add_geom(name=f"{name}_cylinder", type=_CYLINDER, size=cylinder, mass=0, **surface)


def _add_bowl(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_geom(type=_CYLINDER, size=(BOWL_RADIUS_M, 0.002, 0), pos=(0, 0, 0.002), rgba=_PAINTED)
    half_side = (BOWL_RADIUS_M + 0.004) * np.tan(np.pi / BOWL_WALLS)
    for angle in np.arange(BOWL_WALLS) * 2 * np.pi / BOWL_WALLS:
        body.add_geom(
            type=_BOX,
            size=(0.004, half_side, BOWL_HEIGHT_M / 2),
            pos=(BOWL_RADIUS_M * np.cos(angle), BOWL_RADIUS_M * np.sin(angle), BOWL_HEIGHT_M / 2),
            quat=(np.cos(angle / 2), 0, 0, np.sin(angle / 2)),
            rgba=_PAINTED,
        )


def _add_zone(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    body.add_geom(type=_CYLINDER, size=(ZONE_RADIUS_M, 0.0005, 0), pos=(0, 0, 0.0006), rgba=_PAINTED, **NO_CONTACT)


def _add_distractor(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name, pos=parked_pos_m(name))
    ellipsoid = mujoco.mjtGeom.mjGEOM_ELLIPSOID
    body.add_geom(type=ellipsoid, size=(0.028, 0.02, 0.015), pos=(0, 0, 0.012), rgba=(0.2, 0.2, 0.2, 1))


def _add_cabinet(spec: mujoco.MjSpec) -> None:
    """Two drawers side by side that open towards the arm, each with a coloured handle and a coloured lid above it."""
    cabinet = spec.worldbody.add_body(name="cabinet", pos=parked_pos_m("cabinet"))
    depth, width, height = _CABINET_HALF_M
    for i, side in enumerate((1.0, -1.0)):
        y = side * width
        cabinet.add_geom(type=_BOX, size=(depth, width, 0.003), pos=(0, y, 2 * height), rgba=_WOOD)
        lid = {"size": (0.03, 0.04, 0.002), "pos": (0, y, 2 * height + 0.004)}
        cabinet.add_geom(name=f"lid{i}", type=_BOX, rgba=_WOOD, **lid)
        cabinet.add_geom(type=_BOX, size=(depth, 0.003, height), pos=(0, y + side * width, height), rgba=_WOOD)
        drawer = cabinet.add_body(name=f"drawer{i}", pos=(-0.004, y, 0.026))
        slide = {"type": _SLIDE, "axis": (-1, 0, 0), "range": (0, DRAWER_TRAVEL_M), "limited": True}
        drawer.add_joint(name=f"drawer{i}", damping=[4.0, 0.0, 0.0], frictionloss=0.6, armature=0.05, **slide)
        inner = width - 0.008
        wall = {"type": _BOX, "rgba": (0.75, 0.62, 0.5, 1.0)}
        drawer.add_geom(size=(0.055, inner, 0.002), pos=(0, 0, -0.02), mass=0.15, **wall)
        drawer.add_geom(size=(0.003, inner, 0.022), pos=(-0.055, 0, 0), mass=0.1, **wall)
        drawer.add_geom(size=(0.055, 0.002, 0.018), pos=(0, inner, -0.004), mass=0.02, **wall)
        drawer.add_geom(size=(0.055, 0.002, 0.018), pos=(0, -inner, -0.004), mass=0.02, **wall)
        handle = (-0.058 - HANDLE_HALF_M[0] - 0.004, 0, HANDLE_HALF_M[2] - 0.006)
        drawer.add_geom(name=f"handle{i}", size=HANDLE_HALF_M, pos=handle, rgba=_METAL, **_GRASPABLE)
    cabinet.add_geom(type=_BOX, size=(0.003, 2 * width, height), pos=(depth, 0, height), rgba=_WOOD)


def _add_buttons(spec: mujoco.MjSpec) -> None:
    panel = spec.worldbody.add_body(name="panel", pos=parked_pos_m("panel"))
    panel.add_geom(type=_BOX, size=(0.034, 0.12, 0.01), pos=(0, 0, 0.01), rgba=(0.35, 0.36, 0.38, 1))
    half_height = (BUTTON_TOP_M - 0.02) / 2
    shape = {"size": (BUTTON_RADIUS_M, half_height, 0), "pos": (0, 0, BUTTON_TOP_M - half_height)}
    slide = {"type": _SLIDE, "axis": (0, 0, -1), "range": (0, BUTTON_TRAVEL_M), "limited": True, "armature": 0.02}
    spring = {"stiffness": [150.0, 0.0, 0.0], "damping": [5.0, 0.0, 0.0], "springref": -0.01}
    for i in range(NUM_BUTTONS):
        button = panel.add_body(name=f"button{i}", pos=(0, 0.08 * (1 - i), 0.0))
        button.add_joint(name=f"button{i}", **slide, **spring)
        button.add_geom(name=f"button{i}", type=_CYLINDER, mass=0.03, rgba=_PAINTED, **shape)


def _add_dial(spec: mujoco.MjSpec) -> None:
    dial = spec.worldbody.add_body(name="dial", pos=parked_pos_m("dial"))
    dial.add_geom(type=_CYLINDER, size=(0.042, 0.01, 0), pos=(0, 0, 0.01), rgba=(0.30, 0.31, 0.33, 1))
    knob = dial.add_body(name="knob", pos=(0, 0, DIAL_TOP_M - DIAL_BAR_HALF_M[2]))
    hinge = {"type": mujoco.mjtJoint.mjJNT_HINGE, "axis": (0, 0, 1), "range": (-DIAL_LIMIT_RAD, DIAL_LIMIT_RAD)}
    friction = {"damping": [0.03, 0.0, 0.0], "frictionloss": 0.02, "armature": 0.002}
    knob.add_joint(name="knob", limited=True, **hinge, **friction)
    knob.add_geom(name="knob", size=DIAL_BAR_HALF_M, rgba=(0.95, 0.95, 0.95, 1), **_GRASPABLE)
    # A mark at the far end, so that the two directions of the bar can be distinguished visually.
    mark = {"size": (0.009, DIAL_BAR_HALF_M[1], 0.001), "pos": (DIAL_BAR_HALF_M[0] - 0.01, 0, DIAL_BAR_HALF_M[2])}
    knob.add_geom(type=_BOX, mass=0.001, rgba=(0.1, 0.1, 0.1, 1), **mark, **NO_CONTACT)
