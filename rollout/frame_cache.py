"""A dataset decoded once into flat files, so that reading a training row is copying memory.

Beside the dataset `demos/` stands `demos.cache/`, which may be deleted at any time:

    frames.<camera>.bin     uint8 [R, H, W, 3], the rows of all episodes one after the other
    state.bin action.bin localization.bin     float32 [R, D]
    manifest.json           which episodes those rows are, and which files they were read from

A dataset only grows, so a cache is extended: rows are appended, and count once the manifest, replaced whole, names
them. What a killed process appended beyond the manifest is cut off by the next one. Files whose source changed are
deleted, never rewritten, so whoever still reads them is not disturbed.

Shape letters: R rows of all episodes, D vector elements, H x W pixels.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track

from rollout import dataset_schema as schema
from rollout.dataset_read import StoredEpisode, cameras, episode_files, read_episode, read_info, read_rows
from rollout.dataset_write import finish_recording
from vla_model.folders import write_whole

_FORMAT = 1
_VECTORS = {"state": schema.STATE, "action": schema.ACTION, "localization": schema.LOCALIZATION}
_EPISODES_PER_COMMIT = 256
_MANIFEST = "manifest.json"


class FrameFile:
    """Frames of one camera, read when they are asked for.

    Not a memory map: that would count every frame ever read as memory of this process.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, ...]) -> None:
        self.shape = (num_rows, *shape)
        """(R, H, W, 3)"""
        self._file = path.open("rb")

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy these rows, [B], to `out`, contiguous [B, H, W, 3]."""
        row_bytes = math.prod(self.shape[1:])
        for row, frame in zip(rows.tolist(), out, strict=True):
            count = os.preadv(self._file.fileno(), [frame], row * row_bytes)
            assert count == row_bytes, f"{self._file.name} ends within row {row}"


@dataclass(frozen=True, kw_only=True)
class CachedDataset:
    """A dataset's rows: frames as open files, vectors as memory maps."""

    root: Path
    info: dict[str, Any]
    """info.json."""
    episodes: list[dict[str, Any]]
    """Rows of meta/episodes in order."""
    frames: dict[str, FrameFile]
    """By camera."""
    vectors: dict[str, NDArray[np.float32]]
    """{"state", "action", "localization": [R, D]}; localization has D = 0 where the dataset has no such labels."""


@dataclass(frozen=True)
class _Column:
    """One file of the cache."""

    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * math.prod(self.shape)

    def open(self, path: Path, num_rows: int) -> NDArray[Any]:
        shape = (num_rows, *self.shape)
        return (
            np.asarray(np.memmap(path, self.dtype, "r", shape=shape)) if self.row_bytes else np.zeros(shape, self.dtype)
        )


def open_cache(root: str | Path) -> CachedDataset:
    """The decoded rows of a dataset, decoding first what is not yet in its cache. Another process doing so is awaited.

    Raises:
        ValueError: no dataset, or one without episodes.
    """
    root = Path(root).resolve()
    finish_recording(root)
    info = read_info(root)
    columns = _columns(info)
    folder = root.with_name(root.name + ".cache")
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        manifest = _bring_up_to_date(root, info, columns, folder)
        rows = _num_rows(manifest)
        if not rows:
            raise ValueError(f"{root} has no episodes yet")
        vectors = {name: columns[name].open(_file(folder, name), rows) for name in _VECTORS}
        frames = {
            name.removeprefix("frames."): FrameFile(_file(folder, name), rows, column.shape)
            for name, column in columns.items()
            if name not in _VECTORS
        }
    return CachedDataset(
        root=root,
        info=info,
        episodes=manifest["episodes"],
        frames=frames,
        vectors=vectors,
    )


def _columns(info: Mapping[str, Any]) -> dict[str, _Column]:
    features = info["features"]
    columns = {
        name: _Column(key, "float32", tuple(features[key]["shape"]) if key in features else (0,))
        for name, key in _VECTORS.items()
    }
    for camera in cameras(features):
        key = camera if camera in features else schema.IMAGE_PREFIX + camera
        columns[f"frames.{camera}"] = _Column(camera, "uint8", tuple(features[key]["shape"]))
    return columns


def _load_manifest(columns: dict[str, _Column], folder: Path, sources: list[list[Any]]) -> dict[str, Any]:
    """The manifest of what is cached; an empty one, and no files, where that is not the beginning of the dataset."""
    layout = {name: [column.dtype, *column.shape] for name, column in columns.items()}
    fresh: dict[str, Any] = {"format": _FORMAT, "layout": layout, "sources": [], "episodes": []}
    path = folder / _MANIFEST
    manifest: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else fresh
    known, rows = manifest["sources"], _num_rows(manifest)
    whole = all(_size(_file(folder, name)) >= rows * column.row_bytes for name, column in columns.items())
    same_kind = {**manifest, "sources": [], "episodes": []} == fresh
    if known and whole and same_kind and known == sources[: len(known)]:
        return manifest
    path.unlink(missing_ok=True)
    for name in columns:
        _file(folder, name).unlink(missing_ok=True)
    return fresh


def _bring_up_to_date(root: Path, info: dict[str, Any], columns: dict[str, _Column], folder: Path) -> dict[str, Any]:
    """Decode the episodes that are not in the cache, and name them in its manifest."""
    files = episode_files(root)
    sources = [_signature(file) for file in files]
    manifest = _load_manifest(columns, folder, sources)
    rows, known = _num_rows(manifest), len(manifest["sources"])
    if known == len(sources):
        return manifest
    pending = list(zip(files, sources, strict=True))[known:]
    quiet = len(pending) < _EPISODES_PER_COMMIT
    with ExitStack() as stack:
        outputs = {
            name: stack.enter_context(_append_at(_file(folder, name), rows * column.row_bytes))
            for name, column in columns.items()
        }
        for done, (file, source) in enumerate(
            track(pending, f"decoding {root.name}", transient=True, disable=quiet), 1
        ):
            for row in read_rows(file):
                _write_rows(read_episode(root, info, row), columns, outputs)
                manifest["episodes"].append(row)
            manifest["sources"].append(source)
            if done % _EPISODES_PER_COMMIT == 0 or done == len(pending):
                for output in outputs.values():
                    output.flush()
                    os.fsync(output.fileno())
                write_whole(folder / _MANIFEST, json.dumps(manifest))
    return manifest


def _num_rows(manifest: dict[str, Any]) -> int:
    return sum(episode["length"] for episode in manifest["episodes"])


def _write_rows(episode: StoredEpisode, columns: dict[str, _Column], outputs: dict[str, BinaryIO]) -> None:
    for name, column in columns.items():
        values = episode.columns if name in _VECTORS else episode.frames
        if column.row_bytes:
            np.ascontiguousarray(values[column.key], column.dtype).tofile(outputs[name])


def _append_at(path: Path, size: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _signature(path: Path) -> list[Any]:
    status = path.stat()
    return [f"{path.parent.name}/{path.name}", status.st_size, status.st_mtime_ns]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
