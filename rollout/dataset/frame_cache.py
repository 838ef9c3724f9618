"""A dataset decoded once into flat files, so that reading a training row is a memory copy.

The cache of the dataset `demos/` is `demos.cache/` beside it, or in a given folder, and may be deleted at any time:

    frames.<camera>.bin     uint8 [R, H, W, 3], the rows of all episodes concatenated
    state.bin action.bin localization.bin     float32 [R, D]
    task_index.bin          int64 [R, 1]
    manifest.json           the episodes of those rows, and the files they were read from: size, mtime, ctime (which
                            programs cannot set) and inode

A dataset only grows, so the cache is extended: rows are appended, and become valid when the manifest, replaced
atomically, lists them. Rows that a killed process appended beyond the manifest are truncated by the next one. If a
source file has changed, the cache's files are deleted, never rewritten, so that open readers are not affected.

Shape letters: R rows of all episodes, D vector elements, H x W pixels.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track

from envs.errors import UserError
from rollout.dataset import schema
from rollout.dataset.check import check_numbers
from rollout.dataset.read import (
    StoredEpisode,
    cameras,
    episode_files,
    files_of,
    read_episode,
    read_info,
    read_rows,
    read_vectors,
)
from vla_model.files.folders import read_json, write_json

_FORMAT = 2
VECTORS = {"state": schema.STATE, "action": schema.ACTION, "localization": schema.LOCALIZATION}
_TASK = "task_index"
_EPISODES_PER_COMMIT = 256
_MANIFEST = "manifest.json"


class FrameFile:
    """Frames of one camera, read on demand.

    Not a memory map: that would count every frame read as resident memory of this process.
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
    """A dataset's rows: frames in open files, vectors as memory maps."""

    root: Path
    info: dict[str, Any]
    """info.json."""
    episodes: list[dict[str, Any]]
    """Rows of meta/episodes in order."""
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


def check_pending(root: str | Path, place: str | Path = "", *, cloned: bool) -> None:
    """Check the numbers of episodes that are not cached yet, so that an invalid dataset leaves no cache.

    Args:
        root: of the dataset.
        place: as for `open_cache`.
        cloned: whether the dataset's actions are training targets.

    Raises:
        UserError: as `check_numbers`, or a file is damaged.
    """
    cache = _Cache(root, place)
    files = episode_files(cache.root)
    known = len((cache.load(files) or cache.fresh())["sources"])
    rows = [row for file in files[known:] for row in read_rows(file)]
    if rows:
        vectors = read_vectors(cache.root, cache.info, rows, list(VECTORS.values()))
        lengths = [row["length"] for row in rows]
        check_numbers(str(cache.root), cache.info, vectors, cloned=cloned, lengths=lengths)


def open_cache(root: str | Path, place: str | Path = "") -> CachedDataset:
    """The decoded rows of a dataset; decodes what is not cached yet. Waits for another process that does so.

    Args:
        root: of the dataset.
        place: folder of caches; beside the dataset if not given.

    Raises:
        UserError: no dataset, one without episodes or with a damaged file, or the cache cannot be written.
    """
    cache = _Cache(root, place)
    if not any(row["length"] for file in episode_files(cache.root) for row in read_rows(file)):
        raise UserError(f"{cache.root} has no episodes yet")
    try:
        with cache.locked():
            return cache.opened(cache.brought_up_to_date())
    except OSError as error:
        # A complete cache can be used from a read-only folder.
        manifest, files = None, episode_files(cache.root)
        with suppress(OSError):
            manifest = cache.load(files)
        if manifest is not None and len(manifest["sources"]) == len(files):
            return cache.opened(manifest)
        raise UserError(
            f"the decoded frames of {cache.root} cannot be written to {cache.folder} "
            f"({error.strerror or error}); name a folder with enough space with --cache"
        ) from error


