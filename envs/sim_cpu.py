"""N simulations of one model on mujoco.batch.Batch: threads for physics, one renderer for frames.

What a suite needs of a simulator is here and nothing of what it means: state arrays, steps, frames, and the news that a
simulation's numbers went bad.

Shape letters: N simulations, n of them in a call, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from envs.render import BatchRenderer
from envs.types import CameraSpec

_BAD_NUMBERS = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)
"""Kinds of MuJoCo's warnings, one after the other: bad qpos, qvel, qacc, ctrl."""


class CpuSim:
    """N simulations on the CPU. Fields are live arrays, as Batch.bind and Batch.expand give them."""

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        num_sims: int,
        cameras: Sequence[CameraSpec],
        fields: Sequence[str],
        per_sim_model_fields: Sequence[str],
        num_threads: int = 1,
    ) -> None:
        # Persistent: what `step` computes at its end serves the next one too, which saves a twentieth of the physics.
        self.batch = Batch(model, num_sims, num_threads, persistent=True)
        self.field = {name: self.batch.bind(name) for name in fields}
        self.model_field = {name: self.batch.expand(name) for name in per_sim_model_fields}
        self._renderer = BatchRenderer(self.batch, self.model_field, cameras)
        self._warnings = self.batch.warning[:, _BAD_NUMBERS, 1]  # live; MuJoCo keeps (last info, count) of each kind
        self._seen_warnings = self._warnings.copy()
        self._sound_state = self.batch.state.copy()

    def clear(self, sims: Sequence[int]) -> None:
        """Put simulations back to the model's default state; the caller writes what differs and calls `refresh`."""
        self.batch.reset(sorted(sims), stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        self._seen_warnings[sims] = self._warnings[sims]

    def refresh(self, sims: Sequence[int]) -> None:
        """Compute positions of everything from the state, so that fields and frames are never stale."""
        self.batch.forward(sorted(sims), stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._sound_state[sims] = self.batch.state[sims]

    def step(self, sims: NDArray[np.int64], num_steps: int) -> NDArray[np.bool_]:
        """Advance n simulations; returns which of them went bad (numbers non-finite or exploding), [n].

        Those are put back to where they last were sound, so that nobody reads or draws bad numbers.
        """
        if not len(sims):
            return np.zeros(0, bool)
        bad = np.zeros(self.batch.nsim, bool)
        try:
            self.batch.step(sims, nstep=num_steps, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
        except SimulationError as error:
            bad[error.ids] = True
        # MuJoCo resets a simulation whose numbers explode to the model's defaults and leaves nothing but a warning.
        bad |= (self._warnings > self._seen_warnings).any(axis=1)
        state = self.batch.state[sims]
        bad = bad[sims] | ~np.isfinite(state).all(axis=1)
        if bad.any():
            self._put_back(sims[bad])
        self._sound_state[sims[~bad]] = state[~bad]
        return bad

    def render(self, sims: Sequence[int]) -> dict[str, NDArray[np.uint8]]:
        """Frames of these simulations as they are now, {camera: [n, H, W, 3]}."""
        return self._renderer.render(sims)

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def _put_back(self, sims: NDArray[np.int64]) -> None:
        self.batch.state[sims] = self._sound_state[sims]
        self.batch.forward(sims, stage=mujoco.mjtStage.mjSTAGE_POS.value)
        self._seen_warnings[sims] = self._warnings[sims]
