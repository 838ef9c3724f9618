"""A function in several processes that compute together: Ray Train starts, joins and watches them.

    this process                               n processes, ranks 0 .. n-1
    run_in_processes; in a thread: fit() ----> function(process)       they wait for each other in collectives
       waits, and twice a second
       interrupted()? makes the file `stop`    process.interrupted()   rank 0 looks for it, all learn the answer
       hear(news)  <-------- file `news` ----  process.tell(news)      rank 0
       result, or error  <-------------------  returns, or raises      one that raises or dies ends all

Order rule: all processes enter the same collectives in the same order, and `process.interrupted` is one. The files,
and a third by which the processes find each other, are in a folder that every machine sees, as Ray Train asks of its
storage anyway; it is gone when the function returns.

Ray Train's own answer to Ctrl-C, which kills the processes at once, is for programs whose main thread calls fit();
in a thread of its own, fit() leaves Ctrl-C to us.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.distributed.distributed_c10d import broadcast, destroy_process_group, init_process_group

from envs.errors import UserError
from rollout.workers.handle import environment, start_ray
from vla_model.files.folders import write_json

T = TypeVar("T")
_LOOK_EVERY_S = 0.5
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
        function: it and its result are pickled, and the result may hold no tensors. The processes have another working
            directory.
        count: how many.
        folder: exists, and all machines see it; a hidden folder in it holds what Ray Train writes, until the end.
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
    from ray.train import TrainingFailedError

    with tempfile.TemporaryDirectory(prefix=".processes-", dir=folder.resolve()) as storage:
        done = _in_background(_trainer(function, count, Path(storage), on_this_machine).fit)
        try:
            ended = False
            while not ended:
                ended = bool(wait([done], _LOOK_EVERY_S).done)
                if interrupted():
                    _stop(storage).touch()
                if _news(storage).exists():
                    hear(**json.loads(_news(storage).read_text()))
        except BaseException:  # A second Ctrl-C: the processes, whatever they do, end with Ray's session.
            ray.shutdown()
            raise
        try:
            result = done.result().return_value
        except TrainingFailedError as error:
            if interrupted():  # A scheduler's SIGTERM ends the processes too.
                raise KeyboardInterrupt from error
            raise _cause(error) from error
        if _stop(storage).exists():
            raise KeyboardInterrupt
        return result


def _trainer(function: Callable[[Process], T], count: int, storage: Path, on_this_machine: bool) -> Any:
    import ray
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = int(ray.cluster_resources().get("GPU", 0))
    if 0 < gpus < count:
        raise UserError(f"{count} processes want a GPU each, and Ray has {gpus}")

    class OwnGroup(TorchConfig):
        """Ray Train's own group meets at a port that is open to every address and asks nobody who they are."""

        backend_cls = Backend

    def run() -> T | None:
        process = _join(storage)
        try:
            result = function(process)
        except KeyboardInterrupt:  # Asked for, so Ray Train must not report it as a failure.
            result = None
        destroy_process_group()
        return result

    # On this machine alone Ray's own count of CPUs must not make them wait, as in workers/workers.py; 0 is no resource.
    scaling = ScalingConfig(
        num_workers=count,
        use_gpu=gpus > 0,
        resources_per_worker={"CPU": 0.001 if on_this_machine else 1},
        placement_strategy="SPREAD",
    )
    env_vars = {"OMP_NUM_THREADS": "1"} | environment()
    if on_this_machine:
        env_vars["GLOO_SOCKET_IFNAME"] = "lo"
    return TorchTrainer(
        run,
        torch_config=OwnGroup(),
        scaling_config=scaling,
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            worker_runtime_env={"env_vars": env_vars},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _join(storage: Path) -> Process:
    """Wait in a new process until all have come, and say which of them this is."""
    from ray.train import get_context
    from ray.train.torch import get_device

    rank, count, device = get_context().get_world_rank(), get_context().get_world_size(), get_device()
    backend = "nccl" if device.type == "cuda" else "gloo"
    init_process_group(backend, f"file://{storage}/group", rank=rank, world_size=count)

    def interrupted() -> bool:
        came = torch.tensor([rank == 0 and _stop(storage).exists()], dtype=torch.uint8, device=device)
        broadcast(came, 0)
        return bool(came)

    def tell(**news: Any) -> None:
        if rank == 0:
            write_json(_news(storage), news)

    return Process(rank=rank, count=count, device=device, interrupted=interrupted, tell=tell)


def _cause(error: Exception) -> Exception:
    """What to raise for an error of Ray Train: a process that died is the cause of what the others raised then."""
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    if not isinstance(error, WorkerGroupError):
        return RuntimeError(f"the processes could not be run: {error}")
    failures = error.worker_failures
    for rank, failure in failures.items():
        if isinstance(failure, WorkerHealthCheckFailedError):
            return RuntimeError(f"process {rank} died: {failure.health_check_failure}")
    rank, failure = min(failures.items())
    failure.add_note(f"raised in process {rank}")
    return failure


def _in_background(function: Callable[[], T]) -> Future[T]:
    """Of a thread that does not keep this program alive."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # It belongs to whoever waits, whatever it is.
            done.set_exception(error)

    threading.Thread(target=run, name="processes", daemon=True).start()
    return done


def _stop(storage: str | Path) -> Path:
    return Path(storage) / "stop"


def _news(storage: str | Path) -> Path:
    return Path(storage) / "news"
