"""A dataset decoded once into flat files, so that reading a training row is a memory copy.

The cache of the dataset `demos/` is `demos.cache/` beside it, or in a given folder, and may be deleted at any time:

    frames.<camera>.bin     uint8 [R, H, W, 3], the rows of all episodes concatenated; frames of videos, and those that
                            were resized, are [R, 3/2 H, W], YUV 4:2:0 (vla_model/inputs/fit.py)
    state.bin action.bin localization.bin     float32 [R, D], as recorded
    task_index.bin          int64 [R, 1]
    manifest.json           the episodes of those rows, and the files that each was read from: size, mtime, ctime (which
                            programs cannot set) and inode

A dataset only grows, so the cache is extended: rows are appended, and become valid when the manifest, replaced
atomically, lists them. Rows that a killed process appended beyond the manifest are truncated by the next one. If a
source file has changed, the cache's files are deleted, never rewritten, so that open readers are not affected.

An episode that is left out is listed as one of length 0; when it is wanted after all, the cache is made again.

Shape letters: R rows of all episodes, D vector elements, H x W pixels.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import Progress

from envs.errors import UserError
from envs.types import WorldSpec
from rollout.dataset import schema
from rollout.dataset.check import check_numbers, recordings_of
from rollout.dataset.decode import CameraFile, decode, decoding_bar
from rollout.dataset.foreign.features import features_of
from rollout.dataset.read import (
    cameras,
    episode_files,
    files_of,
    read_episodes,
    read_info,
    read_rows,
    read_vectors,
)
from vla_model.files.folders import read_json, write_json
from vla_model.inputs.conversion import Conversion
from vla_model.inputs.fit import to_rgb

_FORMAT = 2
VECTORS = {"state": schema.STATE, "action": schema.ACTION, "localization": schema.LOCALIZATION}
_TASK = "task_index"
_FRAMES = "frames."
_EPISODES_PER_COMMIT = 256
_QUIET_FRAMES = 5000
"""Fewer frames, of fewer episodes, are decoded without a progress bar."""
_MANIFEST = "manifest.json"
_LEFT_OUT = "left_out"


class FrameFile:
    """Frames of one camera, read on demand.

    Not a memory map: that would count every frame read as resident memory of this process.
    """

    def __init__(self, path: Path, num_rows: int, stored: tuple[int, ...]) -> None:
        """
        Args:
            path: of the file.
            num_rows: R.
            stored: shape of a stored frame: CameraFile.stored.
        """
        self._is_rgb = len(stored) == 3
        self.shape = (num_rows, *(stored if self._is_rgb else (2 * stored[0] // 3, stored[1], 3)))
        """(R, H, W, 3)"""
        self._stored = stored
        self._file = path.open("rb")

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy these rows, [B], to `out`, contiguous RGB [B, H, W, 3]."""
        row_bytes = math.prod(self._stored)
        yuv = np.empty(self._stored, np.uint8)
        for row, frame in zip(rows.tolist(), out, strict=True):
            stored = frame if self._is_rgb else yuv
            count = os.preadv(self._file.fileno(), [stored.data], row * row_bytes)
            assert count == row_bytes, f"{self._file.name} ends within row {row}"
            if not self._is_rgb:
                to_rgb(yuv, frame)


@dataclass(frozen=True, kw_only=True)
class CachedDataset:
    """A dataset's rows: frames in open files, vectors as memory maps."""

    root: Path
    info: dict[str, Any]
    """info.json."""
    episodes: list[dict[str, Any]]
    """Rows of meta/episodes in order, of the cached episodes."""
    frames: dict[str, FrameFile]
    """By camera."""
    vectors: dict[str, NDArray[np.float32]]
    """{"state", "action", "localization": [R, D]}; localization has D = 0 if the dataset has no such labels."""
    tasks: NDArray[np.int64]
    """task_index of each row, [R, 1]; [R, 0] if the dataset has no such column."""


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


