"""Motions of the hand, one action per step: each is a generator that reads the state anew before every action.

A motion is closed-loop: its action drives the hand from wherever it is toward a pose, with

    dx = GAIN (target - hand), at most `speed` x 5 cm;   dr = GAIN log(R_target R_hand^T), at most TURN x 0.5 rad

so noise in executed actions is corrected and not accumulated. Motions are composed with `yield from`; their result says
whether the target was reached.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from envs.suites.libero.expert.view import Array, View

Action = NDArray[np.float64]
Steps = Generator[Action, None, bool]
"""Actions [7], one per control step, and at the end whether it went as planned."""

OPEN, CLOSED = -1.0, 1.0
"""Gripper commands."""

DOWN = np.array([0.0, 0.0, -1.0])
UP = -DOWN

POSITION_UNIT_M, ROTATION_UNIT_RAD = 0.05, 0.5
"""What an action of 1 asks for."""
GAIN = 1.4
TURN = 0.5
STALL_STEPS, STALL_M, STALL_LEVER_M = 8, 0.003, 0.1
"""A hand that moves, or turns at the end of that lever, less than this in so many steps has met something."""
LANDED_STEPS = 3
"""The same for a thing in the hand on its way down. A longer wait would show a policy the same frames with two labels:
hold, and at its end let go."""
OPENED_M = 0.07
"""Fingers further apart than this are open."""
STOPPED_STEPS, STOPPED_M = 2, 0.001
"""Fingers that close by less than this in so many steps hold something, or each other."""
MISS_M, MISS_COST = 0.01, 100.0
"""A pose that the hand stays further away from than this is out of reach, and how many radians of turning the hand are
taken into account per metre beyond."""


class Lost(Exception):  # noqa: N818 - an event of the plan, not an error
    """The state is not what a plan counted on, so there has to be another."""


def rotation_vector(axes: Array, towards: Array) -> Array:
    """The rotation that takes one frame [3, 3] to another, as axis times angle, [3]."""
    return Rotation.from_matrix(towards @ axes.T).as_rotvec()


def turned(axes: Array, vector: Array) -> Array:
    """A frame [3, 3] after a rotation about a world axis, given as axis times angle [3]."""
    return Rotation.from_rotvec(vector).as_matrix() @ axes


def hand_frames(closing: Array, approach: Array) -> tuple[Array, Array]:
    """The hand's axes [3, 3] for a closing direction and an approach direction: two, because the fingers are alike.

    The part of `closing` along `approach` is dropped.
    """
    x = closing - approach * (closing @ approach)
    x /= np.linalg.norm(x)
    y = np.cross(approach, x)
    return np.column_stack([x, y, approach]), np.column_stack([-x, -y, approach])


def hand_frame(closing: Array, approach: Array, near: Array) -> tuple[Array, float]:
    """Of the hand's two alike orientations that nearer to the frame `near` [3, 3], and the angle between them."""
    angles = [(float(np.linalg.norm(rotation_vector(near, axes))), axes) for axes in hand_frames(closing, approach)]
    angle, axes = min(angles, key=lambda frame: frame[0])
    return axes, angle


def level(axes: Array) -> Array:
    """The hand's axes turned the shortest way so that it points straight down."""
    approach = axes[:, 2]
    axis = np.cross(approach, DOWN)
    sine = np.linalg.norm(axis)
    if sine < 1e-6:
        return axes
    return turned(axes, axis / sine * np.arctan2(sine, approach @ DOWN))


