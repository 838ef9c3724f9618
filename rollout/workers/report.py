"""What became of workers: who died, when, where, of what, and with which episodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from envs.types import EpisodeSpec

Cause = Literal["raised", "killed", "hung", "memory", "node", "inference"]
"""raised: an exception; killed: by a signal, a crash or the system; hung: made no progress; memory: held too much;
node: its machine died; inference: the process that decides for all of them died."""


WORLD_FAILED = "its world failed"
"""What is said of an episode that its world could not go on with."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """The end of one worker's process; another took its place."""

    time: datetime
    """When the driver noticed, UTC."""
    worker: int
    """Its place, counted from 0."""
    pid: int | None
    """None if it died before it had made its world."""
    node: str | None
    """Host and Ray's id of the node; None as above."""
    cause: Cause
    reason: str
    """In one line."""
    running: tuple[EpisodeSpec, ...]
    """Episodes that ran in it, as far as the driver can know; each of them may have been the cause."""

    def __str__(self) -> str:
        where = f"pid {self.pid} on {self.node}" if self.pid is not None else "while it started"
        ran = f"; it ran {', '.join(spec.id for spec in self.running)}" if self.running else ""
        return f"{self.time:%H:%M:%S} worker {self.worker} ({where}) {self.cause}: {self.reason}{ran}"


@dataclass
class WorkerReport:
    """All deaths since the workers were made, and what was given up."""

    deaths: list[Death] = field(default_factory=list)
    set_aside: dict[EpisodeSpec, str] = field(default_factory=dict)
    """Specs that were given up because workers died with them alone, and what the last one died of."""
    broken: dict[EpisodeSpec, str] = field(default_factory=dict)
    """Specs whose world could not go on with them, and why."""

    @property
    def by_cause(self) -> dict[str, int]:
        return dict(Counter(death.cause for death in self.deaths).most_common())

    def lines(self) -> list[str]:
        """For a person to read; empty where nothing happened."""
        counts = ", ".join(f"{count} {cause}" for cause, count in self.by_cause.items())
        lines = [f"{len(self.deaths)} workers were replaced: {counts}"] if self.deaths else []
        lines += [f"  {death}" for death in self.deaths]
        lines += [f"set aside: {spec.id}, every worker died that ran it: {why}" for spec, why in self.set_aside.items()]
        lines += [f"set aside: {spec.id}, {WORLD_FAILED}: {why}" for spec, why in self.broken.items()]
        return lines
