"""Which episodes a world cannot go on with: it says so itself, or gives a number that is not finite.

Shape letters: N worlds, k actions executed of a chunk, S state dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from envs.arrays import to_numpy
from envs.types import Array, ChunkResult, Info, Observation


def not_begun(worlds: Sequence[int], observation: Observation, info: Info) -> dict[int, str]:
    """Which of these worlds could not begin their episode, or begin it with numbers that are not finite, and why.

    Args:
        worlds: that were reset.
        observation: of all N worlds.
        info: of the reset.
    """
    told = {"state": to_numpy(observation["state"]), "localization": to_numpy(info["localization"])}
    bad = {n: [name for name, values in told.items() if not np.isfinite(values[n]).all()] for n in worlds}
    return {n: f"the {names[0]} is not finite at the first step" for n, names in bad.items() if names} | {
        n: why for n, why in info.get("broken", {}).items() if n in worlds
    }


def broken(result: ChunkResult, num_steps: Mapping[int, int]) -> dict[int, str]:
    """Which worlds cannot go on after a chunk, and why.

    Args:
        result: of the chunk, on the host.
        num_steps: of the episode of each world that ran one, before the chunk.
    """
    told = {"reward": result.reward, "state": result.states, "localization": result.localization}
    told |= {f"reward term {name!r}": term for name, term in result.reward_terms.items()}
    if not result.broken and all(np.isfinite(values).all() for values in told.values()):
        return {}
    reasons = {n: _why(n, result, told, steps) for n, steps in num_steps.items()}
    return {n: why for n, why in reasons.items() if why is not None}


def _why(n: int, result: ChunkResult, told: Mapping[str, Array], num_steps: int) -> str | None:
    if n in result.broken:
        return result.failure[n] or "it does not say why"
    for name, values in told.items():
        # What a world shows after an episode's last action belongs to no decision, and nobody records it.
        seen = result.num_steps[n] - (result.done[n] and name in ("state", "localization"))
        bad = np.argwhere(~np.isfinite(values[n, :seen]))
        if len(bad):
            return f"the {name} is {values[n][tuple(bad[0])]} (step {num_steps + bad[0][0] + 1})"
    return None
