"""One process that decides for many workers: for models too large to copy into each, or a GPU to share.

    worker      RemotePolicy.act(worlds, observation)    sends what those of its worlds show, and waits
    server      puts what waits into one batch, as soon as `max_batch_size` worlds wait, or all workers do, or the
                first has waited `max_wait_ms`; decides, and answers all of them
    driver      pull(weights) before the workers begin a collect's episodes; forget(worker) when it replaced one

Who waits: a worker, for its answer. Who unblocks it: another worker that fills the batch, or the clock. The server
waits for nobody: the policy computes in a thread of its own, in the order it is told, and the requests for the next
batch come in meanwhile.

Order rule: an episode is acted by one version. The driver has the server pull only between two collects, when no
episode runs; a worker learns the version from the answer to `begin`. A server that dies takes the running episodes
along: the driver starts another and new workers, and tells every unfinished spec again.

State per episode (instruction, random numbers) stays in the server, under an index of its own for each worker's world.
What a batch consists of does not enter a decision, but for the last bits of floating point.

`InferenceServer` itself knows no Ray: agent/serve puts it behind a websocket, where clients are its workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, Protocol

import numpy as np
from annotated_types import Interval

from envs.arrays import on_host
from envs.types import Observation
from rollout.weights import Published, pull
from vla_model.types import ActionChunk, Policy


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """One process that decides for all workers."""

    max_batch_size: Annotated[int, Interval(ge=1, le=10_000)] = 64
    """Worlds that are decided for at once."""
    max_wait_ms: Annotated[float, Interval(ge=0, le=10_000)] = 10.0
    """How long the first request of a batch waits for others, once the policy is free."""
    num_gpus: Annotated[float, Interval(ge=0, le=1_000)] = 0.0
    """GPUs that the process occupies, as Ray counts them."""


class ForgettingPolicy(Policy, Protocol):
    """A policy that can be told that an episode is over; an UpdatablePolicy too, where weights are published."""

    def forget(self, worlds: Iterable[int]) -> None:
        """These worlds' episodes ended without being heard of."""
        ...


class InferenceServer:
    """What runs in the process; an asyncio actor of Ray."""

    def __init__(
        self, make_policy: Callable[[], ForgettingPolicy], config: InferenceConfig, weights: Published | None
    ) -> None:
        self._policy: Any = make_policy()
        self._config = config
        self._index: dict[tuple[str, int], int] = {}
        """The policy's world for each worker's world."""
        self._requests: list[_Request] = []
        self._timer: asyncio.TimerHandle | None = None
        self._batch: asyncio.Task[None] | None = None
        """The one that is computed."""
        self._thread = ThreadPoolExecutor(1, "policy")
        pull(self._policy, weights)

    async def pull(self, weights: Published) -> None:
        """Act with these weights; no episode may run."""
        assert not self._requests, "weights are exchanged between two collects"
        await self._in_thread(pull, self._policy, weights)

    async def begin(
        self, worker: str, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]
    ) -> int:
        """Policy.begin in that worker's worlds; returns the version that will act."""
        mine = [self._index.setdefault((worker, world), self._free_index()) for world in worlds]
        await self._in_thread(self._policy.begin, mine, instructions, seeds)
        return self._policy.version

    async def act(self, worker: str, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Policy.act in these of that worker's worlds."""
        answer = asyncio.get_running_loop().create_future()
        self._requests.append(_Request(worker, [self._index[worker, world] for world in worlds], observation, answer))
        self._decide_if_due()
        return await answer

    async def forget(self, worker: str) -> None:
        """That worker is gone, with whatever it asked."""
        self._requests = [request for request in self._requests if request.worker != worker]
        gone = [key for key in self._index if key[0] == worker]
        await self._in_thread(self._policy.forget, [self._index.pop(key) for key in gone])

    async def ready(self) -> None:
        """Answered once the policy is there."""

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _free_index(self) -> int:
        taken = set(self._index.values())
        return next(i for i in range(len(taken) + 1) if i not in taken)

    def _decide_if_due(self) -> None:
        """Begin a batch if the policy is free and no other request is worth waiting for."""
        if self._batch is not None or not self._requests:
            return
        everyone = {worker for worker, _ in self._index} == {request.worker for request in self._requests}
        if everyone or sum(len(request.worlds) for request in self._requests) >= self._config.max_batch_size:
            self._decide()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._config.max_wait_ms / 1000, self._decide)

    def _decide(self) -> None:
        """Begin a batch of the oldest requests, as many as it holds and at least one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sizes = np.cumsum([len(request.worlds) for request in self._requests])
        count = max(1, int((sizes <= self._config.max_batch_size).sum()))
        batch, self._requests = self._requests[:count], self._requests[count:]
        if batch:
            self._batch = asyncio.get_running_loop().create_task(self._answer(batch))

    async def _answer(self, batch: Sequence[_Request]) -> None:
        await self._settle(batch)
        self._batch = None
        self._decide_if_due()

    async def _settle(self, batch: Sequence[_Request]) -> None:
        """Answer all of them; where they cannot be decided together, each alone: one that is broken costs no other."""
        try:
            chunk = await self._in_thread(self._act, batch)
        except Exception as error:  # whoever asked must hear of it, and this process must go on
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            else:
                for request in batch:
                    await self._settle([request])
            return
        first = 0
        for request in batch:
            rows = slice(first, first := first + len(request.worlds))
            request.answer.set_result(chunk.map(itemgetter(rows)))

    def _act(self, batch: Sequence[_Request]) -> ActionChunk:
        worlds = [world for request in batch for world in request.worlds]
        return self._policy.act(worlds, _joined([request.observation for request in batch]))


@dataclass
class _Request:
    worker: str
    worlds: list[int]
    """The policy's."""
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
    """Ray's handle of a server that is ready.

    Raises:
        RuntimeError: it could not make its policy, or not in time.
    """
    import ray

    actor = ray.remote(num_cpus=0, num_gpus=config.num_gpus, runtime_env={"env_vars": dict(environment)})
    server = actor(InferenceServer).remote(make_policy, config, weights)
    try:
        ray.get(server.ready.remote(), timeout=deadline_s)
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
        raise RuntimeError("the inference process could not make its policy") from error
    return server


class RemotePolicy:
    """Policy of vla_model/types.py that asks a server."""

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
