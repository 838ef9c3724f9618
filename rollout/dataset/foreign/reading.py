"""ReadingConfig: how recorded datasets are read, as options of `llamarm train`, `data` and `eval`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Interval

from envs.errors import UserError
from vla_model.inputs.fit import Fit

DEFAULT_HELD_OUT = 0.1
"""Share of the episodes of recordings of other programs."""
_MAX_SIDE_PX = 4096
_MAY_CHANGE = {"how": True}
"""agent.runs.checks.HOW: a run may be resumed without further episodes; run.json records that its data changed."""


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """How recordings are read: the frames of other programs', episodes to leave out, and those kept for measuring."""

    frames: Annotated[str, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = ""
    """Size of the frames that the policy sees, even numbers; by default at most 128x128."""
    fit: Fit = "stretch"
    """Whether a frame of another aspect ratio is stretched, or gets black borders."""
    cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=CAMERA ...")] = ()
    """New names of cameras, e.g. front=observation.images.top."""
    held_out: Annotated[float | None, Interval(ge=0, le=0.9)] = None
    """Share of the episodes that is not trained on, to measure the action error; by default 0.1 for recordings of
    other programs, else 0."""
    without_episodes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[DATASET:]N[..M] ...")] = field(
        default=(), metadata=_MAY_CHANGE
    )
    """Episodes to leave out, as if they had not been recorded, e.g. 3 7..9; of several datasets so101:3. `llamarm data`
    lists those that cannot be read."""

    with_failed: bool = field(default=False, metadata=_MAY_CHANGE)
    """Use the episodes of other programs' recordings that failed, too, if they have success flags."""

    def check(self) -> None:
        """
        Raises:
            UserError: frames, cameras or episodes are malformed.
        """
        self.size()
        self.renamed()
        self._spans()

    @property
    def is_default(self) -> bool:
        """Whether nothing is asked of the frames."""
        return (self.frames, self.fit, self.cameras) == ("", "stretch", ())

    def size(self) -> tuple[int, int] | None:
        """Height and width of the frames; None if not given."""
        if not self.frames:
            return None
        found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", self.frames)
        width, height = map(int, found.groups()) if found else (0, 0)
        if any(side % 2 or not 2 <= side <= _MAX_SIDE_PX for side in (width, height)):
            raise UserError(
                f"frames is {self.frames!r}, expected WIDTHxHEIGHT, even and at most {_MAX_SIDE_PX}, e.g. 128x128"
            )
        return height, width

    def renamed(self) -> dict[str, str]:
        """The new names of cameras, by feature or name."""
        pairs = [entry.partition("=") for entry in self.cameras]
        for entry, (name, _, camera) in zip(self.cameras, pairs, strict=True):
            if not re.fullmatch(r"\w+", name) or not camera:
                raise UserError(f"cameras has {entry!r}, expected NAME=CAMERA, e.g. front=observation.images.top")
        if len({camera for *_, camera in pairs}) < len(pairs):
            raise UserError(f"cameras names a camera twice: {' '.join(self.cameras)}")
        return {camera: name for name, _, camera in pairs}

    def check_left_out(self, roots: Sequence[str | Path]) -> None:
        """Check that every episode to leave out is of one of these datasets.

        Raises:
            UserError: an entry names none of them, several, or none where there are several.
        """
        names = ", ".join(map(str, roots)) or "none"
        for entry, (dataset, _) in zip(self.without_episodes, self._spans(), strict=True):
            count = len(roots) if dataset is None else sum(_is_called(root, dataset) for root in roots)
            if count != 1:
                what = f"of {count} datasets" if count else "of no dataset"
                hint = f"; write DATASET:EPISODE, e.g. {roots[0]}:{entry.rpartition(':')[2]}" if roots else ""
                raise UserError(f"without-episodes has {entry!r}, which is {what}; datasets: {names}{hint}")

    def left_out(self, root: str | Path) -> frozenset[int]:
        """The numbers of the episodes of this dataset that are named to be left out."""
        spans = [span for dataset, span in self._spans() if dataset is None or _is_called(root, dataset)]
        return frozenset(number for span in spans for number in span)

    def _spans(self) -> list[tuple[str | None, range]]:
        """The dataset and the episodes of every entry of `without_episodes`."""
        spans: list[tuple[str | None, range]] = []
        for entry in self.without_episodes:
            found = re.fullmatch(r"(?:(.+):)?(\d{1,9})(?:\.\.(\d{1,9}))?", entry)
            first, last = (int(found[2]), int(found[3] or found[2])) if found else (0, -1)
            if found is None or last < first:
                raise UserError(
                    f"without-episodes has {entry!r}, expected e.g. 3, 7..9, or of several datasets so101:3"
                )
            spans.append((found[1], range(first, last + 1)))
        return spans


def _is_called(root: str | Path, name: str) -> bool:
    """Whether a dataset is meant by its folder or by the folder's name."""
    return name == Path(root).resolve().name or Path(name).resolve() == Path(root).resolve()


def as_entries(numbers: Iterable[int], dataset: str = "") -> list[str]:
    """These episodes as values of `ReadingConfig.without_episodes`.

    Examples:
        >>> as_entries([3, 7, 8, 9]), as_entries([0], "so101")
        (['3', '7..9'], ['so101:0'])
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    prefix = f"{dataset}:" if dataset else ""
    return [prefix + (str(a) if a == b else f"{a}..{b}") for a, b in spans]
