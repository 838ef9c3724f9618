"""Schema of a dataset: LeRobotDataset v3.0 names, features and `info.json`, and the WorldSpec stored in it.

The format is LeRobot's (`codebase_version` "v3.0"), so its tools, viewers and trainers read our files. The WorldSpec,
with units and ranges, is stored in one extra top-level key of info.json, "llamarm", which LeRobot's reader ignores.

    observation.state, observation.images.<camera>     the policy's observation
    label.localization                                 positions of objects: a privileged label, never an input
    action                                             imitation target (the expert's noise-free action if labelled)
    executed_action                                    the action that the world executed
    next.reward, next.done, next.success               outcome
    intervention                                       whether a person acted; only in drives, LeRobot's name
    held                                               whether the robot was held in place; only in drives

LeRobot takes the names of the privileged label and the executed action for neither an observation nor an action, so its
policies do not get them as inputs or targets.

Shape letters: T frames of one episode.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from envs.errors import UserError
from envs.types import CameraSpec, VectorSpec, WorldSpec

ImageMode = Literal["image", "video"]
VideoCodec = Literal["libsvtav1", "h264"]

CODEBASE_VERSION = "v3.0"
"""That is written."""
READ_VERSIONS = ("v3.0", "v2.1", "v2.0")
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
OLD_TASKS_PATH = "meta/tasks.jsonl"
OLD_EPISODES_PATH = "meta/episodes.jsonl"
"""Of versions 2: one parquet file per episode, one mp4 per episode and camera."""

STATE = "observation.state"
LOCALIZATION = "label.localization"
ACTION = "action"
EXECUTED = "executed_action"
REWARD = "next.reward"
DONE = "next.done"
SUCCESS = "next.success"
INTERVENTION = "intervention"
HELD = "held"
IMAGE_PREFIX = "observation.images."

RESTORE = "restore it from a copy: only this file has the units"
"""Remedy for a damaged info.json."""

_VECTORS = {STATE: "state", LOCALIZATION: "localization", ACTION: "action", EXECUTED: "action"}
_SAME_RATE = 1e-6
"""Relative tolerance between control_dt_s and 1 / fps."""
_CODEC_NAMES: dict[VideoCodec, str] = {"libsvtav1": "av1", "h264": "h264"}


def frames_per_second(world_spec: WorldSpec) -> float:
    """fps as LeRobot writes it: an int where it is whole, else, e.g. of a camera at 29.97, a float."""
    fps = 1.0 / world_spec.control_dt_s
    whole = round(fps)
    return whole if abs(whole * world_spec.control_dt_s - 1.0) <= _SAME_RATE else float(f"{fps:.10g}")


def make_features(
    world_spec: WorldSpec, image_mode: ImageMode, codec: VideoCodec, *, interventions: bool
) -> dict[str, dict[str, Any]]:
    """The `features` of info.json. An empty vector (a robot without localization labels) has no feature.

    Raises:
        UserError: a camera size that video does not support, or a name that LeRobot does not.
    """
    features: dict[str, dict[str, Any]] = {}
    for key, attribute in _VECTORS.items():
        vector: VectorSpec = getattr(world_spec, attribute)
        if vector.size:
            features[key] = {"dtype": "float32", "shape": [vector.size], "names": list(vector.names)}
    for camera in world_spec.cameras:
        feature = {
            "dtype": image_mode,
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
        if image_mode == "video":
            feature["info"] = _video_info(camera, frames_per_second(world_spec), codec)
        features[IMAGE_PREFIX + camera.name] = feature
    scalars = {REWARD: "float32", DONE: "bool", SUCCESS: "bool", "timestamp": "float32"}
    if interventions:
        scalars |= {INTERVENTION: "bool", HELD: "bool"}
    scalars |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in scalars.items()}
    bad = [key for key in features if "/" in key]
    if bad:
        raise UserError(f"LeRobot feature names may not contain '/', got {', '.join(bad)}")
    return features


def _video_info(camera: CameraSpec, fps: float, codec: VideoCodec) -> dict[str, Any]:
    if camera.height % 2 or camera.width % 2:
        raise UserError(
            f"video needs an even height and width, and camera {camera.name!r} has {camera.height} x {camera.width}; "
            "use image_mode='image'"
        )
    return {
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": _CODEC_NAMES[codec],
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }


def make_info(
    world_spec: WorldSpec, robot_type: str, image_mode: ImageMode, codec: VideoCodec, *, interventions: bool
) -> dict[str, Any]:
    """info.json of an empty dataset."""
    return {
        "codebase_version": CODEBASE_VERSION,
        "robot_type": robot_type,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": frames_per_second(world_spec),
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if image_mode == "video" else None,
        "features": make_features(world_spec, image_mode, codec, interventions=interventions),
        # Through JSON, so that it compares equal to a file's content (lists, not tuples).
        "llamarm": {"world_spec": json.loads(json.dumps(dataclasses.asdict(world_spec)))},
    }


def is_own(info: Mapping[str, Any]) -> bool:
    """Whether this program wrote the dataset, so that it has a WorldSpec."""
    return "llamarm" in info


def read_world_spec(info: dict[str, Any]) -> WorldSpec:
    """The WorldSpec of a dataset.

    Raises:
        UserError: the dataset was not written by this writer, so units and ranges are unknown, or it is damaged.
    """
    if not is_own(info):
        raise UserError("info.json has no key 'llamarm', so the dataset's units and ranges are unknown")
    try:
        return WorldSpec.of(info["llamarm"]["world_spec"])
    except (KeyError, TypeError) as error:
        raise UserError(f"info.json is damaged: it lacks or misuses {error}; {RESTORE}") from error
    except ValueError as error:
        raise UserError(f"info.json is damaged: {error}; {RESTORE}") from error


def misused(info: dict[str, Any]) -> list[str]:
    """The keys of info.json whose value is invalid."""
    fps, features = info["fps"], info["features"]
    number = "episode_index" if info["codebase_version"] != CODEBASE_VERSION else "file_index"
    sound = {
        "fps": isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < math.inf,
        "features": isinstance(features, dict)
        and bool(features)
        and all(isinstance(feature, dict) and feature.keys() >= {"dtype", "shape"} for feature in features.values()),
        "data_path": number in _fields(info["data_path"]) <= {number, "chunk_index", "episode_chunk"},
    }
    if sound["features"] and any(feature["dtype"] == "video" for feature in features.values()):
        fields = _fields(info.get("video_path"))
        sound["video_path"] = {number, "video_key"} <= fields <= {number, "video_key", "chunk_index", "episode_chunk"}
    return [key for key, is_sound in sound.items() if not is_sound]


def _fields(path: object) -> set[str]:
    """The names in braces of a path; none of something else."""
    if not isinstance(path, str):
        return set()
    try:
        return {name for _, name, *_ in string.Formatter().parse(path) if name is not None}
    except ValueError:  # braces that do not match
        return set()


def contradictions(info: dict[str, Any], world_spec: WorldSpec) -> list[str]:
    """Contradictions between the features of info.json and its WorldSpec, one line each."""
    vectors = {key: getattr(world_spec, name).size for key, name in _VECTORS.items() if key != EXECUTED}
    shapes = {key: [size] for key, size in vectors.items() if size}
    shapes |= {IMAGE_PREFIX + camera.name: [camera.height, camera.width, 3] for camera in world_spec.cameras}
    found = {key: info["features"].get(key, {}).get("shape") for key in shapes}
    lines = differences(found, shapes, "features")
    if abs(info["fps"] * world_spec.control_dt_s - 1.0) > _SAME_RATE:
        lines.append(f"fps: {info['fps']}, but a control period of {world_spec.control_dt_s} s")
    return lines


def kind(info: dict[str, Any]) -> dict[str, Any]:
    """The part of info.json that must be equal in datasets that are trained on together."""
    features = {
        # Decoded frames are the same whether they were stored as images or video.
        key: {"shape": feature["shape"]} if feature["dtype"] in ("image", "video") else feature
        for key, feature in info["features"].items()
        if key not in (INTERVENTION, HELD)
    }
    return {"fps": info["fps"], "features": features}


def codec_named(name: str) -> VideoCodec:
    """The codec with this LeRobot name."""
    return next(codec for codec, own in _CODEC_NAMES.items() if own == name)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The differences of two JSON values, each as `path: old, not new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{path}/{key}".strip("/"))]
    return [] if old == new else [f"{path}: {json.dumps(old)}, not {json.dumps(new)}"]


def chunk_and_file(number: int) -> tuple[int, int]:
    """chunk_index and file_index of an episode's files: one file per episode, FILES_PER_CHUNK per folder."""
    return divmod(number, FILES_PER_CHUNK)


def part_path(path: Path) -> Path:
    """The temporary path of a file while it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def publish_file(part: Path, path: Path) -> None:
    """Sync a temporary file to disk and rename it."""
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
