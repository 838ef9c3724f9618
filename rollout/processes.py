"""A function in several processes that compute together: actors of Ray, joined by torch.distributed.

    this process                                  n actors, ranks 0 .. n-1
    run_in_processes ------- function -------->   function(process); they wait for each other in collectives
       twice a second: interrupted()?  ------->   rank 0 is told
                                                  process.interrupted(): all learn what rank 0 was told
       hear(news)  <---------------------------   process.tell(news), rank 0's latest
       result, or error  <---------------------   returns, or raises; one that raises or dies ends all

Order rule: all processes enter the same collectives in the same order, and `process.interrupted` is one. They find each
other by a file in a hidden folder that every machine sees; torch's other way, a port, asks nobody who they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.distributed_c10d import broadcast, destroy_process_group, init_process_group

from envs.errors import UserError
from rollout.workers.handle import environment, explain, start_ray

T = TypeVar("T")
_LOOK_EVERY_S = 0.5
_DEATH_IS_KNOWN_WITHIN_S = 5.0
"""After one process fails: another's death may be the cause, and Ray may hear of it later."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of the processes that compute together, or the only one."""

    rank: int = 0
    """Rank 0 writes files."""
    count: int = 1
    device: torch.device = _CPU
    interrupted: Callable[[], bool]
    """Whether to stop and raise KeyboardInterrupt. All get the same answer, so all must ask equally often."""
    tell: Callable[..., object]
    """Give keyword arguments to whoever watches; among several processes only rank 0 is heard."""


def run_in_processes(
    function: Callable[[Process], T],
    count: int,
    folder: Path,
    *,
    ray_address: str | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    hear: Callable[..., object] = lambda **_: None,
) -> T:
    """Call the function in `count` new processes, each with a GPU where Ray has any, else with a core.

    They share a process group of torch.distributed: nccl on GPUs, gloo elsewhere.

    Args:
        function: it and its result are pickled, and the result may hold no tensors.
        count: how many.
        folder: exists, and all machines see it; there is a hidden folder in it until the end.
        ray_address: of a Ray cluster, as `start_ray` takes it.
        interrupted: asked here now and then; when it says yes, the processes hear of it.
        hear: called here with the latest of what rank 0 tells.

    Returns:
        What rank 0 returned.

    Raises:
        UserError: Ray has GPUs, but fewer than that.
        KeyboardInterrupt: the processes have stopped because they were interrupted.
        RuntimeError: a process died; the message names it. What a process raised is raised here.
    """
    on_this_machine = start_ray(ray_address)
    import ray

    members = _start(count, on_this_machine)
    look = members[0].look.options(concurrency_group="look")
    with tempfile.TemporaryDirectory(prefix=".processes-", dir=folder.resolve()) as meeting:
        try:
            runs = [member.run.remote(function, rank, count, meeting) for rank, member in enumerate(members)]
            stopped, pending = False, runs
            while pending:
                ready, pending = ray.wait(pending, num_returns=len(pending), timeout=_LOOK_EVERY_S)
                stopped = stopped or interrupted()
                try:
                    ray.get(ready)
                    if news := ray.get(look.remote(stopped)):
                        hear(**news)
                except ray.exceptions.RayError as error:
                    if interrupted():  # A scheduler's SIGTERM ends the processes too.
                        raise KeyboardInterrupt from error
                    raise _cause(runs) from error
            if stopped:
                raise KeyboardInterrupt
            return ray.get(runs[0])
        finally:
            for member in members:
                ray.kill(member, no_restart=True)


def _start(count: int, on_this_machine: bool) -> list[Any]:
    """Ray's handles of new processes."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    if 0 < gpus < count:
        raise UserError(f"{count} processes want a GPU each, and Ray has {gpus}")
    env_vars = {"OMP_NUM_THREADS": "1"} | environment()
    if on_this_machine:
        env_vars["GLOO_SOCKET_IFNAME"] = "lo"
    actor = ray.remote(
        # On this machine alone Ray's own count of CPUs must not make them wait, as in workers/workers.py.
        num_cpus=0 if on_this_machine else 1,
        num_gpus=1 if gpus else 0,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": env_vars},
        concurrency_groups={"look": 1},
    )(_Member)
    return [actor.remote() for _ in range(count)]


class _Member:
    """What runs in a process: the function in one thread, and whoever looks at it is answered in another."""

    def __init__(self) -> None:
        self._news: Mapping[str, Any] = {}
        self._stop = False

    def run(self, function: Callable[[Process], T], rank: int, count: int, meeting: str) -> T | None:
        """Join the others, and call the function; None where it was interrupted."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backend = "nccl" if device.type == "cuda" else "gloo"
        init_process_group(backend, f"file://{meeting}/group", rank=rank, world_size=count)

        def interrupted() -> bool:
            came = torch.tensor([self._stop], dtype=torch.uint8, device=device)
            broadcast(came, 0)
            return bool(came)

        def tell(**news: Any) -> None:
            self._news = news

        process = Process(rank=rank, count=count, device=device, interrupted=interrupted, tell=tell)
        try:
            result = function(process)
        except KeyboardInterrupt:  # asked for; Ray would take it for a task that was cancelled
            result = None
        destroy_process_group()
        return result

    def look(self, stop: bool) -> Mapping[str, Any]:
        """The latest news; with `stop`, the function is to be interrupted."""
        self._stop = stop
        return self._news


def _cause(runs: Sequence[Any]) -> Exception:
    """What to raise where processes failed: one that died is the cause of what the others raised then."""
    import ray

    ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=_DEATH_IS_KNOWN_WITHIN_S)
    raised: dict[int, Any] = {}
    for rank, run in enumerate(runs):
        if run in ended:
            try:
                ray.get(run)
            except ray.exceptions.RayTaskError as failure:
                raised[rank] = failure
            except ray.exceptions.RayError as failure:
                return RuntimeError(f"process {rank} died: {explain(failure)[1]}")
    rank, failure = min(raised.items())
    failure.cause.add_note(f"raised in process {rank}")
    return failure.cause