def check_pending(
    root: str | Path,
    place: str | Path = "",
    *,
    cloned: bool,
    left_out: Collection[int] = (),
    world_spec: WorldSpec | None = None,
    conversion: Conversion | None = None,
) -> None:
    """Check the numbers of episodes that are not cached yet, so that an invalid dataset leaves no cache.

    Args:
        root: of the dataset.
        place: as for `open_cache`.
        cloned: whether the dataset's actions are training targets.
        left_out: as for `open_cache`.
        world_spec: as for `open_cache`.
        conversion: as for `open_cache`.

    Raises:
        UserError: as `check_numbers`, or a file is damaged.
    """
    cache = _Cache(root, place, left_out, world_spec, conversion)
    rows = [row for _, row in cache.pending(cache.load() or cache.fresh()) if row["length"]]
    if not rows:
        return
    if cache.conversion is not None:
        recordings_of(cache.root, cache.info, rows)
        return
    vectors = read_vectors(cache.root, cache.info, rows, list(VECTORS.values()))
    check_numbers(str(cache.root), cache.info, vectors, cloned=cloned, episodes=rows)


def open_cache(
    root: str | Path,
    place: str | Path = "",
    *,
    left_out: Collection[int] = (),
    world_spec: WorldSpec | None = None,
    conversion: Conversion | None = None,
) -> CachedDataset:
    """The decoded rows of a dataset; decodes what is not cached yet. Waits for another process that does so.

    Args:
        root: of the dataset.
        place: folder of caches; beside the dataset if not given.
        left_out: numbers of episodes that are not decoded.
        world_spec: of the policy; needed for a recording of another program.
        conversion: likewise.

    Raises:
        UserError: no dataset, one without episodes or with a damaged file, or the cache cannot be written.
    """
    cache = _Cache(root, place, left_out, world_spec, conversion)
    if not any(row["length"] for row in read_episodes(cache.root, left_out)):
        raise UserError(f"{cache.root} has no episodes yet")
    try:
        with cache.locked():
            return cache.opened(cache.brought_up_to_date())
    except OSError as error:
        # A complete cache can be used from a read-only folder.
        manifest = None
        with suppress(OSError):
            manifest = cache.load()
        if manifest is not None and not cache.pending(manifest):
            return cache.opened(manifest)
        raise UserError(
            f"the decoded frames of {cache.root} cannot be written to {cache.folder} "
            f"({error.strerror or error}); name a folder with enough space with --cache"
        ) from error


