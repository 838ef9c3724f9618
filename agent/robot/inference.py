"""Asynchronous inference for the control loop, which never waits for it.

    control loop                                          inference thread
      request(observation) ──────► requests ────────────►   waits for a request; begin or act
      receive() ◄───────────────── answers ◄─────────────   puts the answer, waits again

Who waits: only the inference thread, for a request; `request` and `close` unblock it.
Order rule: one request at a time. The loop sends the next one, with its newest observation, after it has received the
answer, so no request is older than one inference, and answers arrive in order.

After a policy has raised, `receive` raises PolicyError. One that hangs blocks only its own thread, which ends with the
process.
"""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.types import Observation
from vla_model.types import Policy

_CLOSE_S = 1.0
"""Timeout for a thread that may hang in its policy."""


class PolicyError(RuntimeError):
    """The policy raised; __cause__ is its exception."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A policy's answer to an observation."""

    chunk: NDArray[Any]
    """Not validated yet; should be float32 [1, K, A]."""
    expert_usage: NDArray[np.float32] | None
    """[1, layers, E], where the policy has experts."""
    inference_s: float
    """Duration of the inference."""


class Inference(Protocol):
    """Inference of one policy, one request at a time."""

    def begin(self, instruction: str, seed: int) -> None:
        """Begin an episode: the policy encodes the instruction before the next answer. Does not wait."""
        ...

    def request(self, observation: Observation) -> None:
        """Request a chunk. Only after the last answer was received."""
        ...

    def receive(self) -> Answer | None:
        """Receive the answer, once; None while there is none.

        Raises:
            PolicyError: the policy raised.
        """
        ...

    def close(self) -> None:
        """End inference."""
        ...


def infer(policy: Policy, observation: Observation) -> Answer:
    """The policy's answer, with the duration of the inference."""
    began_s = time.perf_counter()
    chunk = policy.act([0], observation)
    actions = to_numpy(chunk.actions)
    return Answer(chunk=actions, expert_usage=chunk.expert_usage, inference_s=time.perf_counter() - began_s)


class InferenceThread:
    """Inference in a separate thread."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._requests: queue.SimpleQueue[tuple[str, int] | Observation | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def begin(self, instruction: str, seed: int) -> None:
        self._requests.put((instruction, seed))

    def request(self, observation: Observation) -> None:
        self._requests.put(observation)

    def receive(self) -> Answer | None:
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        if isinstance(answer, Exception):
            raise PolicyError(f"the policy raised {answer!r}") from answer
        return answer

    def close(self) -> None:
        self._requests.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            while (request := self._requests.get()) is not None:
                if isinstance(request, tuple):
                    instruction, seed = request
                    self._policy.begin([0], (instruction,), (seed,))
                else:
                    self._answers.put(infer(self._policy, request))
        except Exception as error:
            self._answers.put(error)
