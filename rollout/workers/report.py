"""Report of worker failures: which worker died, when, where, why, and with which episodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from envs.types import EpisodeSpec

Cause = Literal["raised", "killed", "hung", "memory", "node", "inference"]
"""raised: an exception; killed: by a signal, a crash or the system; hung: made no progress; memory: exceeded the limit;
node: its machine died; inference: the inference process died."""


@dataclass(frozen=True, kw_only=True)
class Death:
    """The end of one worker's process, which was replaced."""

    time: datetime
    """When the driver noticed, UTC."""
    worker: int
    """Index of the worker, from 0."""
    pid: int | None
    """None if it died before its world was made."""
    node: str | None
    """Host and Ray node id; None likewise."""
    cause: Cause
    reason: str
    """In one line."""
    running: tuple[EpisodeSpec, ...]
    """Episodes that may have run in it; each of them may have been the cause."""

    def __str__(self) -> str:
        where = f"pid {self.pid} on {self.node}" if self.pid is not None else "while it started"
        ran = f"; it ran {', '.join(spec.id for spec in self.running)}" if self.running else ""
        return f"{self.time:%H:%M:%S} worker {self.worker} ({where}) {self.cause}: {self.reason}{ran}"


@dataclass
class WorkerReport:
    """All deaths since the report was made, and the specs that were given up."""

    deaths: list[Death] = field(default_factory=list)
    set_aside: dict[EpisodeSpec, str] = field(default_factory=dict)
    """Specs given up because workers died running them alone: {spec: reason of the last death}."""
    broken: dict[EpisodeSpec, str] = field(default_factory=dict)
    """Specs that were not run to their end: {spec: "its world failed: ..." or "its policy failed: ..."}."""
    any_valid: bool = False
    """Whether an episode was run to its end."""

    @property
    def by_cause(self) -> dict[str, int]:
        return dict(Counter(death.cause for death in self.deaths).most_common())

    def lines(self) -> list[str]:
        """As text lines; empty if nothing failed."""
        counts = ", ".join(f"{count} {cause}" for cause, count in self.by_cause.items())
        lines = [f"{len(self.deaths)} workers were replaced: {counts}"] if self.deaths else []
        lines += [f"  {death}" for death in self.deaths]
        lines += [f"set aside: {spec.id}, every worker died that ran it: {why}" for spec, why in self.set_aside.items()]
        lines += [f"set aside: {spec.id}, {why}" for spec, why in self.broken.items()]
        return lines
