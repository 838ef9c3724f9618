"""ClientState: one client's episode on the server, and inference for its observations.

Shape letters: K chunk size, A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_float32
from envs.errors import UserError
from envs.types import Observation, WorldSpec
from rollout.inference import InferenceServer

if TYPE_CHECKING:
    from vla_model.inputs.processor import Processor

_MAX_STEP = 1_000_000_000


class ClientState:
    """One client. Its instruction is encoded once, and again when it changes; its observations are batched with those
    of other clients, so each is validated before.

    A policy with an observation history needs each observation's control step. Where a client sends none, it is
    `n_action_steps` after the previous one. An episode begins with another instruction, with a smaller step than the
    last one, or by `restart`.
    """

    def __init__(self, name: str, processor: Processor, inference: InferenceServer, n_action_steps: int) -> None:
        """
        Args:
            name: unique among clients.
            n_action_steps: actions of each chunk that a client should execute.
        """
        self.n_action_steps = n_action_steps
        self._name = name
        self._processor = processor
        self._inference = inference
        self._instruction: str | None = None
        self._step = 0
        """Of the last observation."""

    @property
    def world_spec(self) -> WorldSpec:
        """Cameras, state and actions of the policy."""
        return self._processor.world_spec

    @property
    def resizes(self) -> bool:
        """Whether the policy resizes frames: it was trained on a robot's recordings."""
        return self._processor.conversion is not None

    def restart(self) -> None:
        """The next observation begins an episode."""
        self._instruction = None

    async def act(
        self, frames: Mapping[str, NDArray[Any]], state: NDArray[Any], instruction: str, step: int | None = None
    ) -> NDArray[Any]:
        """The policy's action chunk, float32 [K, A].

        Args:
            frames: {camera: uint8 [H, W, 3]}; of any size for a policy that resizes them.
            state: [S], in the world's units.
            step: control steps since the episode began; None if the client sends none.

        Raises:
            UserError: an input differs from the policy's world.
            RuntimeError: the policy failed, or its actions are invalid.
        """
        if step is not None and not 0 <= step <= _MAX_STEP:
            raise UserError(f"the step is {step}, expected 0 to {_MAX_STEP} control steps since the episode began")
        begins = instruction != self._instruction or (step is not None and step < self._step)
        if step is None:
            step = 0 if begins else self._step + self.n_action_steps
        observation = Observation(
            frames=self._processor.fit_frames({camera: frame[None] for camera, frame in frames.items()}),
            state=to_float32(state)[None],
            instruction=(instruction,),
            step=np.array([step]),
        )
        self._check(observation)
        try:
            if begins:
                await self._inference.begin(self._name, [0], (instruction,), (0,))
                self._instruction = instruction
            self._step = step
            chunk = await self._inference.act(self._name, [0], observation)
        except Exception as error:  # a ValueError too, because the observation is valid
            raise RuntimeError("the policy failed") from error
        self._check_actions(chunk.actions[0])
        return chunk.actions[0]

    async def end(self) -> None:
        """Drop the client's state."""
        await self._inference.forget(self._name)

    def _check(self, observation: Observation) -> None:
        self._processor.encode_frames(observation["frames"])
        self._processor.encode_state(observation["state"])
        (instruction,) = observation["instruction"]
        self._processor.check_instruction(instruction)

    def _check_actions(self, actions: NDArray[np.float32]) -> None:
        allowed = (np.abs(actions) <= 1.0).all(axis=0)  # [A], False for NaN
        if not allowed.all():
            names = ", ".join(np.array(self.world_spec.action.names)[~allowed])
            raise RuntimeError(f"the policy's actions are not numbers from -1 to 1: {names}")
