"""Folders and small files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def previous_folder(folder: Path) -> Path:
    """Where a full folder steps aside while a fresh one takes its name."""
    return folder.parent / f".{folder.name}.previous"


@contextmanager
def fresh_folder(folder: Path) -> Generator[Path]:
    """An empty hidden folder beside `folder`, to be filled; it gets that name, which must be free by then, at the end,
    when all that is in it is on the disk.

    What a process that was killed left of it is removed by the next one.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    for path in fresh.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    fresh.rename(folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there: after a kill or on a full disk the old one is read, or the new.

    Writers of several processes do not meet each other's half: each has a file of its own beside the place.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
