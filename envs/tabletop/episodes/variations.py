"""What may differ between two episodes of a task, in three families: how it looks, how it is said, how it lies.

Each family has a train range and a held-out range that do not overlap; of tints and joint noise, which are spreads
around nothing, the held-out one is wider. An episode's variation names the one family that is drawn from its held-out
range; everything else stays in the train range. All families draw from their own stream of the episode's seed, so
episodes of one seed differ between variations in the named family only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.tabletop.scene.scene import FRONT_CAMERA_POS_M
from envs.tabletop.scene.things import NUM_DISTRACTORS

VARIATIONS = ("train", "vision", "paraphrase", "combination", "execution", "synonym")
"""train: nothing held out; vision; execution; language as unseen sentences, as unseen colour-shape pairs, or as
training's sentences in which every word of SYNONYMS is another one."""


@dataclass(frozen=True, kw_only=True)
class VisionRange:
    """How a scene may look."""

    table_materials: tuple[str, ...]
    table_brightness: tuple[float, float]
    table_tint: float
    """Largest deviation of one colour channel from grey."""
    light_elevation_rad: tuple[float, float]
    light_diffuse: tuple[float, float]
    camera_shift_m: tuple[float, float]
    """Distance of the front camera from its nominal place."""
    num_distractors: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ExecutionRange:
    """How a scene may lie."""

    object_yaw_rad: tuple[float, float]
    """Absolute value; the sign is drawn too."""
    base_height_m: tuple[float, float]
    """Absolute height difference between table and arm; the sign is drawn too."""
    start_joint_noise_rad: float
    """Standard deviation of the arm's first joint positions around home."""


TRAIN_VISION = VisionRange(
    table_materials=("plain", "speckle", "weave"),
    table_brightness=(0.62, 0.92),
    table_tint=0.06,
    light_elevation_rad=(0.95, 1.5),
    light_diffuse=(0.35, 0.6),
    camera_shift_m=(0.0, 0.01),
    num_distractors=(0, 1),
)
HELD_OUT_VISION = VisionRange(
    table_materials=("tiles", "gradient", "cross"),
    table_brightness=(0.45, 0.6),
    table_tint=0.12,
    light_elevation_rad=(0.7, 0.9),
    light_diffuse=(0.22, 0.33),
    camera_shift_m=(0.012, 0.025),
    num_distractors=(2, 2),
)
TRAIN_EXECUTION = ExecutionRange(object_yaw_rad=(0.0, 0.35), base_height_m=(0.0, 0.01), start_joint_noise_rad=0.02)
HELD_OUT_EXECUTION = ExecutionRange(
    object_yaw_rad=(0.4, 0.75), base_height_m=(0.012, 0.025), start_joint_noise_rad=0.06
)

HELD_OUT_PAIRS = frozenset({("purple", "cube"), ("yellow", "cylinder"), ("red", "cylinder")})
"""Colour-shape pairs that no training instruction names (they do lie on the table as other objects)."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "green": ("emerald", "jade"),
    "blue": ("azure", "navy"),
    "yellow": ("golden", "amber"),
    "purple": ("violet", "lilac"),
    "cube": ("block", "box"),
    "cylinder": ("tube", "can"),
    "bowl": ("dish", "basin"),
    "zone": ("area", "region"),
    "drawer": ("compartment",),
    "button": ("switch",),
    "dial": ("wheel",),
    "knob": ("wheel",),
}
"""Word of training: words for the same that no training instruction holds."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One drawn appearance."""

    table_material: str
    table_rgb: tuple[float, float, float]
    light_dir: tuple[float, float, float]
    light_diffuse: float
    camera_pos_m: tuple[float, float, float]
    distractor_xy_m: tuple[tuple[float, float], ...]
    distractor_grey: tuple[float, ...]


def draw_look(rng: np.random.Generator, held_out: bool) -> Look:
    """Draw an appearance from the train or the held-out range."""
    range_ = HELD_OUT_VISION if held_out else TRAIN_VISION
    brightness = rng.uniform(*range_.table_brightness)
    rgb = np.clip(brightness + rng.uniform(-range_.table_tint, range_.table_tint, 3), 0, 1)
    elevation, azimuth = rng.uniform(*range_.light_elevation_rad), rng.uniform(-np.pi, np.pi)
    direction = -np.array((np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)))
    shift = rng.normal(size=3)
    shift *= rng.uniform(*range_.camera_shift_m) / np.linalg.norm(shift)
    count = rng.integers(range_.num_distractors[0], range_.num_distractors[1] + 1)
    # Around the workspace, where nothing that an instruction names can lie.
    sides = rng.permutation(2)[:count]
    places = [(rng.uniform(0.36, 0.66), (-1.0, 1.0)[side] * rng.uniform(0.235, 0.26)) for side in sides]
    assert len(places) <= NUM_DISTRACTORS
    return Look(
        table_material=str(rng.choice(range_.table_materials)),
        table_rgb=(float(rgb[0]), float(rgb[1]), float(rgb[2])),
        light_dir=(float(direction[0]), float(direction[1]), float(direction[2])),
        light_diffuse=float(rng.uniform(*range_.light_diffuse)),
        camera_pos_m=tuple((np.array(FRONT_CAMERA_POS_M) + shift).tolist()),
        distractor_xy_m=tuple((float(x), float(y)) for x, y in places),
        distractor_grey=tuple(rng.uniform(0.1, 0.45, count).tolist()),
    )


@dataclass(frozen=True, kw_only=True)
class Pose:
    """One drawn disturbance of how things lie and how the arm begins."""

    object_yaw_rad: tuple[float, ...]
    base_height_m: float
    joint_noise_rad: tuple[float, ...]


def draw_pose(rng: np.random.Generator, held_out: bool, num_objects: int, num_joints: int) -> Pose:
    """Draw yaws, base height and first joint positions from the train or the held-out range."""
    range_ = HELD_OUT_EXECUTION if held_out else TRAIN_EXECUTION
    yaw = rng.uniform(*range_.object_yaw_rad, num_objects) * rng.choice((-1.0, 1.0), num_objects)
    height = rng.uniform(*range_.base_height_m) * rng.choice((-1.0, 1.0))
    noise = np.clip(rng.normal(size=num_joints), -2, 2) * range_.start_joint_noise_rad
    return Pose(object_yaw_rad=tuple(yaw.tolist()), base_height_m=float(height), joint_noise_rad=tuple(noise.tolist()))
