"""The metrics of /metrics, in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from envs.errors import UserError
from envs.types import Observation
from rollout.inference import ForgettingPolicy
from vla_model.types import ActionChunk

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics of one server and its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._clients = Gauge("llamarm_clients", "Connected clients.", ["path"], registry=self.registry)
        self._requests = Counter(
            "llamarm_requests", "Observations, by outcome.", ["path", "outcome"], registry=self.registry
        )
        self._not_admitted = Counter(
            "llamarm_not_admitted", "Connections that were refused.", ["status"], registry=self.registry
        )
        self._request_s = Histogram(
            "llamarm_request_seconds",
            "From an observation to its actions.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_s = Histogram(
            "llamarm_batch_seconds", "Duration of a batch's inference.", buckets=_SECONDS, registry=self.registry
        )
        self._batch_size = Histogram(
            "llamarm_batch_size", "Clients in a batch.", buckets=_SIZES, registry=self.registry
        )

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    @contextmanager
    def client(self, path: str) -> Generator[None]:
        """Count a client while it is connected."""
        with self._clients.labels(path).track_inprogress():
            yield

    def not_admitted(self, status: int) -> None:
        """Count a connection that was refused with that HTTP status."""
        self._not_admitted.labels(str(status)).inc()

    @contextmanager
    def request(self, path: str) -> Generator[None]:
        """Count an observation, with its duration and outcome: answered, refused (a UserError) or failed."""
        outcome = "failed"
        try:
            with self._request_s.labels(path).time():
                yield
            outcome = "answered"
        except UserError:
            outcome = "refused"
            raise
        finally:
            self._requests.labels(path, outcome).inc()

    def batch(self, size: int, duration_s: float) -> None:
        """Count a batch."""
        self._batch_size.observe(size)
        self._batch_s.observe(duration_s)


class MeasuredPolicy:
    """The policy itself; it counts its batches."""

    def __init__(self, policy: ForgettingPolicy, metrics: Metrics) -> None:
        self.version = policy.version
        self._policy = policy
        self._metrics = metrics

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        self._policy.begin(worlds, instructions, seeds)

    def forget(self, worlds: Iterable[int]) -> None:
        self._policy.forget(worlds)

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        began_s = time.perf_counter()
        chunk = self._policy.act(worlds, observation)
        self._metrics.batch(len(worlds), time.perf_counter() - began_s)
        return chunk
