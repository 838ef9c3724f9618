"""The driver's handle of one worker, the configuration of all workers, and the start of Ray."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from envs.errors import UserError
from envs.types import EpisodeSpec
from envs.world import World
from rollout.inference import InferenceConfig
from rollout.types import Trajectory
from rollout.workers.process import Call, Collector, Heartbeat, WorkerInfo
from rollout.workers.report import Cause
from vla_model.types import Policy

CHECK_EVERY_S = 1.0
"""Period of the driver's health checks."""
_REACHED_WITHIN_S = 10.0
_START_ONE = "start one with `ray start --head` on the cluster's first machine, which prints its address"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class WorkersConfig:
    """Rollout workers: how many, where, and when one is replaced."""

    workers: Annotated[int, Interval(ge=0, le=10_000)] = 2
    """Ray workers; 0 runs the episodes in this process, without Ray."""
    ray_address: str | None = None
    """Ray cluster to join, "auto" or HOST:PORT; default: RAY_ADDRESS, else a new Ray on this machine only."""
    cpus_per_worker: Annotated[float, Interval(ge=0, le=1_000)] | None = None
    """CPUs that Ray reserves per worker; default: 1 in a cluster that was joined, 0 on this machine only, where workers
    never wait for CPUs."""
    gpus_per_worker: Annotated[float, Interval(ge=0, le=1_000)] = 0.0
    """GPUs that Ray reserves per worker; a fraction shares one."""
    progress_deadline_s: Annotated[float, Interval(gt=0, le=86_400)] = 300.0
    """A worker with episodes to run that makes no policy call for this long counts as hung and is replaced."""
    start_deadline_s: Annotated[float, Interval(gt=0, le=86_400)] = 300.0
    """The same for a worker that has not yet made its world and its policy."""
    memory_limit_gb: Annotated[float, Interval(gt=0, le=100_000)] | None = None
    """A worker whose peak resident memory exceeds this is replaced. Independently, Ray ends workers on a machine whose
    memory is nearly full."""
    inference: InferenceConfig | None = None
    """One inference process for all workers (rollout/inference.py); None for a policy in each worker."""

    def check(self) -> None:
        """
        Raises:
            UserError: see check_ray_address.
        """
        if self.ray_address is not None:
            check_ray_address(self.ray_address)


def environment() -> dict[str, str]:
    """Environment variables of workers: they import modules from the same paths as this process.

    They see only the GPUs that Ray assigned; by default Ray shows all GPUs to actors that requested none.
    """
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}


def check_ray_address(address: str) -> None:
    """Check that something listens there: Ray itself would retry for minutes and then end the process.

    Raises:
        UserError: nothing listens, or the address is malformed.
    """
    if address in ("auto", "local"):
        return
    place = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address)
    if place is None:
        raise UserError(f'ray-address is {address!r}, expected "auto" or HOST:PORT, for example 10.0.0.1:6379')
    try:
        socket.create_connection((place[1], int(place[2])), timeout=_REACHED_WITHIN_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}; {_START_ONE}") from error


def start_ray(address: str | None = None) -> bool:
    """Join the Ray cluster at that address or RAY_ADDRESS, else start one here that only this user can reach.

    It runs until this process ends; a second call does nothing.

    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 is Ray's switch to bind to the loopback address only. Ray requires a token from
    clients; a new one is generated for each process. Both are read when Ray is imported: a program that imported Ray
    before has Ray's defaults, a token in the user's home and all network interfaces.

    Returns:
        Whether the Ray is on this machine only.

    Raises:
        UserError: no cluster at that address, or Ray does not start on this machine.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    ours = not address
    if ours and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if not ray.is_initialized():
        if address:
            check_ray_address(address)
        # With Ray's default niceness of 15 a busy machine starves the workers, and a starved worker looks hung.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # "local" starts a new Ray; without an address, Ray joins the cluster last started on the machine.
        local = {"address": "local", "num_cpus": 1, "include_dashboard": False}
        with _sigterm_kept():
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", **(local if ours else {"address": address}))
            except ConnectionError as error:
                raise UserError(f"no Ray cluster found at {address!r}; {_START_ONE}") from error
            except Exception as error:
                if type(error) is not Exception:  # which Ray raises where its own processes do not start in time
                    raise
                raise UserError(f"Ray did not start: {error}; try again, or without Ray: --workers 0") from error
    return ours


@contextmanager
def _sigterm_kept() -> Generator[None]:
    """Restore the SIGTERM handler, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


