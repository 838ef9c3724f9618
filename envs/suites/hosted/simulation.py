"""HostedSimulation: the object that simulates one world in the suite's interpreter.

Requests and replies are JSON; their letters: k actions of a request, m of them executed, A action dims, S state dims,
L localization dims, H x W pixels.

    {"do": "begin", "spec"}             -> {"state" [S], "localization" [L], "instruction"}
    {"do": "step", "actions" [k][A],    -> {"states" [m][S], "localization" [m][L], "rewards" {term: [m]},
     "render_ended"}                        "success", "truncated", "failure": the reason or None}
    {"do": "expert"}                    -> {"expert" [A]}

"spec" has the fields of an EpisodeSpec. "begin" renders the frames; "step" renders them after its last action, except
after an episode's end without render_ended. "expert" is asked at most once in a state. A reply with "broken": reason
ends the episode by an error of the environment; of a step it may have the other keys, of the actions before the error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.suites.returned import WorldError, calling
from envs.types import EpisodeSpec


class HostedSimulation(ABC):
    """Simulates one world; made from JSON-able arguments with its first request, and lives as long as the world."""

    @classmethod
    def prepare(cls, arguments: Mapping[str, Any]) -> None:
        """Called once with those arguments in the host, before it forks, to import what all worlds need."""
        del arguments

    @abstractmethod
    def answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """The reply to a request.

        Args:
            request: see the module.
            frames: shared memory that the cameras render to, uint8 [H, W, 3] each, in the order of the WorldSpec.

        Raises:
            UserError: raised in our process with the same message, as is NotImplementedError; any other exception
                becomes a RuntimeError with the traceback.
        """


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What one action did."""

    success: bool = False
    failure: str | None = None
    """Why the episode failed."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """{reward term: its value} of the terms besides "success"."""


class StepwiseSimulation(HostedSimulation):
    """A HostedSimulation that executes one action at a time, until the first success, failure or step limit.

    An exception of the suite ends only the episode in which it is raised.
    """

    def answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        try:
            with calling(request["do"]):
                return self._answer(request, frames)
        except WorldError as error:
            if isinstance(error.__cause__, NotImplementedError):
                raise error.__cause__ from None
            return {"broken": str(error)}

    def _answer(self, request: dict[str, Any], frames: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        if request["do"] == "expert":
            return {"expert": self.expert_action()}
        if request["do"] == "begin":
            instruction = self.begin(EpisodeSpec(**request["spec"]))
            reply = {"state": self.state(), "localization": self.localization(), "instruction": instruction}
            self.render(frames)
            return reply
        reply = self._step(request["actions"])
        ended = reply["success"] or reply["truncated"] or reply["failure"] is not None
        if request["render_ended"] or not ended:
            self.render(frames)
        return reply

    def _step(self, actions: list[list[float]]) -> dict[str, Any]:
        states, localization = [], []
        rewards = defaultdict(list)
        moved, truncated = Moved(), False
        for action in actions:
            moved = self.move(action)
            truncated = not moved.success and moved.failure is None and self.reached_step_limit()
            states.append(self.state())
            localization.append(self.localization())
            for term, value in {"success": float(moved.success), **moved.rewards}.items():
                rewards[term].append(value)
            if moved.success or truncated or moved.failure is not None:
                break
        return {
            "states": states,
            "localization": localization,
            "rewards": rewards,
            "success": moved.success,
            "truncated": truncated,
            "failure": moved.failure,
        }

    @abstractmethod
    def begin(self, spec: EpisodeSpec) -> str:
        """Begin an episode; returns its instruction."""

    @abstractmethod
    def move(self, action: list[float]) -> Moved:
        """Execute an action, [A]."""

    @abstractmethod
    def reached_step_limit(self) -> bool:
        """Whether the episode has had all its steps."""

    @abstractmethod
    def state(self) -> list[float]:
        """Proprioception, [S]."""

    @abstractmethod
    def localization(self) -> list[float]:
        """Labels, [L]."""

    @abstractmethod
    def expert_action(self) -> list[float]:
        """The suite's scripted action, [A].

        Raises:
            NotImplementedError: it has none.
        """

    @abstractmethod
    def render(self, frames: Sequence[NDArray[np.uint8]]) -> None:
        """Render to the frames of `answer`."""
