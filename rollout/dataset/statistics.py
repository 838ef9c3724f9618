"""Statistics of episodes and datasets in LeRobot's form (lerobot 0.4.4, `lerobot/datasets/compute_stats.py`).

Per feature: min, max, mean, std, count and the quantiles q01, q10, q50, q90, q99. A quantile of an episode comes from a
histogram of 5,000 bins between its minimum and maximum, interpolated linearly within the bin: with c_j the number of
values up to and including bin j and i the first bin with c_i >= q n,

    quantile = edge_i + (q n - c_{i-1}) / (c_i - c_{i-1}) * (edge_{i+1} - edge_i),   edge_0 where i = 0.

A dataset's quantile is the mean of its episodes' quantiles weighted by count, as LeRobot defines it; it is not the
quantile of all rows. Image statistics are per channel in [0, 1], of shape (3, 1, 1).

Shape letters: T frames of one episode, D vector elements, V distinct values, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rollout.dataset.frames import Frames

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_BINS = 5000
_PADDING = 1e-10

FeatureStats = dict[str, NDArray[Any]]


def vector_stats(values: NDArray[Any]) -> FeatureStats:
    """Statistics of a column [T] or [T, D], each entry of shape [D] (or [1])."""
    values = values.reshape(len(values), -1)  # [T, D]
    exact = values.astype(np.float64)
    weights = np.ones_like(exact)
    stats: FeatureStats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": exact.mean(axis=0),
        "std": exact.std(axis=0),
        "count": np.array([len(values)]),
    }
    if len(values) < 2:
        return stats | dict.fromkeys(QUANTILES, stats["mean"])
    return stats | _histogram_quantiles(np.sort(exact, axis=0), weights)


def image_stats(frames: Frames) -> FeatureStats:
    """Statistics of the T frames [H, W, 3] of one camera, from the same sample of frames as LeRobot's.

    Computed from a histogram of 256 values per channel, so that each pixel is read once.
    """
    chosen = set(_sample_indices(len(frames)).tolist())
    sample = np.stack([_thinned(frame) for step, frame in enumerate(frames) if step in chosen])
    tall = sample.reshape(-1, sample.shape[2], 3)  # [T*H, W, 3]
    counts = [cv2.calcHist([tall], [channel], None, [256], [0, 256]) for channel in range(3)]
    weights = np.stack([count.ravel() for count in counts], axis=-1).astype(np.float64)  # [V, 3]
    values = np.broadcast_to(np.arange(256.0)[:, None], weights.shape)  # [V, 3]
    count = weights.sum(axis=0)
    mean = (values * weights).sum(axis=0) / count
    variance = ((values - mean) ** 2 * weights).sum(axis=0) / count
    stats: FeatureStats = {
        "min": np.argmax(weights > 0, axis=0),
        "max": 255 - np.argmax(weights[::-1] > 0, axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
    }
    stats |= _histogram_quantiles(values, weights)
    scaled: FeatureStats = {name: (value / 255.0).reshape(3, 1, 1) for name, value in stats.items()}
    return scaled | {"count": np.array([len(sample)])}


def aggregate(parts: Sequence[FeatureStats]) -> FeatureStats:
    """Combine the statistics of several episodes or datasets."""
    count = np.stack([part["count"] for part in parts])  # [P, 1]
    weights = count.reshape(-1, *[1] * parts[0]["mean"].ndim) / count.sum()
    mean = sum(weights * np.stack([part["mean"] for part in parts]))
    variance = sum(weights * np.stack([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts]))
    together: FeatureStats = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": np.asarray(mean),
        "std": np.sqrt(variance),
        "count": count.sum(axis=0),
    }
    return together | {q: np.asarray(sum(weights * np.stack([part[q] for part in parts]))) for q in QUANTILES}


def _histogram_quantiles(values: NDArray[np.float64], weights: NDArray[Any]) -> FeatureStats:
    """Quantiles of weighted values, sorted along axis 0; both [V, D]."""
    held = weights > 0
    low = np.where(held, values, np.inf).min(axis=0) - _PADDING
    high = np.where(held, values, -np.inf).max(axis=0) + _PADDING
    width = (high - low) / _BINS
    # For a constant column of large value the padding is below float precision, and the width is 0.
    safe = np.where(width > 0, width, 1.0)
    bins = np.clip(np.floor((values - low) / safe), 0, _BINS - 1)  # [V, D]
    below = np.cumsum(weights, axis=0)  # [V, D]
    total = below[-1]
    quantiles: FeatureStats = {}
    for name, q in QUANTILES.items():
        target = q * total
        reached = np.argmax(below >= target, axis=0)  # [D]
        bin_ = np.take_along_axis(bins, reached[None], axis=0)  # [1, D]
        before = np.where(bins < bin_, weights, 0).sum(axis=0)
        inside = np.where(bins == bin_, weights, 0).sum(axis=0)
        fraction = np.where(bin_[0] == 0, 0.0, (target - before) / inside)
        quantiles[name] = low + (bin_[0] + fraction) * width
    return quantiles


def _sample_indices(length: int) -> NDArray[np.int64]:
    """All frames of an episode of up to 100, then a sample that grows as length^0.75, at most 10,000."""
    size = max(min(100, length), min(int(length**0.75), 10_000))
    return np.round(np.linspace(0, length - 1, size)).astype(np.int64)


def _thinned(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Subsample frames of 300 pixels and more to about 150."""
    size = max(frame.shape[:2])
    # A copy: a view would keep the whole frame in memory.
    return frame if size < 300 else frame[:: size // 150, :: size // 150].copy()