class Remote:
    """The driver's side of one worker process, from its start to its end."""

    def __init__(
        self,
        make_world: Callable[[], World],
        make_policy: Callable[[World], Policy],
        config: WorkersConfig,
        *,
        num_cpus: float,
        name: str,
    ) -> None:
        """Start the process; it is ready once `info` is set."""
        import ray

        actor = ray.remote(
            num_cpus=num_cpus,
            num_gpus=config.gpus_per_worker,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": _ONE_THREAD | environment()},
            concurrency_groups={"heartbeat": 1},
        )(Collector)
        self._actor: Any = actor.remote(make_world, make_policy)
        self.name = name
        """Unique within a run."""
        self._config = config
        self._info_ref = self._actor.info.remote()
        self._heartbeat_ref: Any = None
        self._num_policy_calls = -1
        self._silent_s = 0.0
        self.info: WorkerInfo | None = None
        """None until it is ready."""
        self.calls: deque[Any] = deque()
        """Ray's streaming generators of object references, in the order in which the worker runs them."""
        self.assigned: list[EpisodeSpec] = []
        """Specs whose trajectory has not come yet."""
        self.expects_more = False

    @property
    def num_worlds(self) -> int:
        assert self.info is not None, "known only once the worker is ready"
        return self.info.num_worlds

    @property
    def running(self) -> list[EpisodeSpec]:
        """The specs that may have begun: a worker begins them in the order assigned."""
        return self.assigned[: self.num_worlds] if self.assigned else []

    @property
    def awaited(self) -> Any | None:
        """Reference to its next message: that it is ready, a trajectory, or the end of a call."""
        if self.info is None:
            return self._info_ref
        return self.calls[0] if self.calls else None

    def receive(self) -> Trajectory | None:
        """Take the awaited message once it has arrived; None if it is not a trajectory.

        Raises:
            RayError: the worker raised or died.
        """
        import ray

        self._silent_s = 0.0
        if self.info is None:
            self.info = ray.get(self._info_ref)
            self._heartbeat_ref = self._heartbeat()
            return None
        try:
            trajectory = ray.get(next(self.calls[0]))
        except StopIteration:
            self.calls.popleft()
            return None
        self.assigned.remove(trajectory.spec)
        return trajectory

    def submit(self, call: Call) -> None:
        self.calls.append(self._actor.run.options(num_returns="streaming").remote(call))
        self.assigned.extend(call.specs)
        self.expects_more = call.more_follow

    def check(self, elapsed_s: float) -> None:
        """Health check, called about every CHECK_EVERY_S, elapsed_s after the last call.

        Raises:
            UnhealthyWorkerError: it must be replaced.
            RayError: it died while idle.
        """
        import ray

        # Time in which the driver was busy elsewhere and read no messages does not count as silence of the worker.
        self._silent_s += min(elapsed_s, 2 * CHECK_EVERY_S)
        config = self._config
        if self.info is None:
            if self._silent_s > config.start_deadline_s:
                raise UnhealthyWorkerError("hung", f"not ready {config.start_deadline_s:g} s after its start")
            return
        if self.calls and ray.wait([self.calls[0]], timeout=0)[0]:
            return  # read its messages first: only specs that are unfinished after that can be the cause
        if ray.wait([self._heartbeat_ref], timeout=0)[0] and (heartbeat := self._read_heartbeat()) is not None:
            if not heartbeat.busy or heartbeat.num_policy_calls != self._num_policy_calls:
                self._silent_s = 0.0
            self._num_policy_calls = heartbeat.num_policy_calls
            held_gb, limit_gb = heartbeat.peak_memory_gb, config.memory_limit_gb
            if limit_gb is not None and held_gb > limit_gb:
                raise UnhealthyWorkerError("memory", f"it held {held_gb:.2f} GB, the limit is {limit_gb:g} GB")
            self._heartbeat_ref = self._heartbeat()
        if self._silent_s > config.progress_deadline_s:
            raise UnhealthyWorkerError("hung", f"no decision for {config.progress_deadline_s:g} s")

    def kill(self) -> None:
        import ray

        ray.kill(self._actor, no_restart=True)

    def _heartbeat(self) -> Any:
        return self._actor.heartbeat.options(concurrency_group="heartbeat").remote()

    def _read_heartbeat(self) -> Heartbeat | None:
        """None if the worker is dead but its last trajectories are still unread; its error follows them."""
        import ray

        try:
            return ray.get(self._heartbeat_ref)
        except ray.exceptions.RayError:
            if not self.calls:
                raise
            return None


class UnhealthyWorkerError(Exception):
    """A worker is alive but must be replaced: it hangs or exceeds its memory limit."""

    def __init__(self, cause: Cause, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def explain(error: Exception) -> tuple[Cause, str]:
    """Why a worker ended: the cause, and the reason in one line."""
    import ray

    if isinstance(error, UnhealthyWorkerError):
        return error.cause, str(error)
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, ray.exceptions.RayActorError):
        return "inference", "the inference process died"
    if isinstance(error, ray.exceptions.RayTaskError):
        return "raised", " ".join(f"{type(error.cause).__name__}: {error.cause}".split())
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "NODE_OUT_OF_MEMORY" in text:
        return "memory", "Ray ended it because its machine's memory was nearly full"
    if "node has died" in text or not isinstance(error, ray.exceptions.RayActorError):
        return "node", text[text.find("The actor died because") :]
    return "killed", "its process was killed or crashed"


def failed_to_start(error: Exception) -> bool:
    """Whether a worker ended because an exception was raised while making its world or policy."""
    import ray

    return isinstance(error, ray.exceptions.ActorDiedError) and error.actor_init_failed
