"""Datasets -> random training batches, prefetched so that the learner does not wait.

The batch of step s with seed r is a pure function of (r, s): rows `s*B .. s*B+B-1` of an endless sequence that visits
every row once per epoch, shuffled anew in each. So a run resumed at step s gets the same batches.

The target of row t is the chunk of its next K actions. `mask` is False, and a loss must not count the action, where

    - the episode has ended: the chunk repeats the last action, which for relative motions would train the policy to
      keep moving after it is done. (A gripper's last command remains valid: `ended` marks where it may be a target.)
    - the robot is held (Trajectory.held), from there to the end of the chunk;
    - the episode failed, or its dataset is for auxiliary losses only, if so configured. The frames of such episodes
      still train the localization losses.

For a model with history a row has the earlier rows that the model would have observed (inputs/history.py).

Shape letters: B batch, K chunk size, A action dims, S state dims, L localization dims, R rows, H x W pixels,
n earlier observations, F predicted future states.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import WorldSpec
from rollout.dataset import schema
from rollout.dataset.check import check_numbers, check_worlds
from rollout.dataset.foreign.features import features_of
from rollout.dataset.foreign.outcomes import unused_episodes
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.frame_cache import VECTORS, CachedDataset, FrameFile, check_pending, open_cache
from rollout.dataset.keyframes import NEVER, keyframes, next_of, waypoints
from rollout.dataset.read import read_marks, read_stats, read_tasks
from rollout.dataset.segments import keep_part, split_by_task, succeeded, training_segments
from rollout.dataset.statistics import FeatureStats, aggregate, vector_stats
from rollout.dataset.write import finish_recording
from vla_model.config import NOTHING, Foreseen
from vla_model.inputs.conversion import Conversion
from vla_model.inputs.history import past_steps


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A training batch: arrays that own their data, which torch.from_numpy shares without a copy."""

    frames: dict[str, NDArray[np.uint8]]
    """{camera: [B, H, W, 3]}, RGB."""
    state: NDArray[np.float32]
    """[B, S], units of WorldSpec.state."""
    instruction_id: NDArray[np.int64]
    """Index into TrainingData.instructions, [B]."""
    action: NDArray[np.float32]
    """Target actions, [B, K, A] in [-1, 1]."""
    mask: NDArray[np.bool_]
    """False where the episode has ended, the robot is held since the row, or nothing is cloned, [B, K]."""
    ended: NDArray[np.bool_]
    """True after the end of an episode that is cloned to its end and succeeded, [B, K]."""
    localization: NDArray[np.float32]
    """Privileged labels, [B, L], metres; L = 0 if the dataset has none."""
    episode: NDArray[np.int64]
    """Index into TrainingData.episodes, [B]."""
    past_frames: dict[str, NDArray[np.uint8]] | None = None
    """{camera: [B, n, H, W, 3]}, oldest first; None for a model without history."""
    past_state: NDArray[np.float32] | None = None
    """[B, n, S], likewise."""
    future_state: NDArray[np.float32] | None = None
    """Future states, [B, F, S], for a model that predicts them (heads/foresight.py): the given numbers of steps ahead,
    at the next keyframe and at the end, and at the next waypoint; after the episode's end its last state."""
    future_known: NDArray[np.bool_] | None = None
    """False where the episode failed, the robot is held within those steps, or nothing is cloned, [B]."""


_Segment = tuple[int, str, tuple[int, int, int], dict[str, Any]]


