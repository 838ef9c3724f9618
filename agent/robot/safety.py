"""The safety filter: between what a policy wants and what a robot is sent.

Every action passes here, and every time that what is sent is not what came, an Intervention says so.

Limits are applied one after the other, the most important last, so where two cannot both hold the later one does:

    change      |a_t - a_{t-1}| <= max_change
    acceleration  |v_t - v_{t-1}| <= max_acceleration dt
    velocity    |v_t| <= max_velocity
    position    low <= x <= high, braking in time: v <= 2 d / (dt + sqrt(dt^2 + 2 d / max_acceleration))
    range       -1 <= a <= 1

x is the position an axis shows, v the velocity that an action commands, d the room left in front of it. The bound on
the position is the largest velocity from which an arm that follows its commands comes to rest within d, slowing down by
max_acceleration dt in every period: v dt + v^2 / (2 max_acceleration) <= d. Beyond its range an axis may only rest or
come back: a filter moves nothing by itself.

A hold is rest in the next period, whatever the limits on acceleration and change.

Shape letters: A action dims, S state dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.robot.types import Reading, RobotSpec

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
]

_FAR = 1e9
"""Stands for infinite room, in any unit."""


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """What came was not sent."""

    time_s: float
    """Since the drive's first period."""
    period: int
    """Control period, counted from 0."""
    reason: Reason
    detail: str
    """For people: which axis, how old, what error."""
    came: NDArray[Any] | None = None
    """What the policy wanted: an action [A], or a whole chunk where that was refused; None where there was nothing."""
    sent: NDArray[np.float32] | None = None
    """[A]; None where nothing was sent."""


