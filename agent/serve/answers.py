"""From a server's answers to an ActionChunk.

Shape letters: n worlds, K chunk size, D columns of an answer, A action dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.arrays import to_float32
from vla_model.types import ActionChunk


def checked_actions(url: str, actions: NDArray[Any]) -> NDArray[np.float32]:
    """The actions [K, D] as float32.

    Raises:
        ConnectionError: there is none, or they are not finite numbers.
    """
    if actions.dtype.kind not in "fiu" or not len(actions):
        raise ConnectionError(
            f"{url} answers with {actions.dtype} {actions.shape}, expected one action or more, of numbers"
        )
    actions = to_float32(actions)
    if not np.isfinite(actions).all():
        raise ConnectionError(f"{url} answers with actions that are not finite numbers")
    return actions


def chunk_of(
    worlds: Sequence[int],
    actions: Mapping[int, NDArray[np.float32]],
    errors: Mapping[int, Exception],
    *,
    fail_rows: bool,
) -> ActionChunk:
    """The chunk of all worlds: each one's actions [K, A], or zeros and the reason of failure.

    Args:
        worlds: of the rows.
        actions: {world: [K, A]}; a world whose K is not the largest has failed too.
        errors: of the other worlds.
        fail_rows: report errors in ActionChunk.failed.

    Raises:
        UserError, ConnectionError: the first world's error, without fail_rows.
    """
    length = max(map(len, actions.values()), default=1)
    errors = dict(errors)
    for world, own in actions.items():
        if len(own) != length:
            errors[world] = ConnectionError(f"the answer has {len(own)} actions, that of another world {length}")
    if errors and not fail_rows:
        raise errors[next(world for world in worlds if world in errors)]
    size = next((own.shape[1] for own in actions.values()), 1)
    none = np.zeros((length, size), np.float32)
    return ActionChunk(
        actions=np.stack([none if world in errors else actions[world] for world in worlds]),
        failed={row: str(errors[world]) for row, world in enumerate(worlds) if world in errors},
    )