class Arm:
    """Moves the hand of one simulation; remembers the gripper's command between motions."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.command = OPEN

    def toward(self, target: Array, axes: Array | None = None, speed: float = 1.0) -> Action:
        """One action that takes the hand toward a position [3], and toward axes [3, 3] if given."""
        action = np.zeros(7)
        step = (target - self.view.hand) * (GAIN / POSITION_UNIT_M)
        action[:3] = step * min(1.0, speed / max(float(np.linalg.norm(step)), 1e-9))
        if axes is not None:
            turn = rotation_vector(self.view.hand_axes, axes) * (GAIN / ROTATION_UNIT_RAD)
            action[3:6] = turn * min(1.0, TURN / max(float(np.abs(turn).max()), 1e-9))
        action[6] = self.command
        return action

    def miss_cost(self, axes: Array, points: Iterable[Array]) -> float:
        """Of taking the hand through points [3] with axes [3, 3]: 0 unless it does not get there."""
        return MISS_COST * max(0.0, self.view.miss([(point, axes) for point in points]) - MISS_M)

    def best(self, frames: Iterable[Array], points: Sequence[Array]) -> Array:
        """The axes [3, 3] with which the hand gets through points [3], after the smallest turn."""
        now = self.view.hand_axes
        turn = lambda axes: float(np.linalg.norm(rotation_vector(now, axes)))  # noqa: E731
        return min(frames, key=lambda axes: turn(axes) + self.miss_cost(axes, points))

    def at(self, target: Array, axes: Array | None, tolerance: float, angle: float) -> bool:
        """Whether the hand is within a distance (m) and an angle (rad) of a pose."""
        if np.linalg.norm(target - self.view.hand) >= tolerance:
            return False
        return axes is None or bool(np.linalg.norm(rotation_vector(self.view.hand_axes, axes)) < angle)

    def move(
        self,
        target: Array,
        axes: Array | None = None,
        *,
        tolerance: float = 0.006,
        angle: float = 0.06,
        steps: int = 60,
        speed: float = 1.0,
        gently: bool = False,
        stall_steps: int = STALL_STEPS,
    ) -> Steps:
        """To a pose, for at most `steps` actions or until the hand stops for `stall_steps`.

        Gently: slowly at first, with what could swing out of the hand.
        """
        places = []
        for k in range(steps):
            if self.at(target, axes, tolerance, angle):
                return True
            places.append(np.concatenate([self.view.hand, STALL_LEVER_M * self.view.hand_axes.ravel()]))
            if k >= stall_steps and np.linalg.norm(places[k] - places[k - stall_steps]) < STALL_M:
                return False
            yield self.toward(target, axes, speed * min(1.0, 0.4 + 0.15 * k) if gently else speed)
        return self.at(target, axes, tolerance, angle)

    def rise(self, height: float, axes: Array | None = None, steps: int = 40) -> Steps:
        """Straight up until the hand is at a height; not down."""
        hand = self.view.hand
        if hand[2] >= height - 0.02:
            return True
        return (yield from self.move(np.array([*hand[:2], height]), axes, tolerance=0.02, angle=9.0, steps=steps))

    def shift(self, by: Array, axes: Array | None = None, *, tolerance: float = 0.02, steps: int = 20) -> Steps:
        """By a vector from where the hand is."""
        return (yield from self.move(self.view.hand + by, axes, tolerance=tolerance, angle=9.0, steps=steps))

    def open(self, steps: int) -> Steps:
        """Open the fingers for so many actions."""
        return (yield from self._grip(OPEN, steps))

    def release(self) -> Steps:
        """Open the fingers and wait until they are open."""
        return (yield from self._grip(OPEN, 12, lambda: self.view.opening > OPENED_M))

    def close(self) -> Steps:
        """Close the fingers and wait until they have stopped, and for the reason at LANDED_STEPS no longer."""
        openings = list[float]()

        def have_stopped() -> bool:
            openings.append(self.view.opening)
            return len(openings) > STOPPED_STEPS + 1 and openings[-1 - STOPPED_STEPS] - openings[-1] < STOPPED_M

        return (yield from self._grip(CLOSED, 11, have_stopped))

    def _grip(self, command: float, steps: int, done: Callable[[], bool] = lambda: False) -> Steps:
        """Command the fingers with the hand in its place, for at most so many actions."""
        self.command = command
        place = self.view.hand
        for _ in range(steps):
            if done():
                break
            yield self.toward(place)
        return True


def watch(steps: Steps, condition: Callable[[], bool], what: str) -> Steps:
    """A motion while a condition holds.

    Raises:
        Lost: it does not; `what` names it.
    """
    while True:
        if not condition():
            raise Lost(what)
        try:
            action = next(steps)
        except StopIteration as end:
            return end.value
        yield action
