"""Folders and small files that appear whole or not at all."""

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
    """Where a full folder steps aside while a fresh one takes its name."""
    return folder.parent / f".{folder.name}.previous"


@contextmanager
def fresh_folder(folder: Path) -> Generator[Path]:
    """An empty hidden folder beside `folder`, to be filled; it gets that name, which must be free by then, at the end,
    when all that is in it is on the disk.

    Every writer has a hidden folder of its own. One that fails is removed; what a process that was killed left is
    removed by the next writer of the same name on that machine.

    Raises:
        FileExistsError: another writer came first; its folder is left as it is.
    """
    _remove_left_behind(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f"{_beginning(folder)}-{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    fresh.mkdir()
    try:
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
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _beginning(folder: Path) -> str:
    """Of the names of hidden folders that are to become `folder`."""
    return f".{folder.name}.new"


def _remove_left_behind(folder: Path) -> None:
    """Hidden folders whose writers have died on this machine; those without a writer's name are of earlier versions."""
    beginning = _beginning(folder)
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        writer = path.name.removeprefix(f"{beginning}-")
        if path.name == beginning or (writer != path.name and _has_died(writer)):
            shutil.rmtree(path, ignore_errors=True)


def _has_died(writer: str) -> bool:
    """Of HOST-PROCESS-TOKEN; unknown processes of other hosts may live."""
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
    """Make a folder that a user named, and those above it, unless it is there.

    Raises:
        UserError: it lies where there are no folders but the system's own, as in /proc.
        OSError: it cannot be made for a reason that has a name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{folder} cannot be made: {error.filename} is a place without folders; name another"
        ) from error


def check_place(option: str, place: str | Path) -> None:
    """Whether a folder that an option names is there or can be made; one that is there may be read-only.

    Raises:
        UserError: it is no folder, and none can be made.
    """
    folder = nearest = Path(place).resolve()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or (nearest != folder and not os.access(nearest, os.W_OK | os.X_OK)):
        raise UserError(f"{option} is {str(place)!r}, but {nearest} is no folder to write to; name another --{option}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there: after a kill or on a full disk the old one is read, or the new.

    Writers of several processes do not meet each other's half: each has a file of its own beside the place.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: object, *, indent: int | None = 1) -> None:
    """Write a file of JSON as `write_whole` does; None as indent keeps it on one line.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has no word for; the old file is left.
    """
    write_whole(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, keys: Collection[str] = (), remedy: str = "restore it from a copy") -> dict[str, Any]:
    """The object in a JSON file that this program wrote.

    Args:
        path: of the file, which exists.
        keys: that the object must have.
        remedy: what to do about a damaged file, for the message.

    Raises:
        UserError: the file is cut, empty, holds something else or lacks a key; the message names it.
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
