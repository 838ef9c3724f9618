"""Conversion: a robot's own frames and actions, as its recordings have them -> those of a policy's WorldSpec.

A policy of recordings without our WorldSpec gets one that is inferred from the data (rollout/dataset/foreign/infer.py):
smaller frames, and actions in [-1, 1]. The conversion is saved with the policy and applied by whatever shows it frames
or executes its actions: reading datasets, serving, driving and evaluating.

A frame of another size is resized (vla_model/inputs/fit.py); one that has the policy's size already is not changed.

Shape letters: H x W pixels of a policy's frame, h x w of the robot's, A action dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.errors import UserError
from envs.types import CameraSpec
from vla_model.inputs.fit import Fit, fitted, planes_of, to_rgb


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a robot's own cameras and actions become those of a WorldSpec."""

    action_low: tuple[float, ...]
    """The robot's value of action -1, per dimension, below action_high."""
    action_high: tuple[float, ...]
    """The robot's value of action 1."""
    fit: Fit = "stretch"
    cameras: tuple[tuple[str, str], ...] = ()
    """(the robot's camera, its name for the policy) of the cameras with another name."""

    def camera_name(self, own: str) -> str:
        """The policy's name of one of the robot's cameras."""
        return dict(self.cameras).get(own, own)

    def with_cameras(self, renamed: Mapping[str, str]) -> Conversion:
        """The same, with further cameras {the robot's: its name for the policy}."""
        return replace(self, cameras=tuple((dict(self.cameras) | dict(renamed)).items()))

    def frame(self, frame: NDArray[np.uint8], camera: CameraSpec) -> NDArray[np.uint8]:
        """An RGB frame [h, w, 3] as the policy sees it, [H, W, 3]."""
        if frame.shape[:2] == (camera.height, camera.width):
            return frame
        return to_rgb(fitted(planes_of(frame), camera.height, camera.width, self.fit))

    def actions(self, recorded: ArrayLike) -> NDArray[np.float32]:
        """The robot's action values [..., A] -> actions, clipped to [-1, 1]."""
        low, high = np.array(self.action_low), np.array(self.action_high)
        scaled = (np.asarray(recorded, np.float64) - (low + high) / 2) / ((high - low) / 2)
        return scaled.clip(-1.0, 1.0).astype(np.float32)

    def recorded(self, actions: ArrayLike) -> NDArray[np.float64]:
        """The inverse of `actions`, [..., A]."""
        low, high = np.array(self.action_low), np.array(self.action_high)
        return (low + high) / 2 + (high - low) / 2 * np.asarray(actions, np.float64)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "action_low": list(self.action_low),
            "action_high": list(self.action_high),
            "fit": self.fit,
            "cameras": dict(self.cameras),
        }

    @classmethod
    def of(cls, content: Any, num_actions: int) -> Conversion:
        """From the output of `to_json`.

        Raises:
            UserError: a field is missing or has an invalid value.
        """
        if not isinstance(content, Mapping):
            raise UserError(f"a conversion is {content!r}, expected a map")
        fields: list[Any] = [content.get(key) for key in ("action_low", "action_high", "fit", "cameras")]
        low, high, fit, cameras = fields
        for bounds in (low, high):
            is_list = isinstance(bounds, list) and len(bounds) == num_actions
            if not is_list or not all(type(x) in (int, float) and np.isfinite(x) for x in bounds):
                raise UserError(f"a conversion has the action bounds {bounds!r}, expected {num_actions} finite numbers")
        if not all(a < b for a, b in zip(low, high, strict=True)):
            raise UserError(f"a conversion's actions go from {low} to {high}, expected low < high")
        if fit not in get_args(Fit):
            raise UserError(f"a conversion's fit is {fit!r}, expected {' or '.join(get_args(Fit))}")
        if not isinstance(cameras, dict) or not all(isinstance(name, str) for name in cameras.values()):
            raise UserError(f"a conversion's cameras are {cameras!r}, expected a map of names")
        return cls(action_low=tuple(low), action_high=tuple(high), fit=fit, cameras=tuple(cameras.items()))
