"""AR(1) noise by hand; its distribution is tested where it is used (test_noise.py, test_collect.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.types import Array
from vla_model.numerics.correlated_noise import next_noise


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_successive_samples_have_the_given_correlation(array: type[Array]) -> None:
    first = next_noise(None, array([1.0, -2.0]), 0.6)
    second = next_noise(first, array([0.5, 1.0]), 0.6)
    np.testing.assert_array_equal(np.asarray(first), [1.0, -2.0])
    np.testing.assert_allclose(np.asarray(second), [0.6 * 1.0 + 0.8 * 0.5, 0.6 * -2.0 + 0.8 * 1.0])
    np.testing.assert_array_equal(np.asarray(next_noise(first, array([0.5, 1.0]), 0.0)), [0.5, 1.0])
