"""Simulator: what a suite needs of N simulations of one model, on whatever they run.

Shape letters: N simulations, n of them in a call, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
from numpy.typing import NDArray

from envs.types import Array, CameraSpec


@dataclass(frozen=True, kw_only=True)
class SimulatorSpec:
    """What a suite wants to simulate."""

    model: mujoco.MjModel
    num_sims: int
    cameras: tuple[CameraSpec, ...]
    fields: tuple[str, ...]
    """Of MjData: what the suite reads and writes."""
    per_sim_model_fields: tuple[str, ...]
    """Of MjModel: what each simulation has for itself."""


class Simulator(Protocol):
    """N simulations. Arrays are numpy or torch, as the simulator's device has it."""

    @property
    def field(self) -> Mapping[str, Array]:
        """Fields of MjData, each [N, ...]: live, so what is read is the present and what is written counts."""
        ...

    @property
    def model_field(self) -> Mapping[str, Array]:
        """Fields of MjModel that each simulation has for itself, [N, ...]: live."""
        ...

    def on_device(self, array: Array) -> Array:
        """The same numbers as an array like those of `field`: of the same library, precision and device."""
        ...

    def begin(self, sims: Sequence[int], rows: Mapping[str, NDArray[Any]]) -> None:
        """Put n simulations to the model's defaults but for these rows of fields, [n, ...], and compute positions."""
        ...

    def step(self, sims: Array, num_steps: int) -> Array:
        """Advance n simulations; the others hold still.

        Returns:
            Which of the n went bad (numbers non-finite or exploding, or more constraints than there is room for), bool
            [n]. Those are put back to where they last were sound, so that nobody reads or draws bad numbers.
        """
        ...

    def render(self, sims: Sequence[int]) -> dict[str, Array]:
        """Frames of these simulations as they are now, {camera: uint8 [n, H, W, 3]}."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


SimulatorMaker = Callable[[SimulatorSpec], Simulator]
