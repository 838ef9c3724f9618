"""Atomic writes of folders and small files."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envs.errors import UserError


def previous_folder(folder: Path) -> Path:
    """Where an existing folder is moved while a new one takes its name."""
    return folder.parent / f".{folder.name}.previous"


@contextmanager
def fresh_folder(folder: Path) -> Generator[Path]:
    """An empty hidden folder beside `folder`, to be filled. At the end it is synced to disk and renamed to `folder`,
    which must not exist by then. It is removed on failure.

    Raises:
        FileExistsError: another writer was faster; its folder is kept.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as fresh:
        yield fresh
        for path in fresh.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        try:
            fresh.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FileExistsError(f"{folder} was written by another process meanwhile") from error
            raise


@contextmanager
def temporary_folder(path: Path) -> Generator[Path]:
    """An empty hidden folder beside `path`, removed at the end."""
    folder = _temporary(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A hidden name beside `path` of this writer alone; what killed writers of `path` left is removed."""
    beginning = f".{path.name}.new"
    for found in path.parent.iterdir():
        writer = found.name.removeprefix(f"{beginning}-")
        # Earlier versions wrote no writer's name.
        if found.name == beginning or (writer != found.name and _has_died(writer)):
            if found.is_dir():
                shutil.rmtree(found, ignore_errors=True)
            else:
                found.unlink(missing_ok=True)
    return path.with_name(f"{beginning}-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}")


def _has_died(writer: str) -> bool:
    """Whether the process of HOST-PROCESS-TOKEN has died; False for other hosts, where that is unknown."""
    host, pid, _ = writer.rsplit("-", 2)
    if host != platform.node():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def make_folder(folder: Path) -> None:
    """Make a folder that a user named, and its parents, unless it exists.

    Raises:
        UserError: no folders can be made there, as in /proc.
        OSError: it cannot be made for another reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be made: {error.filename} cannot hold folders; name another") from error


def check_place(option: str, place: str | Path) -> None:
    """Check that the folder that an option names exists or can be made; an existing one may be read-only.

    Raises:
        UserError: it is no folder, and none can be made.
    """
    folder = nearest = Path(place).resolve()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or (nearest != folder and not os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(f"{option} is {str(place)!r}, but {nearest} is no folder to write to; name another --{option}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a temporary file beside `path` and rename it: after a kill or on a full disk, the old or the new content is
    there. A temporary file of a killed process is removed by the next writer of `path` on that machine.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object, *, indent: int | None = 1) -> None:
    """Write JSON with `write_whole`; indent None writes one line.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot represent; the old file is kept.
    """
    write_whole(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, keys: Collection[str] = (), remedy: str = "restore it from a copy") -> dict[str, Any]:
    """The object in a JSON file that this program wrote.

    Args:
        path: of the file, which exists.
        keys: that the object must have.
        remedy: advice for a damaged file, for the message.

    Raises:
        UserError: the file is truncated, empty, not a JSON object or lacks a key; the message names it.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected a JSON object, got {type(content).__name__}; {remedy}")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"{path} is damaged: it lacks {', '.join(missing)}; {remedy}")
    return content
