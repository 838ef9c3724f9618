"""Robot: the interface of an arm, simulated or real, to the control loop, and its spec.

Observations and actions are as in worlds (envs/types.py): frames by camera, a state vector, actions in [-1, 1].

Shape letters: A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import Observation, WorldSpec


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one action dimension, in the unit of its position; infinite means no limit."""

    low: float = -inf
    high: float = inf
    """Of the position: a joint's range, or a side of the workspace."""
    max_velocity: float = inf
    """Unit per second."""
    max_acceleration: float = inf
    """Unit per second squared."""
    max_change: float = inf
    """Between consecutive actions, in action units: 2 is the whole range."""

    def __post_init__(self) -> None:
        _check_bounds("limits", self.low, self.high)
        for name in ("max_velocity", "max_acceleration", "max_change"):
            _check_above_0(f"limits: {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """How one action dimension maps to a position to reach within one control period.

        position = (current value of `state` if relative, else offset) + scale * action

    Examples:
        >>> up = Axis(state="tcp_z", relative=True, scale=0.04)  # 1 is 4 cm upwards
        >>> elbow = Axis(state="elbow.pos", relative=False, scale=90.0)  # 1 is 90 degrees, -1 is -90
    """

    state: str | None = None
    """Name of the state's element that shows the position; None if none does."""
    relative: bool
    """Whether the action is a displacement. Then 0 is rest; otherwise rest repeats the last action."""
    scale: float = 1.0
    offset: float = 0.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """An element of the state that must stay within bounds, whatever moves it. Outside them the arm holds."""

    state: str
    low: float = -inf
    high: float = inf
    max_velocity: float = inf
    """Between consecutive control periods, unit per second."""

    def __post_init__(self) -> None:
        _check_bounds(f"watched state {self.state!r}", self.low, self.high)
        _check_above_0(f"watched state {self.state!r}: max_velocity", self.max_velocity)


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """A robot's description, known before it moves."""

    name: str
    """robot_type of its recordings."""
    world: WorldSpec
    """Cameras, state, actions and rate; a policy's processor is checked against it."""
    axes: tuple[Axis, ...]
    """One for each action dimension."""
    watched: tuple[Watch, ...] = ()

    def __post_init__(self) -> None:
        if not isfinite(self.world.control_dt_s):
            raise UserError(f"control_dt_s of {self.name} is {self.world.control_dt_s}, expected seconds")
        _check_above_0(f"control_dt_s of {self.name}", self.world.control_dt_s)
        names = self.world.action.names
        if len(self.axes) != len(names):
            raise UserError(f"{self.name} has {len(self.axes)} axes for {len(names)} action dimensions: {names}")
        known = self.world.state.names
        for state in (*(axis.state for axis in self.axes), *(watch.state for watch in self.watched)):
            if state is not None and state not in known:
                raise UserError(f"{self.name} has no state {state!r}; states: {', '.join(known)}")
        for name, axis in zip(names, self.axes, strict=True):
            if axis.scale == 0.0:
                raise UserError(f"axis {name!r} of {self.name} has scale 0: its action would command nothing")
            if not (isfinite(axis.scale) and isfinite(axis.offset)):
                raise UserError(
                    f"axis {name!r} of {self.name} has scale {axis.scale} and offset {axis.offset}, "
                    "expected finite numbers"
                )
            limits = axis.limits
            low, high = axis.offset - abs(axis.scale), axis.offset + abs(axis.scale)
            if not axis.relative and (limits.high < low or limits.low > high):
                raise UserError(
                    f"axis {name!r} of {self.name} is limited to {limits.low:g} .. {limits.high:g}, and its actions "
                    f"command {low:g} .. {high:g}"
                )
            of_position = (limits.low, limits.high) != (-inf, inf)
            of_motion = (limits.max_velocity, limits.max_acceleration) != (inf, inf)
            if axis.state is None and (of_position or (of_motion and not axis.relative)):
                raise UserError(f"axis {name!r} of {self.name} has limits that need a state, and it names none")

    @cached_property
    def relative(self) -> NDArray[np.bool_]:
        """Which actions are displacements, [A]."""
        return np.array([axis.relative for axis in self.axes])

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Of which axes a state shows the position, [A]."""
        return np.array([axis.state is not None for axis in self.axes])

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """Of the axes, [A]."""
        return np.array([axis.scale for axis in self.axes])

    @cached_property
    def offset(self) -> NDArray[np.float64]:
        """Of the axes, [A]."""
        return np.array([axis.offset for axis in self.axes])

    def position(self, state: NDArray[np.float32]) -> NDArray[np.float64]:
        """The position of each axis by a state [S], [A]; 0 where the state does not show it."""
        names = self.world.state.names
        return np.array([0.0 if axis.state is None else float(state[names.index(axis.state)]) for axis in self.axes])


def _check_bounds(name: str, low: float, high: float) -> None:
    if not low <= high:
        raise UserError(f"{name}: low is {low} and high is {high}, expected low <= high")


def _check_above_0(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"{name} is {value}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A robot's observation, with its time."""

    frames: dict[str, NDArray[np.uint8]]
    """{camera: [H, W, 3]}, RGB, in the sizes of the spec."""
    state: NDArray[np.float32]
    """[S]"""
    time_s: float
    """When its oldest part was measured, on the drive's clock."""
    localization: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """A simulator's privileged labels, [L]; recorded only."""
    success: bool | None = None
    """The robot's own success flag, where it has one."""
    ended: str | None = None
    """Why the episode has ended: "success", a failure's name, "step limit"; None while it runs."""

    def observation(self, instruction: str, step: int) -> Observation:
        """The policy's input, of one world, `step` control periods after the drive began. A copy, because a robot may
        overwrite its arrays during inference.
        """
        return Observation(
            frames={name: frame[None].copy() for name, frame in self.frames.items()},
            state=self.state[None].copy(),
            instruction=(instruction,),
            step=np.array([step]),
        )


class Robot(Protocol):
    """An arm with cameras. Only the driving thread calls its methods, and each returns well within one period.

    Failures (of a cable, a bus, a simulator) are OSErrors and end the drive, except a TimeoutError of `observe`: no new
    measurement.
    """

    @property
    def spec(self) -> RobotSpec:
        """Known before connecting."""
        ...

    def connect(self) -> None:
        """Be ready to observe and act, at rest. After a failure nothing is left connected."""
        ...

    def observe(self) -> Reading:
        """The newest reading, without waiting for a newer one."""
        ...

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Start to execute an action [A] that lasts one period, and return the executed action, [A].

        If an axis with targets is outside the positions of [-1, 1], its action may be outside too: it holds the axis,
        or returns it no faster than its limits allow. Without another action the robot comes to rest after the period.
        """
        ...

    def stop(self) -> None:
        """Come to rest now. Called at the end of every drive, also after a failure, possibly twice."""
        ...

    def disconnect(self) -> None:
        """Release what `connect` acquired, also after a failure."""
        ...