class _Cache:
    """The cache of one dataset."""

    def __init__(
        self,
        root: str | Path,
        place: str | Path,
        left_out: Collection[int],
        world_spec: WorldSpec | None,
        conversion: Conversion | None,
    ) -> None:
        """
        Raises:
            UserError: no dataset.
        """
        self.root = Path(root).resolve()
        self.info = read_info(self.root)
        self._left_out = left_out
        self.conversion = None if schema.is_own(self.info) else conversion
        name = f"{self.root.name}.cache"
        if place:  # may hold the caches of several datasets with the same name
            name = f"{hashlib.sha256(str(self.root).encode()).hexdigest()[:12]}.{name}"
        self.folder = Path(place or self.root.parent) / name
        self._vectors = _columns(self.root, self.info, self.conversion)
        found = camera_files(self.root, self.info, world_spec, self.conversion)
        self._cameras = {_FRAMES + name: camera for name, camera in found.items()}
        self._keys = {camera.key for camera in self._cameras.values()}

    @contextmanager
    def locked(self) -> Generator[None]:
        """Exclude other processes from writing the cache."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            yield

    def fresh(self) -> dict[str, Any]:
        """The manifest of an empty cache."""
        layout = {name: [column.dtype, *column.shape] for name, column in self._vectors.items()}
        layout |= {name: ["uint8", *camera.stored] for name, camera in self._cameras.items()}
        decoding = {key: self.info.get(key) for key in ("features", "fps", "data_path", "video_path")}
        if self.conversion is not None:
            decoding["read"] = {name: [camera.key, camera.fit] for name, camera in self._cameras.items()}
        return {"format": _FORMAT, "layout": layout, "decoding": decoding, "sources": [], "episodes": []}

    def load(self) -> dict[str, Any] | None:
        """The manifest; None if it is missing or does not match the beginning of the dataset."""
        path, fresh = self.folder / _MANIFEST, self.fresh()
        if not path.exists():
            return None
        try:
            manifest = read_json(path, fresh)
            return manifest if {**manifest, "sources": [], "episodes": []} == fresh and self._holds(manifest) else None
        except (ValueError, KeyError, TypeError, IndexError):  # a damaged cache is rebuilt
            return None

    def pending(self, manifest: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
        """The episodes that are not cached, each with the file that lists it."""
        known, files = _listed_in(manifest), episode_files(self.root)
        last = max(len(known) - 1, 0)  # the last of the known files may list more
        found = [(file, self._wanted(row)) for file in files[last:] for row in read_rows(file)]
        return found[list(known.values())[-1] if known else 0 :]

    def _wanted(self, row: dict[str, Any]) -> dict[str, Any]:
        """An episode as listed in the manifest."""
        return row | {"length": 0, _LEFT_OUT: True} if row["episode_index"] in self._left_out else row

    def _holds(self, manifest: dict[str, Any]) -> bool:
        """Whether the cached files are complete, and the source files unchanged and the first of the dataset's."""
        rows = _num_rows(manifest)
        if any(_size(self._file(name)) < rows * row_bytes for name, row_bytes in self._row_bytes.items()):
            return False
        if any(row.get(_LEFT_OUT) and row["episode_index"] not in self._left_out for row in manifest["episodes"]):
            return False
        known, files = _listed_in(manifest), episode_files(self.root)
        if list(known) != [str(file.relative_to(self.root)) for file in files[: len(known)]]:
            return False
        entries = {entry[0]: entry for source in manifest["sources"] for entry in source}
        return all(self._signature(name) == entry for name, entry in entries.items())

    def brought_up_to_date(self) -> dict[str, Any]:
        """Decode the episodes that are not cached, and list them in the manifest."""
        manifest = self.load()
        if manifest is None:
            manifest = self.fresh()
            (self.folder / _MANIFEST).unlink(missing_ok=True)
            for name in self._row_bytes:
                self._file(name).unlink(missing_ok=True)
        if pending := self.pending(manifest):
            self._decode(pending, manifest)
        return manifest

    def opened(self, manifest: dict[str, Any]) -> CachedDataset:
        """The rows that the manifest lists."""
        rows = _num_rows(manifest)
        arrays = {name: column.open(self._file(name), rows) for name, column in self._vectors.items()}
        frames = {
            name.removeprefix(_FRAMES): FrameFile(self._file(name), rows, camera.stored)
            for name, camera in self._cameras.items()
        }
        tasks = arrays.pop(_TASK)
        if self.conversion is not None:
            arrays["action"] = self.conversion.actions(arrays["action"])
        return CachedDataset(
            root=self.root,
            info=self.info,
            episodes=[row for row in manifest["episodes"] if row["length"]],
            frames=frames,
            vectors=arrays,
            tasks=tasks,
        )

    @cached_property
    def _row_bytes(self) -> dict[str, int]:
        """Of every file of the cache."""
        vectors = {name: column.row_bytes for name, column in self._vectors.items()}
        return vectors | {name: camera.frame_bytes for name, camera in self._cameras.items()}

    def _decode(self, pending: Sequence[tuple[Path, dict[str, Any]]], manifest: dict[str, Any]) -> None:
        rows, count = _num_rows(manifest), sum(row["length"] for _, row in pending)
        quiet = len(pending) < _EPISODES_PER_COMMIT and count < _QUIET_FRAMES
        try:
            with ExitStack() as stack:
                outputs = {
                    name: stack.enter_context(_append_at(self._file(name), rows * row_bytes))
                    for name, row_bytes in self._row_bytes.items()
                }
                bar = stack.enter_context(decoding_bar(self.root.name, count * len(self._cameras), quiet=quiet))
                for i in range(0, len(pending), _EPISODES_PER_COMMIT):
                    self._append(pending[i : i + _EPISODES_PER_COMMIT], manifest, outputs, bar)
                    for output in outputs.values():
                        output.flush()
                        os.fsync(output.fileno())
                    write_json(self.folder / _MANIFEST, manifest, indent=None)
                    rows = _num_rows(manifest)
        except BaseException:
            for name, row_bytes in self._row_bytes.items():  # free the space of rows that the manifest does not list
                with suppress(OSError):
                    os.truncate(self._file(name), rows * row_bytes)
            raise

    def _append(
        self,
        pending: Sequence[tuple[Path, dict[str, Any]]],
        manifest: dict[str, Any],
        outputs: Mapping[str, BinaryIO],
        bar: Progress,
    ) -> None:
        """Decode some episodes."""
        # Taken before reading: a file that changes meanwhile has another signature afterwards.
        sources, signed = [], functools.cache(self._signature)
        for file, row in pending:
            decoded = files_of(self.root, self.info, row, self._keys) if row["length"] else []
            read = dict.fromkeys([file, *decoded])
            sources.append([signed(str(path.relative_to(self.root))) for path in read])
        rows, first = [row for _, row in pending if row["length"]], _num_rows(manifest)
        manifest["episodes"] += [row for _, row in pending]
        manifest["sources"] += sources
        if not rows:
            return
        vectors = read_vectors(self.root, self.info, rows, [column.key for column in self._vectors.values()])
        for name, column in self._vectors.items():
            if column.row_bytes:
                values = np.ascontiguousarray(vectors[column.key], column.dtype)
                os.pwrite(outputs[name].fileno(), values.data, first * column.row_bytes)
        starts = np.cumsum([first, *(row["length"] for row in rows)]).tolist()
        cameras = [(camera, outputs[name].fileno()) for name, camera in self._cameras.items()]
        decode(self.root, self.info, list(zip(starts, rows, strict=False)), cameras, bar)

    def _signature(self, name: str) -> list[Any]:
        """Signature of a file of the dataset, by its relative path."""
        path = self.root / name
        if not path.exists():
            return [name]
        status = path.stat()
        # Timestamps have a resolution of some milliseconds, in which a program may write a file twice.
        return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.bin"


