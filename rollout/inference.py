"""Inference server: one process runs the policy for many workers, for models too large to copy or a shared GPU.

    worker      RemotePolicy.act(worlds, observation)    sends the observations of its worlds, and waits
    server      batches the waiting requests once `max_batch_size` worlds wait, or all workers wait, or the first
                request has waited `max_wait_ms`; runs the policy and answers all of them
    driver      pull(weights) before a collect's episodes begin; forget(worker) after replacing one

Who waits: a worker, for its answer. Who unblocks it: another worker that fills the batch, or the timer. The server
never blocks: the policy runs in its own thread, in request order, while requests for the next batch arrive.

Order rule: one weight version acts in an episode. The driver calls `pull` only between collects, when no episode runs;
a worker receives the version in the answer to `begin`. If the server dies, the running episodes are lost: the driver
starts a new server and new workers, and queues every unfinished spec again.

Per-episode state (instruction, random generators) stays in the server, under one index per worker and world. The
composition of a batch affects an action only in the last bits of floating point.

`InferenceServer` itself does not depend on Ray: agent/serve runs it behind a websocket, with clients as its workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Interval

from envs.arrays import on_host
from envs.types import Observation
from rollout.weights import Published, pull
from vla_model.types import ActionChunk, Policy


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """One inference process for all workers."""

    max_batch_size: Annotated[int, Interval(ge=1, le=10_000)] = 64
    """Maximum number of worlds in a batch."""
    max_wait_ms: Annotated[float, Interval(ge=0, le=10_000)] = 10.0
    """How long the first request of a batch waits for others, once the policy is free."""
    num_gpus: Annotated[float, Interval(ge=0, le=1_000)] = 0.0
    """GPUs that Ray reserves for the process; may be a fraction."""


class ForgettingPolicy(Policy, Protocol):
    """A policy that can drop its state of an episode; also an UpdatablePolicy if weights are published."""

    def forget(self, worlds: Iterable[int]) -> None:
        """Drop the state of these worlds' episodes, which will not continue."""
        ...


class InferenceServer:
    """Batches requests and runs the policy; an asyncio Ray actor."""

    def __init__(
        self, make_policy: Callable[[], ForgettingPolicy], config: InferenceConfig, weights: Published | None
    ) -> None:
        self._policy: Any = make_policy()
        self._config = config
        self._index: dict[tuple[str, int], int] = {}
        """The policy's world index of each worker's world."""
        self._requests: list[_Request] = []
        self._timer: asyncio.TimerHandle | None = None
        self._batch: asyncio.Task[None] | None = None
        """The batch that is being computed."""
        self._thread = ThreadPoolExecutor(1, "policy")
        pull(self._policy, weights)

    async def pull(self, weights: Published) -> None:
        """Load these weights; no episode may run."""
        assert not self._requests, "weights change only between two collects"
        await self._in_thread(pull, self._policy, weights)

    async def begin(
        self, worker: str, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]
    ) -> int:
        """Policy.begin in that worker's worlds; returns the version that will act."""
        indices = [self._index.setdefault((worker, world), self._free_index()) for world in worlds]
        await self._in_thread(self._policy.begin, indices, instructions, seeds)
        return self._policy.version

    async def act(self, worker: str, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Policy.act in these of that worker's worlds."""
        answer = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(worker, [self._index[worker, world] for world in worlds], observation, answer))
        self._start_batch_if_due()
        return await answer

    async def forget(self, worker: str) -> None:
        """Drop the requests and the episode state of a worker that is gone."""
        self._requests = [request for request in self._requests if request.worker != worker]
        gone = [key for key in self._index if key[0] == worker]
        await self._in_thread(self._policy.forget, [self._index.pop(key) for key in gone])

    async def ready(self) -> None:
        """Returns once the policy is loaded."""

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _free_index(self) -> int:
        taken = set(self._index.values())
        return next(i for i in range(len(taken) + 1) if i not in taken)

    def _start_batch_if_due(self) -> None:
        """Start a batch if the policy is free and the batch is full, all workers wait, or the wait time is over."""
        if self._batch is not None or not self._requests:
            return
        all_wait = {worker for worker, _ in self._index} == {request.worker for request in self._requests}
        if all_wait or sum(len(request.worlds) for request in self._requests) >= self._config.max_batch_size:
            self._start_batch()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._config.max_wait_ms / 1000, self._start_batch)

    def _start_batch(self) -> None:
        """Start a batch of the oldest requests: as many as fit, and at least one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sizes = np.cumsum([len(request.worlds) for request in self._requests])
        count = max(1, int((sizes <= self._config.max_batch_size).sum()))
        batch, self._requests = self._requests[:count], self._requests[count:]
        if batch:
            self._batch = asyncio.get_running_loop().create_task(self._answer(batch))

    async def _answer(self, batch: Sequence[_Request]) -> None:
        await self._resolve(batch)
        self._batch = None
        self._start_batch_if_due()

    async def _resolve(self, batch: Sequence[_Request]) -> None:
        """Answer all requests; if the batch fails, run each alone so that one bad request does not fail the others."""
        try:
            chunk = await self._in_thread(self._act, batch)
        except Exception as error:  # returned to the client; this process must keep running
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for request in batch:
                    await self._resolve([request])
            return
        first = 0
        for request in batch:
            request.answer.set_result(chunk.rows(first, first := first + len(request.worlds)))

    def _act(self, batch: Sequence[_Request]) -> ActionChunk:
        worlds = [world for request in batch for world in request.worlds]
        return self._policy.act(worlds, _joined([request.observation for request in batch]))


@dataclass
class _Request:
    worker: str
    worlds: list[int]
    """Indices of the policy's worlds."""
    observation: Observation
    answer: asyncio.Future[ActionChunk]


def start_server(
    make_policy: Callable[[], Policy],
    config: InferenceConfig,
    weights: Published | None,
    *,
    environment: Mapping[str, str],
    deadline_s: float,
) -> Any:
    """Start a server; returns its Ray handle once it is ready.

    Raises:
        RuntimeError: it could not create its policy, or not within `deadline_s`.
    """
    import ray

    actor = ray.remote(num_cpus=0, num_gpus=config.num_gpus, runtime_env={"env_vars": dict(environment)})
    server = actor(InferenceServer).remote(make_policy, config, weights)
    try:
        ray.get(server.ready.remote(), timeout=deadline_s)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        raise RuntimeError("the inference process could not create its policy") from error
    return server


class RemotePolicy:
    """Policy (vla_model/types.py) that calls an inference server."""

    def __init__(self, server: Any, worker: str) -> None:
        self.version = -1
        self._server = server
        self._worker = worker

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        import ray

        self.version = ray.get(self._server.begin.remote(self._worker, worlds, instructions, seeds))

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        import ray

        return ray.get(self._server.act.remote(self._worker, worlds, on_host(observation)))


def _joined(observations: Sequence[Observation]) -> Observation:
    joined = Observation(
        frames={
            camera: np.concatenate([o["frames"][camera] for o in observations]) for camera in observations[0]["frames"]
        },
        state=np.concatenate([o["state"] for o in observations]),
        instruction=tuple(text for o in observations for text in o["instruction"]),
    )
    if all("step" in o for o in observations):
        joined["step"] = np.concatenate([o["step"] for o in observations])
    return joined
