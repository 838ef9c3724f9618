"""Where a run's metrics are logged: TensorBoard, Trackio, Weights & Biases, several of them or none.

TensorBoard's files are in the run's folder, and the report's curves are read from them. Trackio is local too: `trackio
show --project llamarm`. Weights & Biases is set up by its own environment variables, e.g. WANDB_MODE=offline. The last
two are optional packages. Importing this loads none of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from agent.runs.run_folder import RunFolder
from envs.errors import UserError

Tracker = Literal["tensorboard", "trackio", "wandb", "none"]
_PROJECT = "llamarm"


class MetricLog(Protocol):
    """Takes the metrics of updates or iterations."""

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        """Log these metrics of one step."""
        ...

    def close(self) -> None:
        """Write what is pending."""
        ...


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """
    Raises:
        UserError: "none" beside another, one named twice or none named, or a package that is not installed.
    """
    if len(set(trackers)) != len(trackers) or not trackers or ("none" in trackers and len(trackers) > 1):
        raise UserError(f"log-to is {' '.join(trackers) or 'empty'}, expected each tracker once, or none alone")
    for name in trackers:
        if name in ("trackio", "wandb") and find_spec(name) is None:
            raise UserError(f"log-to names {name}, which is not installed: pip install 'llamarm[{name}]'")


@contextmanager
def metric_log(run: RunFolder, trackers: Sequence[Tracker]) -> Generator[MetricLog]:
    """A log of the run's metrics; a resumed run continues its own."""
    with ExitStack() as stack:
        yield _Several([stack.enter_context(closing(_LOGS[name](run))) for name in trackers if name != "none"])


class _Several:
    def __init__(self, logs: Sequence[MetricLog]) -> None:
        self._logs = logs

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        for log in self._logs:
            log.add(metrics, step)

    def close(self) -> None:
        """Each is closed by `metric_log`."""


class _TensorBoard:
    def __init__(self, run: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run.tensorboard)

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Tracked:
    """Trackio, or Weights & Biases, whose interface it has."""

    def __init__(self, package: str, run: RunFolder, **options: Any) -> None:
        self._tracked = import_module(package).init(
            project=_PROJECT, name=_name(run), config=run.record["config"], resume="allow", **options
        )

    def add(self, metrics: Mapping[str, float], step: int) -> None:
        self._tracked.log(dict(metrics), step=step)

    def close(self) -> None:
        self._tracked.finish()


def _wandb(run: RunFolder) -> _Tracked:
    return _Tracked("wandb", run, id=_name(run), dir=str(run.root))


def _name(run: RunFolder) -> str:
    """By which a resumed run is found: that of its folder, and a part that tells folders of one name apart."""
    folder = run.root.resolve()
    return f"{folder.name}-{zlib.crc32(str(folder).encode()):08x}"


_LOGS: dict[Tracker, Callable[[RunFolder], MetricLog]] = {
    "tensorboard": _TensorBoard,
    "trackio": partial(_Tracked, "trackio"),
    "wandb": _wandb,
}
