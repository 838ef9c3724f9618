"""Observations of some worlds, in numpy and in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.arrays import on_host, rows_of
from envs.types import Observation


def observation(*, tensors: bool) -> Observation:
    """Of three worlds; world n shows the number n."""
    frames = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    state = np.arange(3, dtype=np.float32)[:, None]
    found = Observation(
        frames={"front": torch.from_numpy(frames) if tensors else frames},
        state=torch.from_numpy(state) if tensors else state,
        instruction=("a", "b", "c"),
    )
    return Observation(**(found | {"step": np.array([4, 5, 6])}))


@pytest.mark.parametrize("tensors", [False, True])
def test_rows_come_in_the_requested_order_on_the_same_device(tensors: bool) -> None:
    whole = observation(tensors=tensors)
    some = rows_of(whole, [2, 0])
    assert isinstance(some["state"], torch.Tensor) == isinstance(some["frames"]["front"], torch.Tensor) == tensors
    here = on_host(some)
    np.testing.assert_array_equal(here["state"], [[2.0], [0.0]])
    np.testing.assert_array_equal(here["frames"]["front"][:, 0, 0, 0], [2, 0])
    assert here["instruction"] == ("c", "a")
    np.testing.assert_array_equal(here["step"], [6, 4])
    assert isinstance(here["state"], np.ndarray)
    assert isinstance(here["frames"]["front"], np.ndarray)


def test_all_rows_give_the_observation_itself_and_no_step_is_added() -> None:
    whole = observation(tensors=False)
    assert rows_of(whole, range(3)) is whole
    del whole["step"]
    assert "step" not in rows_of(whole, [1])
