"""The safety filter, which limits every action before it is sent to the robot.

Each time that the action sent differs from the action requested, an Intervention is logged.

Limits are applied one after the other, the most important last, so where two conflict the later one holds:

    change      |a_t - a_{t-1}| <= max_change
    range       -1 <= a <= 1
    acceleration  |v_t - v_{t-1}| <= max_acceleration dt
    velocity    |v_t| <= max_velocity
    position    low <= x <= high, braking in time: v <= 2 d / (dt + sqrt(dt^2 + 2 d / max_acceleration))

x is the measured position of an axis, v the commanded velocity, d the distance to the bound. The bound on the position
is the largest velocity from which an arm that follows its commands comes to rest within d, decelerating by
max_acceleration dt in every period: v dt + v^2 / (2 max_acceleration) <= d. Outside its range an axis may only rest or
return: the filter moves nothing by itself.

The action range [-1, 1] is a limit too: of the velocity of an axis with displacements, of the position of one with
targets. Where an axis with targets is outside that range, resting and returning within its limits take actions outside
[-1, 1].

A hold is rest in the next period, regardless of the limits on acceleration and change: no displacement, and the last
target again, as far as the velocity limit allows.

Shape letters: A action dims, S state dims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading, RobotSpec
from envs.arrays import to_float32
from envs.types import VectorSpec

Reason = Literal[
    "change",
    "acceleration",
    "velocity",
    "position",
    "range",
    "watched state",
    "stale observation",
    "broken observation",
    "refused chunk",
    "refused action",
    "silent policy",
    "late chunk",
    "stop",
    "robot failed",
    "recording failed",
]

_FAR = 1e9
"""Stands for an infinite distance, in any unit."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """An action that was changed or not sent."""

    time_s: float
    """Since the drive's first period."""
    period: int
    """Control period, counted from 0."""
    reason: Reason
    detail: str
    """To print: which axis, how old, what error."""
    came: NDArray[Any] | None = None
    """Requested: an action [A], or a whole chunk where that was refused; None where there was none."""
    sent: NDArray[np.float32] | None = None
    """[A]; None where nothing was sent."""


