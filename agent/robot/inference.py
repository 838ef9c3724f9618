"""Inference beside the control loop: the loop asks and looks, and never waits.

    control loop                                          inference thread
      ask(observation) ──────────► requests ────────────►   waits for a request; begin or act
      hear() ◄──────────────────── answers ◄─────────────   puts the answer, waits again

Who waits: the inference thread, for a request; `ask` and `close` unblock it. The loop waits for nobody.
Order rule: one request at a time. The loop asks again when it has heard the answer, with its newest observation, so no
request is ever stale by more than one inference, and answers come in the order of their questions.

A policy that raises is dead, and `hear` raises PolicyError. One that never answers blocks its own thread
alone; Python ends the thread with the process.
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
"""How long a thread is waited for that may hang in its policy."""


class PolicyError(RuntimeError):
    """The policy raised; __cause__ is what."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a policy says to an observation."""

    chunk: NDArray[Any]
    """As it came, which should be float32 [1, K, A]."""
    expert_usage: NDArray[np.float32] | None
    """[1, layers, E], where the policy has experts."""
    inference_s: float
    """How long it took."""


class Inference(Protocol):
    """One policy, asked once at a time."""

    def begin(self, instruction: str, seed: int) -> None:
        """An episode begins: before the next answer the policy reads the instruction. Does not wait."""
        ...

    def ask(self, observation: Observation) -> None:
        """Ask for a chunk. Only after the last answer was heard."""
        ...

    def hear(self) -> Answer | None:
        """The answer, once; None while there is none.

        Raises:
            PolicyError: the policy raised.
        """
        ...

    def close(self) -> None:
        """Ask nothing any more."""
        ...


def decide(policy: Policy, observation: Observation) -> Answer:
    """Ask the policy and wait for the answer."""
    began_s = time.perf_counter()
    chunk = policy.act([0], observation)
    actions = to_numpy(chunk.actions)
    return Answer(chunk=actions, expert_usage=chunk.expert_usage, inference_s=time.perf_counter() - began_s)


class InferenceThread:
    """Inference in a thread of its own."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._requests: queue.SimpleQueue[tuple[str, int] | Observation | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def begin(self, instruction: str, seed: int) -> None:
        self._requests.put((instruction, seed))

    def ask(self, observation: Observation) -> None:
        self._requests.put(observation)

    def hear(self) -> Answer | None:
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
                    self._answers.put(decide(self._policy, request))
        except Exception as error:
            self._answers.put(error)
