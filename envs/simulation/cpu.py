"""N simulations of one model on mujoco.batch.Batch: threads for physics, one renderer for frames.

Shape letters: N simulations, n of them in a call, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from envs.arrays import to_numpy
from envs.simulation.render import BatchRenderer
from envs.simulation.simulator import SimulatorSpec
from envs.types import Array

_BAD_NUMBERS = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)
"""A contiguous range of MuJoCo warning types: bad qpos, qvel, qacc, ctrl."""


class CpuSim:
    """A Simulator on the CPU. Fields are live arrays, as returned by Batch.bind and Batch.expand."""

    def __init__(self, spec: SimulatorSpec, *, num_threads: int) -> None:
        # Persistent: the next `step` reuses what the last one computed at its end, which saves 5 % of the physics time.
        self.batch = Batch(spec.model, spec.num_sims, num_threads, persistent=True)
        self.field = {name: self.batch.bind(name) for name in spec.fields}
        self.model_field = {name: self.batch.expand(name) for name in spec.per_sim_model_fields}
        self._renderer = BatchRenderer(self.batch, self.model_field, spec.cameras)
        self._warnings = self.batch.warning[:, _BAD_NUMBERS, 1]  # live; MuJoCo stores (last info, count) per type
        self._seen_warnings = self._warnings.copy()
        self._sound_state = self.batch.state.copy()

    def on_device(self, array: Array) -> NDArray[Any]:
        return to_numpy(array)

    def begin(self, sims: Sequence[int], rows: Mapping[str, NDArray[Any]]) -> None:
        self.batch.reset(sorted(sims), stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._seen_warnings[sims] = self._warnings[sims]
        for name, values in rows.items():
            (self.field if name in self.field else self.model_field)[name][sims] = values
        self.batch.forward(sorted(sims), stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._sound_state[sims] = self.batch.state[sims]

    def step(self, sims: NDArray[np.int64], num_steps: int) -> NDArray[np.bool_]:
        if not len(sims):
            return np.zeros(0, bool)
        bad = np.zeros(self.batch.nsim, bool)
        try:
            self.batch.step(sims, nstep=num_steps, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
        except SimulationError as error:
            bad[error.ids] = True
        # MuJoCo resets a diverging simulation to the model's defaults; the only trace is a warning.
        bad |= (self._warnings > self._seen_warnings).any(axis=1)
        state = self.batch.state[sims]
        bad = bad[sims] | ~np.isfinite(state).all(axis=1)
        if bad.any():
            self._put_back(sims[bad])
        self._sound_state[sims[~bad]] = state[~bad]
        return bad

    def render(self, sims: Sequence[int]) -> dict[str, NDArray[np.uint8]]:
        """Frames of the current states of these simulations, {camera: uint8 [n, H, W, 3]}."""
        return self._renderer.render(sims)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def _put_back(self, sims: NDArray[np.int64]) -> None:
        self.batch.state[sims] = self._sound_state[sims]
        self.batch.forward(sims, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._seen_warnings[sims] = self._warnings[sims]
