"""Counts of lost, duplicated and wrong results, and the folder of finished work."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from agent.runs.run_folder import git_state
from rollout.types import Trajectory
from vla_model.files.folders import write_whole


@dataclass(kw_only=True)
class Tally:
    """What a part of the campaign came to."""

    lost: int = 0
    """Results of an undisturbed run that are missing."""
    twice: int = 0
    """Duplicates, each repetition counted."""
    wrong: int = 0
    """Results that differ from an undisturbed run, and invalid behaviour of a command or a server."""
    counts: Counter[str] = field(default_factory=Counter)
    """Numbers of operations and of failures."""
    notes: list[str] = field(default_factory=list)
    """A description of each fault."""

    @property
    def faults(self) -> int:
        return self.lost + self.twice + self.wrong

    def add(self, other: Tally) -> None:
        """Count another's in."""
        self.lost, self.twice, self.wrong = (
            self.lost + other.lost,
            self.twice + other.twice,
            self.wrong + other.wrong,
        )
        self.counts.update(other.counts)
        self.notes.extend(other.notes)

    def fault(self, note: str) -> None:
        """Count one thing that is wrong, and say what."""
        self.wrong += 1
        self.notes.append(note)


def compare(expected: Mapping[str, str], found: Iterable[tuple[str, str]], where: str = "") -> Tally:
    """Hashes by name against those of an undisturbed run.

    Args:
        expected: {name: hash}.
        found: (name, hash) of everything that came, as often as it came.
        where: begins the notes.
    """
    tally, came = Tally(), Counter[str]()
    for name, digest in found:
        came[name] += 1
        if expected.get(name) != digest:
            tally.fault(f"{where}{name} is {'wrong' if name in expected else 'unknown to the undisturbed run'}")
    for name in expected.keys() - came.keys():
        tally.lost += 1
        tally.notes.append(f"{where}{name} is lost")
    for name, times in came.items():
        if times > 1:
            tally.twice += times - 1
            tally.notes.append(f"{where}{name} came {times} times")
    return tally


def digest(*values: Any) -> str:
    """Of arrays (type, shape and every bit), bytes, and plain values."""
    sha = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype.str}{value.shape}".encode())
            sha.update(np.ascontiguousarray(value).tobytes())
        else:
            sha.update(value if isinstance(value, bytes) else repr(value).encode())
        sha.update(b"\0")
    return sha.hexdigest()


def trajectory_digest(t: Trajectory) -> str:
    """Everything that an episode's seed decides; neither its wall-clock nor who ran it."""
    frames = [part for camera in sorted(t.frames) for part in (camera, t.frames[camera])]
    terms = [part for name in sorted(t.reward_terms) for part in (name, t.reward_terms[name])]
    flags = (t.success, t.terminated, t.truncated, t.failure)
    steps = (t.frame_step, t.decision_step)
    rows = (t.state, t.action, t.label, t.localization, t.reward)
    return digest(t.spec.id, t.instruction, *frames, *steps, *rows, *terms, *flags)


@dataclass(frozen=True)
class Work:
    """A folder of one JSON per piece of work that is done. A campaign that was killed goes on behind the last one."""

    root: Path

    def once(self, name: str, settings: Mapping[str, Any], do: Callable[[], Tally]) -> Tally:
        """What a piece of work came to, done now unless it was done before with the same settings."""
        kept = self.kept(name, settings, lambda: vars(_timed(do)))
        return Tally(**kept | {"counts": Counter(kept["counts"])})

    def kept(self, name: str, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """A value of JSON, made now unless it was made before with the same settings."""
        file = self.root / f"{name}.json"
        asked = json.loads(json.dumps(settings))
        if file.exists() and (found := json.loads(file.read_text()))["settings"] == asked:
            return found["value"]
        git = git_state() or {"commit": "unknown", "dirty": False}
        value = json.loads(json.dumps(make()))
        file.parent.mkdir(parents=True, exist_ok=True)
        made = {"settings": asked, "git": git, "done": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "value": value}
        write_whole(file, json.dumps(made, indent=1) + "\n")
        return value

    def scratch(self, name: str) -> Path:
        """An empty folder; what a campaign that was killed left in it is removed."""
        folder = self.root / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commits(self) -> list[str]:
        """Of the code that the pieces were done with."""
        files = [file for file in self.root.rglob("*.json") if file.relative_to(self.root).parts[0] != "scratch"]
        gits = [json.loads(file.read_text())["git"] for file in files]
        return sorted({git["commit"][:7] + (" with changes not committed" if git["dirty"] else "") for git in gits})


def _timed(do: Callable[[], Tally]) -> Tally:
    began_s = time.monotonic()
    tally = do()
    tally.counts["seconds"] += round(time.monotonic() - began_s)
    return tally
