"""Spool file of a recording before it becomes an episode of a dataset: grows by one row per control period.

    control loop                                    writer thread
      add(...): queues a row, does not block ─────►   appends it to the file
      close(): blocks until every row is written

Who waits: the thread, for a row; the control loop, only while `_QUEUED_ROWS` are unwritten, at most `_PUT_TIMEOUT_S`.
So memory is bounded, and a disk that is too slow ends the recording with an error.
Order rule: rows are written in the order in which they were added.

The file, meta/recording.arrows in the dataset's folder, holds Arrow messages: the schema, then one batch per row, each
preceded by its length and checksum, because Arrow itself cannot recover from a damaged message. Frames are stored
uncompressed: compression takes longer than a control period, and is done at the end. A killed process loses the rows
still queued (one at most, if the disk keeps up) and leaves at most the last row of the file incomplete. The next
process that opens the dataset for writing or training turns the complete rows into an episode
(rollout/dataset/write.py).

Shape letters: T rows, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from envs.types import EpisodeSpec, WorldSpec
from rollout.types import Trajectory

SPOOL_PATH = "meta/recording.arrows"

_QUEUED_ROWS = 64
_PUT_TIMEOUT_S = 30.0
_VECTORS = ("state", "action", "localization")
_MARKS = ("intervention", "held")
_CAMERA = "camera."
_HEADER = b"llamarm"
_BEFORE = struct.Struct("<II")
"""Header of each message: its length and its CRC-32."""


class RecordingError(OSError):
    """Rows can no longer be written: __cause__ is why."""


class Spool:
    """Writes the rows of one episode."""

    def __init__(
        self, path: Path, world_spec: WorldSpec, spec: EpisodeSpec, instruction: str, policy_version: int
    ) -> None:
        """Create the file.

        Args:
            path: must not exist.
            world_spec: of the robot or world.
            spec: identifies the episode in its dataset.
            instruction: of the episode.
            policy_version: of the weights that act.

        Raises:
            OSError: it cannot be created, or exists.
        """
        self.path = path
        self.num_rows = 0
        """Number of rows added."""
        header = {
            "spec": dataclasses.asdict(spec),
            "instruction": instruction,
            "policy_version": policy_version,
            "cameras": {camera.name: [camera.height, camera.width, 3] for camera in world_spec.cameras},
        }
        fields = [(name, pa.list_(pa.float32(), getattr(world_spec, name).size)) for name in _VECTORS]
        fields += [(name, pa.bool_()) for name in _MARKS]
        fields += [(_CAMERA + camera.name, pa.binary()) for camera in world_spec.cameras]
        self._schema = pa.schema(fields, {_HEADER: json.dumps(header)})
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue(_QUEUED_ROWS)
        self._failed: BaseException | None = None
        self._raised = False  # whether `add` has raised the failure
        self._file = path.open("xb", buffering=0)  # a buffer would be flushed, and fail, again in `close`
        self._put(self._schema.serialize())
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    def add(
        self,
        *,
        frames: Mapping[str, NDArray[np.uint8]] | None,
        state: NDArray[np.float32],
        action: NDArray[np.float32],
        localization: NDArray[np.float32],
        intervention: bool,
        held: bool,
    ) -> None:
        """Add a row. Arrays are copied, so the caller may reuse them.

        Args:
            frames: {camera: [H, W, 3]}; None to repeat those of the previous row.
            state: [S].
            action: [A], executed.
            localization: [L].
            intervention: whether a person acted.
            held: whether the action is not to be cloned (rollout/types.py).

        Raises:
            RecordingError: rows can no longer be written.
        """
        row: dict[str, Any] = {name: None for name in self._schema.names if name.startswith(_CAMERA)}
        row |= {
            _CAMERA + camera: frame.tobytes() for camera, frame in (frames or {}).items() if _CAMERA + camera in row
        }
        row |= {"state": state.tolist(), "action": action.tolist(), "localization": localization.tolist()}
        row |= {"intervention": intervention, "held": held}
        self._check()
        try:
            self._rows.put(row, timeout=_PUT_TIMEOUT_S)
        except queue.Full as full:
            raise RecordingError(f"{self.path} took no row for {_PUT_TIMEOUT_S:g} s: the disk is too slow") from full
        self.num_rows += 1

    def close(self) -> None:
        """Write the queued rows and close the file.

        Raises:
            RecordingError: not every row could be written, and no `add` has raised it.
        """
        if self._thread.is_alive():
            self._rows.put(None)
        self._thread.join()
        self._file.close()
        if not self._raised:
            self._check()

    def _check(self) -> None:
        if self._failed is not None:
            self._raised = True
            number = getattr(self._failed, "errno", None)
            raise RecordingError(number, f"{self.path} cannot be written: {self._failed}") from self._failed

    def _write(self) -> None:
        while (row := self._rows.get()) is not None:
            if self._failed is not None:
                continue  # keep emptying the queue, so that `add` does not block
            try:
                self._append(row)
            except Exception as error:  # raised by the next `add`
                self._failed = error

    def _append(self, row: dict[str, Any]) -> None:
        self._put(pa.RecordBatch.from_pylist([row], self._schema).serialize())

    def _put(self, message: pa.Buffer) -> None:
        left = memoryview(_BEFORE.pack(message.size, zlib.crc32(message)) + message.to_pybytes())
        while left:
            left = left[self._file.write(left) :]


class SpooledFrames:
    """Frames of one camera in a spool file; every iteration reads from the beginning."""

    def __init__(self, path: Path, camera: str, shape: tuple[int, ...]) -> None:
        self.shape = shape
        """(T, H, W, 3)"""
        self._path = path
        self._name = _CAMERA + camera

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        last = b""
        for _, batch in zip(range(len(self)), _batches(self._path), strict=False):
            last = batch.column(self._name)[0].as_py() or last
            yield np.frombuffer(last, np.uint8).reshape(self.shape[1:])


class Spooled:
    """The complete rows of a spool file."""

    def __init__(self, path: Path) -> None:
        rows: dict[str, list[Any]] = {name: [] for name in (*_VECTORS, *_MARKS)}
        schema: pa.Schema | None = None
        for batch in _batches(path):
            schema = batch.schema
            for name, values in rows.items():
                values.append(batch.column(name)[0].as_py())
        self.num_rows = len(rows["state"])
        self._header: dict[str, Any] = json.loads(schema.metadata[_HEADER]) if schema is not None else {}
        self._rows = rows
        self.frames = {
            camera: SpooledFrames(path, camera, (self.num_rows, *shape))
            for camera, shape in self._header.get("cameras", {}).items()
        }
        """By camera."""

    def trajectory(self, *, success: bool, ended: str, duration_s: float = 0.0) -> Trajectory:
        """The recording as a trajectory without frames; needs at least one row.

        Args:
            success: if so, the reward of the last row is 1; all others are 0.
            ended: why the episode ended; its failure unless success.
            duration_s: of the recording.
        """
        vectors: dict[str, Any] = {
            name: np.array(self._rows[name], np.float32).reshape(self.num_rows, len(self._rows[name][0]))
            for name in _VECTORS
        }
        reward = np.zeros(self.num_rows, np.float32)
        reward[-1] = success
        return Trajectory(
            spec=EpisodeSpec(**self._header["spec"]),
            instruction=self._header["instruction"],
            frames={},
            frame_step=np.arange(self.num_rows),
            decision_step=np.zeros(0, np.int64),
            # A robot outside the range of actions gets commands above 1, which a policy cannot output.
            label=vectors["action"].clip(-1.0, 1.0),
            reward_terms={"success": reward},
            reward=reward,
            success=success,
            terminated=success,
            truncated=not success,
            failure=None if success else ended,
            policy_version=self._header["policy_version"],
            duration_s=duration_s,
            **vectors,
            intervention=np.array(self._rows["intervention"], bool),
            held=np.array(self._rows["held"], bool),
        )


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a file up to its end or the first incomplete or damaged row."""
    with path.open("rb") as file:
        messages = map(pa.py_buffer, _messages(file))
        if (first := next(messages, None)) is not None:
            schema = pa.ipc.read_schema(first)
            for message in messages:
                yield pa.ipc.read_record_batch(message, schema)


def _messages(file: BinaryIO) -> Iterator[bytes]:
    while len(before := file.read(_BEFORE.size)) == _BEFORE.size:
        length, checksum = _BEFORE.unpack(before)
        message = file.read(length)
        if not length or len(message) < length or zlib.crc32(message) != checksum:
            return
        yield message