def camera_files(
    root: Path, info: dict[str, Any], world_spec: WorldSpec | None, conversion: Conversion | None
) -> dict[str, CameraFile]:
    """The cameras of a cache: with a WorldSpec everything as recorded, else the policy's cameras at its size.

    Args:
        root: of the dataset, for messages.
        info: info.json.
        world_spec: as for `open_cache`.
        conversion: as for `open_cache`.
    """
    features, files = info["features"], {}
    if conversion is None or world_spec is None:
        for camera in cameras(features):
            key = camera if camera in features else schema.IMAGE_PREFIX + camera
            feature = features[key]
            is_video, (height, width, _) = feature["dtype"] == "video", feature["shape"]
            size = height, width
            files[camera] = CameraFile(key=key, is_video=is_video, size=size, stored=_stored(size, size, is_video))
        return files
    recorded = {conversion.camera_name(camera.name): camera for camera in features_of(info, str(root)).cameras}
    for spec in world_spec.cameras:
        key, size = recorded[spec.name].key, (recorded[spec.name].height, recorded[spec.name].width)
        is_video = features[key]["dtype"] == "video"
        stored = _stored((spec.height, spec.width), size, is_video)
        files[spec.name] = CameraFile(key=key, is_video=is_video, size=size, stored=stored, fit=conversion.fit)
    return files


def _stored(size: tuple[int, int], recorded: tuple[int, int], is_video: bool) -> tuple[int, ...]:
    """The shape in which frames are stored: as planes, unless those would lose colour that was recorded."""
    height, width = size
    of_video = is_video and height % 2 == width % 2 == 0
    return (3 * height // 2, width) if of_video or size != recorded else (height, width, 3)


def _columns(root: Path, info: dict[str, Any], conversion: Conversion | None) -> dict[str, _Column]:
    """The vectors of a cache."""
    features = info["features"]
    if conversion is None:
        keys = {name: key if key in features else None for name, key in VECTORS.items()}
    else:
        used = features_of(info, str(root))
        keys = {"state": used.state_key, "action": used.action_key, "localization": None}
    keys[_TASK] = _TASK if _TASK in features else None
    return {
        name: _Column(
            key or name,
            "int64" if name == _TASK else "float32",
            tuple(features[key]["shape"]) if key is not None else (0,),
        )
        for name, key in keys.items()
    }


def _listed_in(manifest: dict[str, Any]) -> dict[str, int]:
    """{file that lists episodes: how many of them are cached}, in order."""
    return dict(Counter(source[0][0] for source in manifest["sources"]))


def _num_rows(manifest: dict[str, Any]) -> int:
    return sum(episode["length"] for episode in manifest["episodes"])


def _append_at(path: Path, size: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
