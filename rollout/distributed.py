"""Run a function in several processes: Ray actors that share a torch.distributed process group.

    driver                                        n actors, ranks 0 .. n-1
    run_in_processes ------- function -------->   function(process); they synchronize in collectives
       twice a second: interrupted()?  ------->   rank 0 stores the flag
                                                  process.interrupted(): broadcasts rank 0's flag to all
       on_report(...)  <-----------------------   process.report(...), rank 0's latest
       result, or error  <---------------------   returns, or raises; one that raises or dies ends all

Order rule: all processes enter the same collectives in the same order, and `process.interrupted` is one. They
rendezvous through a file in a hidden folder on a shared file system; torch's alternative, a TCP port, has no
authentication.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.distributed_c10d import broadcast, destroy_process_group, init_process_group

from envs.errors import UserError
from rollout.workers.handle import environment, explain, start_ray
from vla_model.files.folders import temporary_folder

T = TypeVar("T")
_POLL_EVERY_S = 0.5
_DEATH_REPORTED_WITHIN_S = 5.0
"""Time to wait after one process fails: another's death may be the cause, and Ray may report it later."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of the group, or the only one."""

    rank: int = 0
    """Rank 0 writes files."""
    count: int = 1
    device: torch.device = _CPU
    interrupted: Callable[[], bool]
    """Whether to stop and raise KeyboardInterrupt. A collective: every process must call it equally often."""
    report: Callable[..., object]
    """Report progress as keyword arguments; among several processes only rank 0's reports count."""


def run_in_processes(
    function: Callable[[Process], T],
    count: int,
    folder: Path,
    *,
    ray_address: str | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    on_report: Callable[..., object] = lambda **_: None,
) -> T:
    """Call the function in `count` new processes, each with one GPU if Ray has any, else with one core.

    They share a torch.distributed process group: nccl on GPUs, gloo on CPUs.

    Args:
        function: pickled, as is its result, which may hold no tensors.
        count: number of processes.
        folder: exists on a file system shared by all machines; holds a hidden folder until the end.
        ray_address: of a Ray cluster, as for `start_ray`.
        interrupted: polled in the driver; once true, the processes are interrupted.
        on_report: called in the driver with rank 0's latest report.

    Returns:
        The result of rank 0.

    Raises:
        UserError: Ray has GPUs, but fewer than `count`.
        KeyboardInterrupt: the processes stopped because they were interrupted.
        RuntimeError: a process died; the message names it. An exception of a process is raised here.
    """
    on_this_machine = start_ray(ray_address)
    import ray

    members = _start(count, on_this_machine)
    poll = members[0].poll.options(concurrency_group="poll")
    with temporary_folder(folder.resolve() / "processes") as rendezvous:
        try:
            runs = [member.run.remote(function, rank, count, rendezvous) for rank, member in enumerate(members)]
            stopped, pending = False, runs
            while pending:
                ready, pending = ray.wait(pending, num_returns=len(pending), timeout=_POLL_EVERY_S)
                stopped = stopped or interrupted()
                try:
                    ray.get(ready)
                    if report := ray.get(poll.remote(stopped)):
                        on_report(**report)
                except ray.exceptions.RayError as error:
                    if interrupted():  # a scheduler's SIGTERM ends the processes too
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
        raise UserError(f"{count} processes need one GPU each, but Ray has {gpus}: --learner.num-processes {gpus}")
    env_vars = {"OMP_NUM_THREADS": "1"} | environment()
    if on_this_machine:
        env_vars["GLOO_SOCKET_IFNAME"] = "lo"
    actor = ray.remote(
        # On a single machine Ray's CPU count must not delay their start, as in workers/workers.py.
        num_cpus=0 if on_this_machine else 1,
        num_gpus=1 if gpus else 0,
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": env_vars},
        concurrency_groups={"poll": 1},
    )(_Member)
    return [actor.remote() for _ in range(count)]


class _Member:
    """The actor: runs the function in one thread and answers `poll` in another."""

    def __init__(self) -> None:
        self._report: Mapping[str, Any] = {}
        self._stop = False

    def run(self, function: Callable[[Process], T], rank: int, count: int, rendezvous: Path) -> T | None:
        """Join the process group and call the function; None if it was interrupted."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backend = "nccl" if device.type == "cuda" else "gloo"
        init_process_group(backend, f"file://{rendezvous}/group", rank=rank, world_size=count)

        def interrupted() -> bool:
            stop = torch.tensor([self._stop], dtype=torch.uint8, device=device)
            broadcast(stop, 0)
            return bool(stop)

        def report(**values: Any) -> None:
            self._report = values

        process = Process(rank=rank, count=count, device=device, interrupted=interrupted, report=report)
        try:
            result = function(process)
        except KeyboardInterrupt:  # raised, it would make Ray treat the task as cancelled
            result = None
        destroy_process_group()
        return result

    def poll(self, stop: bool) -> Mapping[str, Any]:
        """The latest report; with `stop`, interrupts the function."""
        self._stop = stop
        return self._report


def _cause(runs: Sequence[Any]) -> Exception:
    """The exception to raise when processes failed: a death is the cause of the exceptions in the others."""
    import ray

    ended, _ = ray.wait(list(runs), num_returns=len(runs), timeout=_DEATH_REPORTED_WITHIN_S)
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
