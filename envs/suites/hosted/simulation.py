"""HostedSimulation: the object that simulates one world in the suite's interpreter.

Requests and replies are JSON; their letters: k actions of a request, m of them executed, A action dims, S state dims,
L localization dims, H x W pixels.

    {"do": "begin", ...}                -> {"state" [S], "localization" [L], "instruction"}, or {"broken": reason}
    {"do": "step", "actions" [k][A],    -> {"states" [m][S], "localization" [m][L], "rewards" {term: [m]},
     "render_ended"}                        "success", "truncated", "failure": the reason or None, "broken"}
    {"do": "expert"}                    -> {"expert" [A]}

"begin" has what the suite's `HostedWorld.begin_request` adds. Without an error of the environment, "broken" may be left
out. "begin" renders the frames; "step" renders them after its last action, except after an episode's end without
render_ended. "expert" is asked at most once in a state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
