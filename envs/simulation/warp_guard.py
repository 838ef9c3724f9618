"""Kernels that keep invalid states out of a batch: a world that diverges is restored to its last valid state.

One thread per simulation. Shape letters: N simulations, nq positions, nv velocities.
"""

from __future__ import annotations

from typing import Any

import mujoco_warp as mjw
import warp as wp

_MAX_SOUND = 1e6
"""A larger position or speed counts as diverged; MuJoCo's own limit of 1e10 leaves no precision in float32."""
SHARED_FULL = int(mjw.OverflowType.BROADPHASE | mjw.OverflowType.NARROWPHASE | mjw.OverflowType.CCD)
"""Flags of Data.overflow: a buffer that all simulations share was full."""
_OWN_FULL = int(mjw.OverflowType.NEFC | mjw.OverflowType.NJMAX_NNZ)

wp.set_module_options({"enable_backward": False})


@wp.struct
class PhysicsState:
    """The state that a step depends on."""

    time: wp.array[float]  # [N]
    qpos: wp.array2d[float]  # [N, nq]
    qvel: wp.array2d[float]  # [N, nv]
    qacc_warmstart: wp.array2d[float]  # [N, nv]


@wp.func
def _is_sound(state: PhysicsState, sim: int) -> bool:
    for i in range(state.qpos.shape[1]):
        if not (wp.abs(state.qpos[sim, i]) < _MAX_SOUND):  # NaN is not less either
            return False
    for i in range(state.qvel.shape[1]):  # noqa: SIM110, a kernel has no generators
        if not (wp.abs(state.qvel[sim, i]) < _MAX_SOUND):
            return False
    return True


@wp.func
def _copy(source: PhysicsState, target: PhysicsState, sim: int) -> None:
    target.time[sim] = source.time[sim]
    for i in range(source.qpos.shape[1]):
        target.qpos[sim, i] = source.qpos[sim, i]
    for i in range(source.qvel.shape[1]):
        target.qvel[sim, i] = source.qvel[sim, i]
        target.qacc_warmstart[sim, i] = source.qacc_warmstart[sim, i]


@wp.kernel
def put_back_unsound(
    state: PhysicsState,
    sound: PhysicsState,
    broken: wp.array[wp.bool],  # [N]
) -> None:
    """Before a launch: non-finite values of one simulation may affect all."""
    sim = wp.tid()
    if not _is_sound(state, sim):
        broken[sim] = True
        _copy(sound, state, sim)


@wp.kernel
def settle(
    state: PhysicsState,
    sound: PhysicsState,
    moving: wp.array[wp.bool],  # [N]
    overflow: wp.array[int],  # [N], reset to 0
    broken: wp.array[wp.bool],  # [N]
    full: wp.array[int],  # [1], set to 1 if a shared buffer was full
) -> None:
    """After a launch: restore the simulations that failed or should not move, and remember the state of the others."""
    sim = wp.tid()
    flags = overflow[sim]
    overflow[sim] = 0
    if (flags & wp.static(SHARED_FULL)) != 0:
        full[0] = 1
    if (flags & wp.static(_OWN_FULL)) != 0 or not _is_sound(state, sim):
        broken[sim] = True
    if broken[sim] or not moving[sim]:
        _copy(sound, state, sim)
    else:
        _copy(state, sound, sim)


def physics_state(arrays: Any) -> PhysicsState:
    """The fields of a mujoco_warp.Data, or of anything with the same fields."""
    state = PhysicsState()
    state.time, state.qpos, state.qvel = arrays.time, arrays.qpos, arrays.qvel
    state.qacc_warmstart = arrays.qacc_warmstart
    return state
