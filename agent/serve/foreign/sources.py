"""PolicySource: where `llamarm eval` gets a policy from. Here are the kinds that are not a folder of ours.

Names of a policy on the command line:

    ws://HOST:PORT            a server of openpi's protocol, `llamarm serve` among them
    vla-eval+ws://HOST:PORT   a model server of vla-eval
    MODULE:FUNCTION           a function, called with the WorldSpec, that returns a Policy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from agent.runs.messages import say
from agent.serve.client import ServedPolicy, check_metadata
from agent.serve.foreign.adapter import Adapter
from agent.serve.foreign.config import AdapterConfig, ServerAccessConfig
from agent.serve.foreign.vla_eval_policy import VlaEvalPolicy
from envs.errors import UserError
from envs.imported import imported
from envs.types import WorldSpec
from envs.world import World
from vla_model.files.deployment import Deployment, check_n_action_steps
from vla_model.types import Policy

_VLA_EVAL = "vla-eval+"


class PolicySource(Protocol):
    """Makes a policy for each world that it acts in. Pickled for workers."""

    @property
    def deployment(self) -> Deployment | None:
        """What the policy was made for, if that is known."""
        ...

    def steps(self, asked: int | None) -> int | None:
        """Actions to execute of each chunk: `asked`, else the policy's; None for all.

        Raises:
            UserError: the number exceeds the chunk.
        """
        ...

    def check(self, world: World, tasks: Sequence[str], variation: str) -> None:
        """
        Raises:
            UserError: the policy cannot act in this world.
        """
        ...

    def make_policy(self, world: World) -> Policy:
        """Called for every world, in the process that runs it."""
        ...

    def close(self) -> None:
        """Disconnect this process's policies."""
        ...


class Described(Protocol):
    """A world, or recordings of one."""

    world_spec: WorldSpec


class ForeignSource(PolicySource, Protocol):
    """One that knows of a world only its spec, so that its policies also act on recordings."""

    def check(self, world: Described, tasks: Sequence[str], variation: str) -> None:
        """As PolicySource's."""
        ...

    def make_policy(self, world: Described) -> Policy:
        """As PolicySource's."""
        ...


def foreign_source(name: str, adapter: AdapterConfig, access: ServerAccessConfig) -> ForeignSource | None:
    """The source of that name; None for a folder.

    Raises:
        UserError: the server cannot be reached, refuses this client or speaks another protocol; the function cannot be
            imported; or options of a server were given with something else.
    """
    if "://" not in name and (adapter, access) != (AdapterConfig(), ServerAccessConfig()):
        raise UserError(
            f"options --adapter and --server are of a server, ws://HOST:PORT or vla-eval+ws://HOST:PORT, got {name}"
        )
    if name.startswith(_VLA_EVAL):
        return VlaEvalServer(name.removeprefix(_VLA_EVAL), adapter, access)
    if "://" in name:
        return OpenpiServer(name, adapter, access)
    if ":" in name and not Path(name).exists():
        imported("policy", name)
        return Function(name)
    return None


@dataclass
class _Server:
    """A server, and this process's client of it."""

    url: str
    adapter: AdapterConfig
    access: ServerAccessConfig
    _policy: ServedPolicy | VlaEvalPolicy | None = field(init=False, default=None)

    def close(self) -> None:
        """Close the connections."""
        if self._policy is not None:
            self._policy.close()
            self._policy = None

    def _say_waits(self, trouble: Exception) -> None:
        say(self.url, f"{trouble}; tries again for {self.access.patience_s:g} s (--server.patience-s)")

    def __getstate__(self) -> dict[str, Any]:
        """Without connections: a worker makes its own."""
        return self.__dict__ | {"_policy": None}