class SafetyFilter:
    """Applies a robot's limits; its state is the last action sent."""

    def __init__(self, spec: RobotSpec) -> None:
        """At rest; call `begin` with the first state."""
        self._spec = spec
        self._dt_s = spec.world.control_dt_s
        states = spec.world.state.names
        self._relative, self._scale, self._offset = spec.relative, spec.scale, spec.offset
        self._low, self._high, self._max_velocity, self._max_acceleration, self._max_change = (
            np.array([getattr(axis.limits, name) for axis in spec.axes])
            for name in ("low", "high", "max_velocity", "max_acceleration", "max_change")
        )
        reach = np.abs(self._scale)
        shows_target = ~self._relative & spec.measured
        self._low = np.where(shows_target, np.maximum(self._low, self._offset - reach), self._low)
        self._high = np.where(shows_target, np.minimum(self._high, self._offset + reach), self._high)
        self._velocity_bound = np.where(
            self._relative, np.minimum(self._max_velocity, reach / self._dt_s), self._max_velocity
        )
        self._shows_target = shows_target
        self._watched_columns = [states.index(watch.state) for watch in spec.watched]
        self._last_action: NDArray[np.float32] | None = None
        self._target = np.zeros(len(spec.axes))  # that a hold sends to the axes with targets
        self._seen = np.zeros(len(spec.axes))  # positions in the newest valid reading
        self._last_velocity = np.zeros(len(spec.axes))
        self._last_watched: tuple[float, NDArray[np.float32]] | None = None

    def begin(self, state: NDArray[np.float32]) -> None:
        """Set the initial positions from a valid state [S]."""
        self._seen = self._spec.position(state)
        self._target = np.where(self._spec.measured, self._staying(self._seen), self._target)

    def trouble_with(self, reading: Reading, now_s: float, stale_after_s: float) -> tuple[Reason, str] | None:
        """Why the robot must hold on this reading; None if it is valid. Call once per period."""
        if problems := broken_parts(self._spec, reading):
            return "broken observation", "; ".join(problems)
        age_s = now_s - reading.time_s
        if age_s < -stale_after_s:  # it would never become stale
            return "broken observation", f"its time is {-age_s:.3g} s ahead of the clock that drives the robot"
        if not age_s <= stale_after_s:
            return "stale observation", f"{1000 * age_s:.0f} ms old"
        self._seen = self._spec.position(reading.state)
        watched = reading.state[self._watched_columns]
        before_s, before = self._last_watched or (reading.time_s, watched)
        speed = np.abs(watched - before) / max(reading.time_s - before_s, self._dt_s)
        self._last_watched = reading.time_s, watched
        for watch, value, velocity in zip(self._spec.watched, watched.tolist(), speed.tolist(), strict=True):
            if not watch.low <= value <= watch.high:
                return "watched state", f"{watch.state} is {value:.4g}, allowed {watch.low:.4g} to {watch.high:.4g}"
            if velocity > watch.max_velocity:
                return "watched state", f"{watch.state} moves at {velocity:.4g}/s, allowed {watch.max_velocity:.4g}/s"
        return None

    def refusal(self, chunk: NDArray[Any]) -> str | None:
        """Why a policy's chunk [1, K, A] is invalid; None if it is valid."""
        size = self._spec.world.action.size
        if chunk.ndim != 3 or chunk.shape[0] != 1 or chunk.shape[1] < 1 or chunk.shape[2] != size:
            return f"shape {chunk.shape}, expected (1, K >= 1, {size})"
        if not np.issubdtype(chunk.dtype, np.floating):
            return f"dtype {chunk.dtype}, expected float32"
        if not np.isfinite(chunk).all():
            _, step, dim = np.argwhere(~np.isfinite(chunk))[0]
            return f"action {self._spec.world.action.names[dim]!r}, step {step}, is {chunk[0, step, dim]}"
        return None

    def broken_action(self, action: Any) -> str | None:
        """Why a value is not one action [A], e.g. a person's or a robot's executed one; None if it is valid."""
        shape = (self._spec.world.action.size,)
        try:
            found = np.asarray(action)
        except (ValueError, TypeError) as error:  # lists of several lengths, say
            return f"a {type(action).__name__}, expected float32 {shape}: {error}"
        if found.shape != shape or not np.issubdtype(found.dtype, np.number) or np.iscomplexobj(found):
            return f"{found.dtype} {found.shape}, expected float32 {shape}"
        if not _finite(found).all():
            return f"{found.tolist()} is not finite"
        return None

    def limited(
        self, action: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], dict[Reason, str]]:
        """The action after all limits, [A], and the limits that changed it, with the names of the axes.

        Args:
            action: finite, [A].
            state: [S].
        """
        position, changed = self._spec.position(state), {}
        self._seen, staying = position, self._staying(position)

        def keep(reason: Reason, before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
            hit = ~np.isclose(before, after, rtol=0.0, atol=1e-6)
            if hit.any():
                changed[reason] = ", ".join(np.array(self._spec.world.action.names)[hit])
            return np.where(hit, after, before)

        wanted = np.asarray(action, np.float64)
        if self._last_action is not None:
            bounds = self._last_action - self._max_change, self._last_action + self._max_change
            wanted = keep("change", wanted, np.clip(wanted, *bounds))
        ends = (
            np.where(self._shows_target, np.minimum(-1.0, staying), -1.0),
            np.where(self._shows_target, np.maximum(1.0, staying), 1.0),
        )
        wanted = keep("range", wanted, np.clip(wanted, *ends))
        velocity = self._velocity(wanted, position)
        gain = self._max_acceleration * self._dt_s
        for reason, low, high in (
            ("acceleration", self._last_velocity - gain, self._last_velocity + gain),
            ("velocity", -self._velocity_bound, self._velocity_bound),
            ("position", -self._braking_velocity(position - self._low), self._braking_velocity(self._high - position)),
        ):
            velocity = keep(reason, velocity, np.clip(velocity, low, high))
        within = self._action(velocity, position) if changed.keys() - {"change", "range"} else wanted
        return within.astype(np.float32), changed

    def rest(self) -> NDArray[np.float32]:
        """The action that holds the robot, [A]: no displacement, and the last target again, clipped by the velocity
        limit around the last measured position.

        Before the first action, a target is the axis' initial position, or 0 where no state shows it.
        """
        staying = self._staying(self._seen)
        reach = self._max_velocity * self._dt_s / np.abs(self._scale)
        near = np.clip(self._target, staying - reach, staying + reach)
        target = np.where(self._shows_target, near, self._target)
        return np.where(self._relative, 0.0, target).astype(np.float32)

    def was_sent(self, action: NDArray[np.float32], state: NDArray[np.float32], *, resting: bool) -> None:
        """Update with the executed action [A] of this period, and its state [S]."""
        self._last_action = action
        if not resting:
            self._target[:] = action
        self._last_velocity = (
            np.zeros(len(action)) if resting else self._velocity(action.astype(np.float64), self._spec.position(state))
        )

    def came_to_rest(self) -> None:
        """Update after at least a period without an action."""
        self._last_velocity = np.zeros(len(self._last_velocity))

    def _staying(self, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The targets at the current positions, as actions [A]."""
        return (position - self._offset) / self._scale

    def _velocity(self, action: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The commanded velocity, unit per second, [A]."""
        return (np.where(self._relative, 0.0, self._offset - position) + self._scale * action) / self._dt_s

    def _action(self, velocity: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `_velocity`."""
        return (velocity * self._dt_s - np.where(self._relative, 0.0, self._offset - position)) / self._scale

    def _braking_velocity(self, room: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest velocity towards a bound that is `room` away, [A]."""
        room = np.clip(room, 0.0, _FAR)
        return 2 * room / (self._dt_s + np.sqrt(self._dt_s**2 + 2 * room / self._max_acceleration))


def broken_parts(spec: RobotSpec, reading: Reading) -> list[str]:
    """Every difference between a reading and the robot's spec, as messages."""
    if not isinstance(reading.frames, Mapping):
        return [f"its frames are a {type(reading.frames).__name__}, expected them by camera"]
    found = []
    for camera in spec.world.cameras:
        frame = reading.frames.get(camera.name)
        expected = f"uint8 ({camera.height}, {camera.width}, 3)"
        if frame is None:
            found.append(f"camera {camera.name!r} is missing; cameras: {', '.join(reading.frames)}")
        elif not isinstance(frame, np.ndarray):
            found.append(f"camera {camera.name!r} gives a {type(frame).__name__}, expected {expected}")
        elif frame.shape != (camera.height, camera.width, 3) or frame.dtype != np.uint8:
            found.append(f"camera {camera.name!r} gives {frame.dtype} {frame.shape}, expected {expected}")
    found += _broken_vector("state", spec.world.state, reading.state)
    found += _broken_vector("localization", spec.world.localization, reading.localization)
    if not isinstance(reading.time_s, Real) or not np.isfinite(float(reading.time_s)):
        found.append(f"its time is {reading.time_s}")
    return found


def _broken_vector(name: str, spec: VectorSpec, vector: Any) -> list[str]:
    if not isinstance(vector, np.ndarray):
        return [f"the {name} is a {type(vector).__name__}, expected float32 ({spec.size},)"]
    if vector.shape != (spec.size,):
        return [f"the {name} has shape {vector.shape}, expected ({spec.size},)"]
    if vector.dtype.kind not in "fiu":
        return [f"the {name} is of {vector.dtype}, expected float32"]
    if not (finite := _finite(vector)).all():
        return [f"the {name} is not finite in {', '.join(np.array(spec.names)[~finite])}"]
    return []


def _finite(vector: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers are finite as float32, the dtype of policies and recordings."""
    return np.isfinite(to_float32(vector))
