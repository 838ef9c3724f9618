"""Simulator: the interface to N simulations of one model, independent of the device.

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
    """What a suite simulates."""

    model: mujoco.MjModel
    num_sims: int
    cameras: tuple[CameraSpec, ...]
    fields: tuple[str, ...]
    """Fields of MjData that the suite reads or writes."""
    per_sim_model_fields: tuple[str, ...]
    """Fields of MjModel with separate values per simulation."""


class Simulator(Protocol):
    """N simulations. Arrays are numpy or torch, depending on the simulator's device."""

    @property
    def field(self) -> Mapping[str, Array]:
        """Fields of MjData, each [N, ...]: live views, so reads give current values and writes take effect."""
        ...

    @property
    def model_field(self) -> Mapping[str, Array]:
        """Fields of MjModel with separate values per simulation, each [N, ...]: live views."""
        ...

    def on_device(self, array: Array) -> Array:
        """The array converted to the library, precision and device of `field`."""
        ...

    def begin(self, sims: Sequence[int], rows: Mapping[str, NDArray[Any]]) -> None:
        """Reset n simulations to the model's defaults, overwrite these fields, [n, ...], and compute positions."""
        ...

    def step(self, sims: Array, num_steps: int) -> Array:
        """Advance n simulations; the others are unchanged.

        Returns:
            Which of the n failed (non-finite or diverging state, or more constraints than the buffer holds), bool
            [n]. Those are restored to their last valid state, so that no invalid state is read or rendered.
        """
        ...

    def render(self, sims: Sequence[int]) -> dict[str, Array]:
        """Frames of the current states of these simulations, {camera: uint8 [n, H, W, 3]}."""
        ...

    def close(self) -> None:
        """Free the renderer."""
        ...


SimulatorMaker = Callable[[SimulatorSpec], Simulator]