@dataclass
class OpenpiServer(_Server):
    """A server of openpi's protocol. Its metadata, if it is of `llamarm serve`, says what its policy was made for."""

    metadata: dict[str, Any] = field(init=False)
    _steps: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        try:
            with ServedPolicy(self.url, waits=self._say_waits, **self.access.connection_options()) as policy:
                self.metadata = policy.metadata
        except ConnectionError as error:
            raise UserError(str(error)) from error

    @property
    def deployment(self) -> Deployment | None:
        """Of the metadata."""
        return Deployment.of(self.metadata) if {"world", "tasks", "n_action_steps"} <= self.metadata.keys() else None

    def steps(self, asked: int | None) -> int | None:
        """As asked, else the server's, else the preset's; printed if it is not known.

        Raises:
            UserError: the server's is no number of actions, or exceeds its chunk.
        """
        default = self.metadata.get("n_action_steps", self.adapter.resolved().n_action_steps)
        self._steps = default if asked is None else asked
        horizon = self.metadata.get("action_horizon")
        if self._steps is None:
            say(self.url, "its n_action_steps is not known; all actions of a chunk are executed (--n-action-steps)")
        elif self._steps < 1:
            raise UserError(
                f"{self.url} says that n_action_steps is {self._steps}, expected 1 or more (--n-action-steps)"
            )
        elif horizon is not None:
            check_n_action_steps(self._steps, horizon)
        return self._steps

    def check(self, world: Described, tasks: Sequence[str], variation: str) -> None:
        """The adapter fits the world, and the world is the server's, as far as its metadata describes it."""
        del tasks, variation
        Adapter(self.adapter, world.world_spec)
        if self.adapter == AdapterConfig():
            check_metadata(self.url, self.metadata, world.world_spec)

    def make_policy(self, world: Described) -> Policy:
        """A client with connections of its own, in place of this process's last one."""
        self.close()
        adapter = Adapter(self.adapter, world.world_spec, self._steps)
        try:
            self._policy = ServedPolicy(self.url, adapter=adapter, fail_rows=True, **self.access.connection_options())
        except ConnectionError as error:
            raise UserError(str(error)) from error
        return self._policy


@dataclass
class VlaEvalServer(_Server):
    """A model server of vla-eval, which executes its own chunks."""

    def __post_init__(self) -> None:
        if self.adapter.preset is None:
            self.adapter = replace(self.adapter, preset="vla-eval")
        self._connect(None, waits=self._say_waits).close()

    @property
    def deployment(self) -> Deployment | None:
        """Unknown."""
        return None

    def steps(self, asked: int | None) -> int | None:
        """1: every observation is answered with one action.

        Raises:
            UserError: another number was asked for.
        """
        if asked not in (None, 1):
            raise UserError(
                f"a server of vla-eval's protocol decides itself how many actions of a chunk to execute, so "
                f"n_action_steps is 1, got {asked}"
            )
        return 1

    def check(self, world: Described, tasks: Sequence[str], variation: str) -> None:
        """The adapter fits the world."""
        del tasks, variation
        Adapter(self.adapter, world.world_spec)

    def make_policy(self, world: Described) -> Policy:
        """A client with connections of its own."""
        self.close()
        self._policy = self._connect(Adapter(self.adapter, world.world_spec))
        return self._policy

    def _connect(self, adapter: Adapter | None, **options: Any) -> VlaEvalPolicy:
        try:
            return VlaEvalPolicy(self.url, adapter, **options, **self.access.connection_options())
        except ConnectionError as error:
            raise UserError(str(error)) from error


@dataclass(frozen=True)
class Function:
    """A function of the user's, MODULE:FUNCTION."""

    name: str

    @property
    def deployment(self) -> Deployment | None:
        """Unknown."""
        return None

    def steps(self, asked: int | None) -> int | None:
        """As asked, else all."""
        return asked

    def check(self, world: Described, tasks: Sequence[str], variation: str) -> None:
        """The function itself refuses a world that its policy does not fit."""
        del world, tasks, variation

    def make_policy(self, world: Described) -> Policy:
        """Call the function.

        Raises:
            UserError: it does not return a policy.
        """
        policy = imported("policy", self.name)(world.world_spec)
        lacking = [part for part in ("version", "begin", "act") if not hasattr(policy, part)]
        if lacking:
            raise UserError(
                f"policy {self.name!r} gave a {type(policy).__name__}, expected a llamarm.Policy; it lacks "
                f"{', '.join(lacking)}"
            )
        return policy

    def close(self) -> None:
        """Nothing to close."""