class _Cache:
    """The cache of one dataset."""

    def __init__(self, root: str | Path, place: str | Path) -> None:
        """
        Raises:
            UserError: no dataset.
        """
        self.root = Path(root).resolve()
        self.info = read_info(self.root)
        name = f"{self.root.name}.cache"
        if place:  # may hold the caches of several datasets with the same name
            name = f"{hashlib.sha256(str(self.root).encode()).hexdigest()[:12]}.{name}"
        self.folder = Path(place or self.root.parent) / name
        self._columns = _columns(self.info)

    @contextmanager
    def locked(self) -> Generator[None]:
        """Exclude other processes from writing the cache."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            yield

    def fresh(self) -> dict[str, Any]:
        """The manifest of an empty cache."""
        layout = {name: [column.dtype, *column.shape] for name, column in self._columns.items()}
        decoding = {key: self.info.get(key) for key in ("features", "fps", "data_path", "video_path")}
        return {"format": _FORMAT, "layout": layout, "decoding": decoding, "sources": [], "episodes": []}

    def load(self, files: Sequence[Path]) -> dict[str, Any] | None:
        """The manifest; None if it is missing or does not match the beginning of the dataset.

        Args:
            files: the dataset's files in meta/episodes.
        """
        path, fresh = self.folder / _MANIFEST, self.fresh()
        if not path.exists():
            return None
        try:
            manifest = read_json(path, fresh)
            return (
                manifest
                if {**manifest, "sources": [], "episodes": []} == fresh and self._holds(manifest, files)
                else None
            )
        except (ValueError, KeyError, TypeError, IndexError):  # a damaged cache is rebuilt
            return None

    def _holds(self, manifest: dict[str, Any], files: Sequence[Path]) -> bool:
        """Whether the cached files are complete, and the source files unchanged and the first of `files`."""
        sources, rows = manifest["sources"], _num_rows(manifest)
        if any(_size(self._file(name)) < rows * column.row_bytes for name, column in self._columns.items()):
            return False
        first = [source[0][0] for source in sources]
        if first != [str(file.relative_to(self.root)) for file in files[: len(first)]]:
            return False
        return all(self._signature(entry[0]) == entry for source in sources for entry in source)

    def brought_up_to_date(self) -> dict[str, Any]:
        """Decode the episodes that are not cached, and list them in the manifest."""
        files = episode_files(self.root)
        manifest = self.load(files)
        if manifest is None:
            manifest = self.fresh()
            (self.folder / _MANIFEST).unlink(missing_ok=True)
            for name in self._columns:
                self._file(name).unlink(missing_ok=True)
        pending = files[len(manifest["sources"]) :]
        if pending:
            self._decode(pending, manifest)
        return manifest

    def opened(self, manifest: dict[str, Any]) -> CachedDataset:
        """The rows that the manifest lists."""
        rows = _num_rows(manifest)
        numbers = (*VECTORS, _TASK)
        arrays = {name: self._columns[name].open(self._file(name), rows) for name in numbers}
        frames = {
            name.removeprefix("frames."): FrameFile(self._file(name), rows, column.shape)
            for name, column in self._columns.items()
            if name not in numbers
        }
        tasks = arrays.pop(_TASK)
        return CachedDataset(
            root=self.root, info=self.info, episodes=manifest["episodes"], frames=frames, vectors=arrays, tasks=tasks
        )

    def _decode(self, pending: Sequence[Path], manifest: dict[str, Any]) -> None:
        rows, quiet = _num_rows(manifest), len(pending) < _EPISODES_PER_COMMIT
        try:
            with ExitStack() as stack:
                outputs = {
                    name: stack.enter_context(_append_at(self._file(name), rows * column.row_bytes))
                    for name, column in self._columns.items()
                }
                named = track(pending, f"decoding {self.root.name}", transient=True, disable=quiet)
                for done, file in enumerate(named, 1):
                    self._append(file, manifest, outputs)
                    if done % _EPISODES_PER_COMMIT == 0 or done == len(pending):
                        for output in outputs.values():
                            output.flush()
                            os.fsync(output.fileno())
                        write_json(self.folder / _MANIFEST, manifest, indent=None)
                        rows = _num_rows(manifest)
        except BaseException:
            for name, column in self._columns.items():  # free the space of rows that the manifest does not list
                with suppress(OSError):
                    os.truncate(self._file(name), rows * column.row_bytes)
            raise

    def _append(self, file: Path, manifest: dict[str, Any], outputs: Mapping[str, BinaryIO]) -> None:
        """The episodes of one file of meta/episodes."""
        own = read_rows(file)
        read = dict.fromkeys([file, *(path for row in own for path in files_of(self.root, self.info, row))])
        # Taken before reading: a file that changes meanwhile has another signature afterwards.
        source = [self._signature(str(path.relative_to(self.root))) for path in read]
        for row in own:
            _write_rows(read_episode(self.root, self.info, row), self._columns, outputs)
            manifest["episodes"].append(row)
        manifest["sources"].append(source)

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


def _columns(info: Mapping[str, Any]) -> dict[str, _Column]:
    features = info["features"]
    columns = {
        name: _Column(key, "float32", tuple(features[key]["shape"]) if key in features else (0,))
        for name, key in VECTORS.items()
    }
    columns[_TASK] = _Column(_TASK, "int64", (1,) if _TASK in features else (0,))
    for camera in cameras(features):
        key = camera if camera in features else schema.IMAGE_PREFIX + camera
        columns[f"frames.{camera}"] = _Column(camera, "uint8", tuple(features[key]["shape"]))
    return columns


def _num_rows(manifest: dict[str, Any]) -> int:
    return sum(episode["length"] for episode in manifest["episodes"])


def _write_rows(episode: StoredEpisode, columns: Mapping[str, _Column], outputs: Mapping[str, BinaryIO]) -> None:
    for name, column in columns.items():
        values = episode.frames if name.startswith("frames.") else episode.columns
        if column.row_bytes:
            np.ascontiguousarray(values[column.key], column.dtype).tofile(outputs[name])


def _append_at(path: Path, size: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