class SafetyFilter:
    """Knows what was sent last."""

    def __init__(self, spec: RobotSpec) -> None:
        """At rest; `begin` says where."""
        self._spec = spec
        self._dt_s = spec.world.control_dt_s
        states = spec.world.state.names
        self._shown = [i for i, axis in enumerate(spec.axes) if axis.state is not None]
        self._columns = [states.index(axis.state) for axis in spec.axes if axis.state is not None]
        self._relative = np.array([axis.relative for axis in spec.axes])
        self._scale, self._offset = (
            np.array([getattr(axis, name) for axis in spec.axes]) for name in ("scale", "offset")
        )
        self._low, self._high, self._max_velocity, self._max_acceleration, self._max_change = (
            np.array([getattr(axis.limits, name) for axis in spec.axes])
            for name in ("low", "high", "max_velocity", "max_acceleration", "max_change")
        )
        self._watched_columns = [states.index(watch.state) for watch in spec.watched]
        self._last_action: NDArray[np.float32] | None = None
        self._target = np.zeros(len(spec.axes))  # what rest asks of the axes that have targets
        self._last_velocity = np.zeros(len(spec.axes))
        self._last_watched: tuple[float, NDArray[np.float32]] | None = None

    def begin(self, state: NDArray[np.float32]) -> None:
        """Take in where the axes are before anything is sent, from a sound state [S]."""
        target = np.clip((self._position(state) - self._offset) / self._scale, -1.0, 1.0)
        self._target[self._shown] = target[self._shown]

    def trouble_with(self, reading: Reading, now_s: float, stale_after_s: float) -> tuple[Reason, str] | None:
        """Why nothing should move on what this reading shows; None if nothing is wrong. Once per period."""
        if problems := broken_parts(self._spec, reading):
            return "broken observation", "; ".join(problems)
        age_s = now_s - reading.time_s
        if age_s > stale_after_s:
            return "stale observation", f"{1000 * age_s:.0f} ms old"
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
        """Why a policy's chunk [1, K, A] cannot be executed at all; None if it can."""
        size = self._spec.world.action.size
        if chunk.ndim != 3 or chunk.shape[0] != 1 or chunk.shape[1] < 1 or chunk.shape[2] != size:
            return f"shape {chunk.shape}, expected (1, K >= 1, {size})"
        if not np.issubdtype(chunk.dtype, np.floating):
            return f"dtype {chunk.dtype}, expected float32"
        if not np.isfinite(chunk).all():
            _, step, dim = np.argwhere(~np.isfinite(chunk))[0]
            return f"action {self._spec.world.action.names[dim]!r}, step {step}, is {chunk[0, step, dim]}"
        return None

    def limited(
        self, action: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], dict[Reason, str]]:
        """The nearest action within the limits, [A], and which limits changed it, with the names of the axes.

        Args:
            action: finite, [A].
            state: [S].
        """
        position, changed = self._position(state), {}

        def keep(reason: Reason, before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
            hit = ~np.isclose(before, after, rtol=0.0, atol=1e-6)
            if hit.any():
                changed[reason] = ", ".join(np.array(self._spec.world.action.names)[hit])
            return np.where(hit, after, before)

        wanted = np.asarray(action, np.float64)
        if self._last_action is not None:
            bounds = self._last_action - self._max_change, self._last_action + self._max_change
            wanted = keep("change", wanted, np.clip(wanted, *bounds))
        velocity = self._velocity(wanted, position)
        gain = self._max_acceleration * self._dt_s
        for reason, low, high in (
            ("acceleration", self._last_velocity - gain, self._last_velocity + gain),
            ("velocity", -self._max_velocity, self._max_velocity),
            ("position", -self._braking_velocity(position - self._low), self._braking_velocity(self._high - position)),
        ):
            velocity = keep(reason, velocity, np.clip(velocity, low, high))
        within = self._action(velocity, position) if changed.keys() - {"change"} else wanted
        return keep("range", within, np.clip(within, -1.0, 1.0)).astype(np.float32), changed

    def rest(self) -> NDArray[np.float32]:
        """The action that leaves everything where it is, [A]: no displacement, and the last target again.

        Before anything was sent, a target is where its axis was in the beginning, or 0 where no state shows it.
        """
        return np.where(self._relative, 0.0, self._target).astype(np.float32)

    def was_sent(self, action: NDArray[np.float32], state: NDArray[np.float32], *, resting: bool) -> None:
        """Remember what the robot said was sent in this period, [A], from this state."""
        self._last_action = action
        self._target[:] = action
        self._last_velocity = (
            np.zeros(len(action)) if resting else self._velocity(action.astype(np.float64), self._position(state))
        )

    def came_to_rest(self) -> None:
        """Remember that nothing was sent for at least a period."""
        self._last_velocity = np.zeros(len(self._last_velocity))

    def _position(self, state: NDArray[np.float32]) -> NDArray[np.float64]:
        """What each axis shows, [A]; 0 for those that no state shows, which have no limits on it."""
        position = np.zeros(len(self._spec.axes))
        position[self._shown] = state[self._columns]
        return position

    def _velocity(self, action: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the action commands, unit per second, [A]."""
        return (np.where(self._relative, 0.0, self._offset - position) + self._scale * action) / self._dt_s

    def _action(self, velocity: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of `_velocity`."""
        return (velocity * self._dt_s - np.where(self._relative, 0.0, self._offset - position)) / self._scale

    def _braking_velocity(self, room: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest velocity towards a bound that is `room` away, [A]."""
        room = np.clip(room, 0.0, _FAR)
        return 2 * room / (self._dt_s + np.sqrt(self._dt_s**2 + 2 * room / self._max_acceleration))


def broken_parts(spec: RobotSpec, reading: Reading) -> list[str]:
    """What of a reading is not as the robot's spec says: every difference, for people."""
    found = []
    for camera in spec.world.cameras:
        frame = reading.frames.get(camera.name)
        if frame is None:
            found.append(f"camera {camera.name!r} is missing; cameras: {', '.join(reading.frames)}")
        elif frame.shape != (camera.height, camera.width, 3) or frame.dtype != np.uint8:
            expected = f"uint8 ({camera.height}, {camera.width}, 3)"
            found.append(f"camera {camera.name!r} gives {frame.dtype} {frame.shape}, expected {expected}")
    if reading.state.shape != (spec.world.state.size,):
        found.append(f"the state has shape {reading.state.shape}, expected ({spec.world.state.size},)")
    elif not np.isfinite(reading.state).all():
        names = np.array(spec.world.state.names)[~np.isfinite(reading.state)]
        found.append(f"the state is not finite in {', '.join(names)}")
    return found