class TrainingData:
    """The rows selected for training or validation, from one or more datasets of one kind of world."""

    def __init__(
        self,
        roots: Sequence[str | Path],
        *,
        drives: Sequence[str | Path] = (),
        auxiliary: Sequence[str | Path] = (),
        failed: Literal["cloned", "auxiliary", "excluded"] = "cloned",
        rows_per_episode: int | None = None,
        world_spec: WorldSpec | None = None,
        conversion: Conversion | None = None,
        reading: ReadingConfig | None = None,
        part: Literal["trained on", "held out", "all"] = "all",
        seed: int = 0,
        cache: str | Path = "",
    ) -> None:
        """Open the datasets, and decode into their caches what is missing.

        Args:
            roots: folders of datasets.
            drives: folders of recorded drives. Episodes with interventions contribute the person's actions, whatever
                the outcome (Kelly et al. 2019, HG-DAgger); the others are used whole if they succeeded. Not counted in
                `stats`.
            auxiliary: folders of datasets for auxiliary losses only: nothing is cloned. Not counted in `stats`.
            failed: use of the failed episodes of `roots`; "auxiliary" is for auxiliary losses only. Episodes without a
                success flag are cloned, and cannot be excluded.
            rows_per_episode: use this many evenly spaced rows of longer episodes, for a policy's own rollouts: episodes
                in which it was stuck are the longest and nearly constant. None for all rows.
            world_spec: of the policy; None for that of the first dataset.
            conversion: of the policy, for recordings of other programs.
            reading: how recordings of other programs are read, and the share of held-out episodes.
            part: use all episodes of `roots`, or only those that are, or are not, held out.
            seed: of the held-out episodes.
            cache: folder of the decoded data; None or "" for beside each dataset.

        Raises:
            UserError: no roots, datasets of another world, invalid numbers, no row left, or no disk space for the
                caches. Except for the last, nothing has been decoded.
        """
        if not roots:
            raise UserError("expected at least one dataset, got none")
        folders, reading = (*roots, *drives, *auxiliary), reading or ReadingConfig()
        reading.check_left_out(folders)
        for root in folders:
            finish_recording(root)
        self.world_spec, self.conversion = check_worlds(
            roots, (*drives, *auxiliary), expected=world_spec, conversion=conversion, reading=reading
        )
        """Of the policy, or else of the first dataset."""
        as_seen: dict[str, Any] = {"world_spec": self.world_spec, "conversion": self.conversion}
        self._num_roots, cloned = len(roots), len(roots) + len(drives)
        segments = [
            training_segments(root, len(roots) <= number < cloned, failed != "excluded", unused_episodes(root, reading))
            for number, root in enumerate(folders)
        ]
        for root, found in zip(roots, segments, strict=False):
            keep_part(found, root, part, reading, seed)
        if not any(segments):
            raise UserError(f"no episode of {', '.join(map(str, folders))} was selected; look with llamarm data")
        for number, root in enumerate(folders):
            check_pending(root, cache, cloned=number < cloned, left_out=unused_episodes(root, reading), **as_seen)
        self._datasets = [
            open_cache(root, cache, left_out=unused_episodes(root, reading), **as_seen) for root in folders
        ]
        for number, dataset in enumerate(self._datasets):
            _check_vectors(dataset, cloned=number < cloned)
        self._held = [_held_rows(dataset) for dataset in self._datasets]
        self.instructions: list[str] = []
        """Every instruction of the datasets; Batch.instruction_id indexes them."""
        self.episodes: list[dict[str, Any]] = []
        """The selected episodes' rows of meta/episodes, with "dataset", their folder. An episode with several
        interventions or several tasks occurs once per segment, each trained on as an episode of its own."""
        chosen = [segment for number in range(len(folders)) for segment in self._chosen(number, segments[number])]
        # Workers store episodes as they finish; sorted by name, batches do not depend on that order.
        chosen.sort(key=lambda segment: segment[:2])
        ids: dict[str, int] = {}
        spans: list[tuple[int, int, int, int, int]] = []
        for number, _, (start, begin, end), row in chosen:
            self.episodes.append(row | {"dataset": str(self._datasets[number].root)})
            spans.append((number, start, begin, end, ids.setdefault(row["tasks"][0], len(ids))))
        self.instructions = list(ids)
        # Per span: its dataset, the start of its episode, and its rows (end exclusive).
        self._dataset, self._start, first, self._end, self._instruction = np.array(spans, np.int64).T
        self._imitated = np.array(
            [
                number < cloned
                and (failed == "cloned" or number >= self._num_roots or succeeded(row, self._datasets[number].info))
                for number, *_, row in chosen
            ]
        )
        self._has_future = self._imitated & np.array(
            [succeeded(row, self._datasets[number].info) for number, *_, row in chosen]
        )
        ends = self._start + np.array([row["length"] for *_, row in chosen])
        self._ends = self._has_future & (self._end == ends)  # not of a segment after which the episode continues
        self._length = lengths = self._end - first
        kept = lengths if rows_per_episode is None else np.minimum(lengths, rows_per_episode)
        self._episode = np.repeat(np.arange(len(spans)), kept)  # [R]
        number = np.arange(len(self._episode)) - np.repeat(np.cumsum(kept) - kept, kept)  # within its episode
        # Index of each row in its dataset.
        self._row = np.repeat(first, kept) + number * np.repeat(lengths, kept) // np.repeat(kept, kept)  # [R]

    def _chosen(self, number: int, segments: Mapping[int, list[tuple[int, int]]]) -> Iterator[_Segment]:
        """A dataset's segments: its number, the episode's name, (episode start, first, last) and its row."""
        dataset, tasks, start = self._datasets[number], read_tasks(self._datasets[number].root), 0
        for row in dataset.episodes:
            name = row.get("spec_id", f"{dataset.root.name}/{row['episode_index']:06d}")
            for begin, end in segments.get(row["episode_index"], ()):
                for first, last, task in split_by_task(dataset, tasks, row, start + begin, start + end):
                    yield number, name, (start, first, last), row | {"tasks": [task]}
            start += row["length"]

    @property
    def num_rows(self) -> int:
        return len(self._row)

    def rows_of(self, episode: int) -> NDArray[np.int64]:
        """The rows of one of `episodes`, in order, [T]."""
        begin, end = np.searchsorted(self._episode, [episode, episode + 1])
        return np.arange(begin, end)

    @cached_property
    def fingerprint(self) -> list[dict[str, Any]]:
        """Identifies the training data without its frames, per dataset: {"dataset": folder, "episodes", "rows",
        "sha256"}. Independent of the order in which episodes were stored.
        """
        found = []
        for number, dataset in enumerate(self._datasets):
            spans = np.flatnonzero(self._dataset == number).tolist()
            digest, held = hashlib.sha256(), self._held[number]
            for i in spans:
                row, rows = self.episodes[i], slice(int(self._end[i] - self._length[i]), int(self._end[i]))
                said = [row["tasks"][0], bool(self._imitated[i]), bool(self._has_future[i]), rows.stop - rows.start]
                digest.update(json.dumps(said).encode())
                digest.update((held[(held >= rows.start) & (held < rows.stop)] - rows.start).tobytes())
                for values in dataset.vectors.values():
                    digest.update(np.ascontiguousarray(values[rows]).tobytes())
            rows = int(self._length[spans].sum())
            found.append(
                {"dataset": str(dataset.root), "episodes": len(spans), "rows": rows, "sha256": digest.hexdigest()}
            )
        return found

    @cached_property
    def stats(self) -> dict[str, FeatureStats]:
        """Statistics of all episodes of `roots`, selected or not, from their stats.json; of recordings of other
        programs, of the selected episodes.

        Raises:
            UserError: a dataset has no stats.json.
        """
        parts = [
            read_stats(dataset.root) if schema.is_own(dataset.info) else self._measured(number)
            for number, dataset in enumerate(self._datasets[: self._num_roots])
        ]
        return {key: aggregate([part[key] for part in parts]) for key in parts[0] if all(key in p for p in parts)}

    @property
    def clipped(self) -> dict[str, float]:
        """{action: share of the rows of `roots` that are clipped, as they are outside its inferred range}, if any."""
        if self.conversion is None:
            return {}
        recorded = [d.vectors["action"] for d in self._datasets[: self._num_roots] if not schema.is_own(d.info)]
        shares = (np.abs(np.concatenate(recorded)) == 1.0).mean(0)  # a range is wider than what is within it
        shares[list(self.world_spec.action.grippers)] = 0.0
        return {name: float(share) for name, share in zip(self.world_spec.action.names, shares, strict=True) if share}

    @property
    def not_used(self) -> list[str]:
        """Messages: features of recordings of other programs that are not used, e.g. depth cameras."""
        recorded = [(d.root, features_of(d.info, str(d.root))) for d in self._datasets if not schema.is_own(d.info)]
        names = {camera.name for camera in self.world_spec.cameras}
        rename = self.conversion.camera_name if self.conversion is not None else str
        lines = [f"not used of {root}: {line}" for root, features in recorded for line in features.left_out]
        return lines + [
            f"not used of {root}: {camera.key}: a camera that the first dataset lacks"
            for root, features in recorded
            for camera in features.cameras
            if rename(camera.name) not in names
        ]

    def _measured(self, number: int) -> dict[str, FeatureStats]:
        """Statistics of a dataset's selected rows."""
        spans = np.flatnonzero(self._dataset == number)
        rows = np.concatenate([np.arange(self._end[i] - self._length[i], self._end[i]) for i in spans])
        vectors = self._datasets[number].vectors
        return {VECTORS[name]: vector_stats(values[rows]) for name, values in vectors.items() if values.shape[1]}

    @cached_property
    def _keyframes(self) -> list[NDArray[np.int64]]:
        """Per dataset."""
        return [keyframes(dataset, self.world_spec) for dataset in self._datasets]

    @cached_property
    def _waypoints(self) -> list[NDArray[np.int64]]:
        """Per dataset."""
        return [waypoints(dataset, self.world_spec) for dataset in self._datasets]

    def rows_at(self, step: int, batch_size: int, seed: int) -> NDArray[np.int64]:
        """The rows of one training step, [B]."""
        epoch, position = np.divmod(step * batch_size + np.arange(batch_size), self.num_rows)
        rows = np.empty(batch_size, np.int64)
        for e in np.unique(epoch):
            here = epoch == e
            rows[here] = _order(self.num_rows, seed, int(e))[position[here]]
        return rows

    def gather(
        self,
        rows: NDArray[np.int64],
        chunk_size: int,
        history: tuple[int, int] = (0, 1),
        foreseen: Foreseen = NOTHING,
    ) -> Batch:
        """These rows as a batch, stably sorted by dataset.

        Args:
            rows: [B].
            chunk_size: K.
            history: (n, stride) of the model.
            foreseen: the future states that the model predicts.
        """
        rows = self._by_dataset(rows)
        episode, row = self._episode[rows], self._row[rows]
        bounds = np.searchsorted(self._dataset[episode], np.arange(len(self._datasets) + 1)).tolist()
        parts = [slice(a, b) for a, b in pairwise(bounds)]
        steps = row[:, None] + np.arange(chunk_size)  # [B, K]
        end = self._end[episode][:, None]
        ahead = np.minimum(steps, end - 1)
        start = self._start[episode]
        past = start[:, None] + past_steps(row - start, *history)  # [B, n]
        future = np.minimum(self._to_foresee(row, parts, foreseen), end - 1)
        held = _next_in(self._held, row - 1, parts)[:, None]  # from this row on

        def take(name: str, index: NDArray[np.int64]) -> NDArray[np.float32]:
            return _take([dataset.vectors[name] for dataset in self._datasets], index, parts)

        def read(index: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
            return {c: _read([d.frames[c] for d in self._datasets], index, parts) for c in self._datasets[0].frames}

        return Batch(
            frames=read(row),
            state=take("state", row),
            instruction_id=self._instruction[episode],
            action=take("action", ahead),
            mask=(steps < np.minimum(end, held)) & self._imitated[episode][:, None],
            ended=(steps >= end) & (held >= end) & self._ends[episode][:, None],
            localization=take("localization", row),
            episode=episode,
            past_frames=read(past) if history[0] else None,
            past_state=take("state", past) if history[0] else None,
            future_state=take("state", future) if future.size else None,
            future_known=self._has_future[episode] & (row + max(foreseen.steps, default=0) < held[:, 0])
            if future.size
            else None,
        )

    def batches(
        self,
        batch_size: int,
        chunk_size: int,
        *,
        seed: int,
        start_step: int = 0,
        prefetch: int = 4,
        part: tuple[int, int] = (0, 1),
        history: tuple[int, int] = (0, 1),
        foreseen: Foreseen = NOTHING,
    ) -> BatchStream:
        """Batches of steps start_step, start_step + 1, ... without end, prefetched in a thread.

        With part = (index, count), each has only rows index, index + count, ... The other arguments are those of
        `gather`.
        """
        index, count = part

        def make(step: int) -> Batch:
            rows = self._by_dataset(self.rows_at(step, batch_size, seed))
            return self.gather(rows[index::count], chunk_size, history, foreseen)

        return BatchStream(make, start_step, prefetch)

    def _to_foresee(self, row: NDArray[np.int64], parts: Sequence[slice], foreseen: Foreseen) -> NDArray[np.int64]:
        """The rows of the future states, [B, F]; may be beyond an episode's end."""
        columns = [row + step for step in foreseen.steps]
        if foreseen.keyframes:
            columns += [_next_in(self._keyframes, row, parts), np.full(len(row), NEVER)]
        if foreseen.waypoints:
            columns += [_next_in(self._waypoints, row, parts)]
        return np.array(columns, np.int64).reshape(len(columns), len(row)).T

    def _by_dataset(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[np.argsort(self._dataset[self._episode[rows]], kind="stable")]


class BatchStream(Iterator[Batch]):
    """An iterator that prefetches `prefetch` batches, and measures how long the consumer waited."""

    def __init__(self, make: Callable[[int], Batch], start_step: int, prefetch: int) -> None:
        self.wait_s = 0.0
        """Time that the consumer has spent waiting for data."""
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(prefetch)
        self._stop = threading.Event()
        # The thread must not reference the stream: garbage collection of the stream ends the thread.
        arguments = (make, start_step, self._ready, self._stop)
        self._thread = threading.Thread(target=_prepare, args=arguments, name="batches", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, self._stop.set)

    def __next__(self) -> Batch:
        if self._stop.is_set():
            raise StopIteration
        began_s = time.perf_counter()
        batch = self._ready.get()
        self.wait_s += time.perf_counter() - began_s
        if isinstance(batch, BaseException):
            self.close()
            raise batch
        return batch

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _prepare(
    make: Callable[[int], Batch], step: int, ready: queue.Queue[Batch | BaseException], stop: threading.Event
) -> None:
    while not stop.is_set():
        try:
            made: Batch | BaseException = make(step)
        except BaseException as error:  # raised in the consumer
            made = error
        step += 1
        while not stop.is_set():
            try:
                ready.put(made, timeout=0.2)
                break
            except queue.Full:
                continue
        if isinstance(made, BaseException):
            return


def _take(arrays: Sequence[NDArray[Any]], index: NDArray[np.int64], parts: Sequence[slice]) -> NDArray[Any]:
    """arrays[i][index[parts[i]]] for every i, concatenated."""
    taken = np.empty((*index.shape, *arrays[0].shape[1:]), arrays[0].dtype)
    for array, part in zip(arrays, parts, strict=True):
        # mode="clip" lets numpy write to `out` directly; the index is within bounds by construction.
        np.take(array, index[part], axis=0, out=taken[part], mode="clip")
    return taken


def _read(files: Sequence[FrameFile], rows: NDArray[np.int64], parts: Sequence[slice]) -> NDArray[np.uint8]:
    """The rows[parts[i]] of files[i] for every i, concatenated, [B, ...] -> [B, ..., H, W, 3]."""
    shape = files[0].shape[1:]
    frames = np.empty((*rows.shape, *shape), np.uint8)
    for file, part in zip(files, parts, strict=True):
        file.read(rows[part].reshape(-1), frames[part].reshape(-1, *shape))
    return frames


def _next_in(marks: Sequence[NDArray[np.int64]], rows: NDArray[np.int64], parts: Sequence[slice]) -> NDArray[np.int64]:
    """For each of `rows` the first of marks[i] after it, where i is the row's part."""
    return np.concatenate([next_of(marked, rows[part]) for marked, part in zip(marks, parts, strict=True)])


@lru_cache(maxsize=4)
def _order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def _held_rows(dataset: CachedDataset) -> NDArray[np.int64]:
    """The rows in which the robot was held, ascending, followed by NEVER."""
    held = [read_marks(dataset.root, dataset.info, row, schema.HELD) for row in dataset.episodes]
    return np.append(np.flatnonzero(np.concatenate(held)), NEVER)


def _check_vectors(dataset: CachedDataset, *, cloned: bool) -> None:
    if not schema.is_own(dataset.info):
        return  # checked before they were cached
    vectors = {VECTORS[name]: values for name, values in dataset.vectors.items()}
    check_numbers(str(dataset.root), dataset.info, vectors, cloned=cloned, episodes=dataset.episodes)
