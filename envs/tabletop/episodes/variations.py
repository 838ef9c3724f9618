"""Variations between episodes of a task, in three families: vision, language and execution (poses).

Each family has a train range and a held-out range that do not overlap; for tints and joint noise, which are zero-mean,
the held-out range is wider. An episode's variation names the one family that is sampled from its held-out range; all
others are sampled from their train range. Each family samples from its own stream of the episode's seed, so episodes
of one seed differ between variations only in the named family.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.tabletop.scene.scene import FRONT_CAMERA_POS_M
from envs.tabletop.scene.things import NUM_DISTRACTORS

VARIATIONS = ("train", "vision", "paraphrase", "combination", "execution", "synonym")
"""train: nothing held out; vision; execution; language by unseen sentences (paraphrase), unseen colour-shape pairs
(combination), or training sentences with every word of SYNONYMS replaced (synonym)."""


@dataclass(frozen=True, kw_only=True)
class VisionRange:
    """Ranges of a scene's appearance."""

    table_materials: tuple[str, ...]
    table_brightness: tuple[float, float]
    table_tint: float
    """Largest deviation of one colour channel from grey."""
    light_elevation_rad: tuple[float, float]
    light_diffuse: tuple[float, float]
    camera_shift_m: tuple[float, float]
    """Distance of the front camera from its nominal position."""
    num_distractors: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class ExecutionRange:
    """Ranges of a scene's initial poses."""

    object_yaw_rad: tuple[float, float]
    """Absolute value; the sign is sampled too."""
    base_height_m: tuple[float, float]
    """Absolute height difference between table and arm; the sign is sampled too."""
    start_joint_noise_rad: float
    """Standard deviation of the arm's initial joint positions around home."""


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
"""Colour-shape pairs that no training instruction names (they do appear as other objects)."""

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
"""{training word: synonyms that no training instruction contains}."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One sampled appearance."""

    table_material: str
    table_rgb: tuple[float, float, float]
    light_dir: tuple[float, float, float]
    light_diffuse: float
    camera_pos_m: tuple[float, float, float]
    distractor_xy_m: tuple[tuple[float, float], ...]
    distractor_grey: tuple[float, ...]


def sample_look(rng: np.random.Generator, held_out: bool) -> Look:
    """Sample an appearance from the train or the held-out range."""
    range_ = HELD_OUT_VISION if held_out else TRAIN_VISION
    brightness = rng.uniform(*range_.table_brightness)
    rgb = np.clip(brightness + rng.uniform(-range_.table_tint, range_.table_tint, 3), 0, 1)
    elevation, azimuth = rng.uniform(*range_.light_elevation_rad), rng.uniform(-np.pi, np.pi)
    direction = -np.array((np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)))
    shift = rng.normal(size=3)
    shift *= rng.uniform(*range_.camera_shift_m) / np.linalg.norm(shift)
    count = rng.integers(range_.num_distractors[0], range_.num_distractors[1] + 1)
    # Around the workspace, where no thing named by an instruction can lie.
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
    """One sampled perturbation of object poses and the arm's initial pose."""

    object_yaw_rad: tuple[float, ...]
    base_height_m: float
    joint_noise_rad: tuple[float, ...]


def sample_pose(rng: np.random.Generator, held_out: bool, num_objects: int, num_joints: int) -> Pose:
    """Sample yaws, base height and initial joint positions from the train or the held-out range."""
    range_ = HELD_OUT_EXECUTION if held_out else TRAIN_EXECUTION
    yaw = rng.uniform(*range_.object_yaw_rad, num_objects) * rng.choice((-1.0, 1.0), num_objects)
    height = rng.uniform(*range_.base_height_m) * rng.choice((-1.0, 1.0))
    noise = np.clip(rng.normal(size=num_joints), -2, 2) * range_.start_joint_noise_rad
    return Pose(object_yaw_rad=tuple(yaw.tolist()), base_height_m=float(height), joint_noise_rad=tuple(noise.tolist()))
