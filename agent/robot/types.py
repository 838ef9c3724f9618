"""Robot: what the control loop needs of an arm, simulated or real, and what an arm says of itself.

Everything is in the worlds' terms (envs/types.py): frames by camera, a state vector, actions in [-1, 1].

Shape letters: A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import Observation, WorldSpec


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one action dimension may command, in the unit of its position; what is infinite is not limited."""

    low: float = -inf
    high: float = inf
    """Of the position: a joint's range, or a side of the workspace."""
    max_velocity: float = inf
    """Unit per second."""
    max_acceleration: float = inf
    """Unit per second squared."""
    max_change: float = inf
    """Between two actions that follow each other, in the action's own terms: 2 is from one end to the other."""

    def __post_init__(self) -> None:
        _check_bounds("limits", self.low, self.high)
        for name in ("max_velocity", "max_acceleration", "max_change"):
            _check_above_0(f"limits: {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What one action dimension commands: a position to reach within one control period.

        position = (what `state` shows now, if relative, else offset) + scale * action

    Example:
        >>> up = Axis(state="tcp_z", relative=True, scale=0.04)  # 1 is 4 cm upwards
        >>> elbow = Axis(state="elbow.pos", relative=False, scale=90.0)  # 1 is 90 degrees, -1 is -90
    """

    state: str | None = None
    """Name of the state's element that shows the position; None if none does."""
    relative: bool
    """Whether the action is a displacement. Then 0 is rest; otherwise rest is the last action again."""
    scale: float = 1.0
    offset: float = 0.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """An element of the state that must stay within bounds, whatever moves it. Beyond them the arm holds."""

    state: str
    low: float = -inf
    high: float = inf
    max_velocity: float = inf
    """Measured between two control periods, unit per second."""

    def __post_init__(self) -> None:
        _check_bounds(f"watched state {self.state!r}", self.low, self.high)
        _check_above_0(f"watched state {self.state!r}: max_velocity", self.max_velocity)


@dataclass(frozen=True, kw_only=True)
class RobotSpec:
    """What must be known of a robot before it moves."""

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


def _check_bounds(name: str, low: float, high: float) -> None:
    if not low <= high:
        raise UserError(f"{name}: low is {low} and high is {high}, expected low <= high")


def _check_above_0(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"{name} is {value}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a robot shows, and when."""

    frames: dict[str, NDArray[np.uint8]]
    """{camera: [H, W, 3]}, RGB, in the sizes of the spec."""
    state: NDArray[np.float32]
    """[S]"""
    time_s: float
    """When the oldest part of it was measured, on the clock that drives the robot."""
    localization: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    """A simulator's privileged label, [L]; only recorded."""
    success: bool | None = None
    """The robot's own success flag, where it has one."""
    ended: str | None = None
    """Why there is nothing more to do: "success", a failure's name, "step limit"; None while there is."""

    def observation(self, instruction: str, step: int) -> Observation:
        """As a policy takes it: of one world, that many control periods after the drive began. It is a copy, because a
        robot may write the next picture into the same memory while the policy still looks.
        """
        return Observation(
            frames={name: frame[None].copy() for name, frame in self.frames.items()},
            state=self.state[None].copy(),
            instruction=(instruction,),
            step=np.array([step]),
        )


class Robot(Protocol):
    """An arm with cameras. Only the thread that drives it calls these, and each returns well within one period.

    What breaks (a cable, a bus, a simulator) is an OSError; it ends the drive. TimeoutError, which is one, says from
    `observe` that nothing new was measured.
    """

    @property
    def spec(self) -> RobotSpec:
        """Known before connecting."""
        ...

    def connect(self) -> None:
        """Be ready to observe and act, at rest. Where it fails, nothing is left connected."""
        ...

    def observe(self) -> Reading:
        """The newest of everything, without waiting for something newer."""
        ...

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Start to execute an action [A] that lasts one period, and return what was really sent, [A].

        Where an axis that takes targets is beyond those that -1 and 1 stand for, an action may be beyond -1 and 1 too:
        one that leaves the axis where it is, or brings it back no faster than its limits allow. A robot that is sent
        nothing more comes to rest when the period is over.
        """
        ...

    def stop(self) -> None:
        """Come to rest now. Called at the end of every drive, also after a failure, and perhaps twice."""
        ...

    def disconnect(self) -> None:
        """Free what `connect` took, also after a failure."""
        ...
