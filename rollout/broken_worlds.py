"""Broken episodes: the policy has no action, or the world reports a failure, or returns a number that is not finite.

Shape letters: N worlds, k actions executed of a chunk, S state dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.arrays import to_numpy
from envs.types import Array, ChunkResult, Info, Observation

WORLD_FAILED = "its world failed"
POLICY_FAILED = "its policy failed"
"""Who ended a broken episode; the reason follows."""


def broken_at_reset(worlds: Sequence[int], observation: Observation, info: Info) -> dict[int, str]:
    """{world: reason} of the worlds that failed to reset or whose first observation is not finite.

    Args:
        worlds: those that were reset.
        observation: of all N worlds.
        info: of the reset.
    """
    values_of = {"state": to_numpy(observation["state"]), "localization": to_numpy(info["localization"])}
    bad = {n: [name for name, values in values_of.items() if not np.isfinite(values[n]).all()] for n in worlds}
    return {n: f"the {names[0]} is not finite at the first step" for n, names in bad.items() if names} | {
        n: why for n, why in info.get("broken", {}).items() if n in worlds
    }


def broken_in_chunk(result: ChunkResult, num_steps: Mapping[int, int]) -> dict[int, str]:
    """{world: reason} of the worlds whose episode cannot continue after a chunk.

    Args:
        result: of the chunk, on the host.
        num_steps: {world: steps of its episode before the chunk}, of the worlds that ran one.
    """
    values_of = {"reward": result.reward, "state": result.states, "localization": result.localization}
    values_of |= {f"reward term {name!r}": term for name, term in result.reward_terms.items()}
    if not result.broken and all(np.isfinite(values).all() for values in values_of.values()):
        return {}
    reasons = {n: _reason(n, result, values_of, steps) for n, steps in num_steps.items()}
    return {n: why for n, why in reasons.items() if why is not None}


def _reason(n: int, result: ChunkResult, values_of: Mapping[str, Array], num_steps: int) -> str | None:
    if n in result.broken:
        return result.failure[n] or "it does not say why"
    for name, values in values_of.items():
        # The observation after an episode's last action is never recorded, so it need not be finite.
        recorded = result.num_steps[n] - (result.done[n] and name in ("state", "localization"))
        bad = np.argwhere(~np.isfinite(values[n, :recorded]))
        if len(bad):
            return f"the {name} is {values[n][tuple(bad[0])]} (step {num_steps + bad[0][0] + 1})"
    return None
