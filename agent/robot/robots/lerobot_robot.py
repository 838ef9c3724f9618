"""LeRobotRobot: anything with the interface of LeRobot's Robot class, lerobot/robots/robot.py.

It wraps an object, so LeRobot itself is not imported here. Actions are targets: every entry of `action_features` is an
absolute position, with the name of the entry of `observation_features` that measures it.

Shape letters: A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.camera import FROZEN_AFTER_S, StillPicture, resized, to_rgb
from agent.robot.clock import Clock, WallClock
from agent.robot.types import Axis, Limits, Reading, RobotSpec
from envs.errors import UserError
from envs.types import CameraSpec, VectorSpec, WorldSpec


class LeRobotRobot:
    """Robot of agent/robot/types.py that wraps one of LeRobot's.

    LeRobot gives neither units nor ranges, so `ranges` must. Many arms go limp when they are disconnected.

    Example:
        >>> arm = SO101Follower(SO101FollowerConfig(port="/dev/ttyACM0", id="mine", use_degrees=False, cameras=...))
        >>> ranges = {name: (-100.0, 100.0) for name in arm.action_features} | {"gripper.pos": (0.0, 100.0)}
        >>> top = CameraSpec(name="front", height=128, width=128)  # the policy's name of the arm's camera "top"
        >>> robot = LeRobotRobot(arm, ranges=ranges, control_dt_s=1 / 30, cameras={"top": top})
    """

    def __init__(
        self,
        arm: Any,
        *,
        ranges: Mapping[str, tuple[float, float]],
        control_dt_s: float,
        cameras: Mapping[str, CameraSpec] | None = None,
        limits: Mapping[str, Limits] | None = None,
        frozen_after_s: float = FROZEN_AFTER_S,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            arm: with observation_features, action_features, is_connected, connect, get_observation, send_action and
                disconnect; not connected.
            ranges: {entry: (low, high)} of every observation and action entry, in LeRobot's unit; for actions, the
                positions of -1 and 1.
            cameras: {the arm's camera: its name and size for the policy}; all of the arm's, unchanged, where None.
            limits: {action entry: its limits} besides its range.
            frozen_after_s: how long a camera may repeat a frame byte for byte; infinite for an arm with rendered
                cameras.

        Raises:
            UserError: a name that the arm does not have, or an entry without a range; the message lists those it has.
        """
        self._arm = arm
        self._clock = clock or WallClock()
        shapes = {name: shape for name, shape in arm.observation_features.items() if isinstance(shape, tuple)}
        own = {name: CameraSpec(name=name, height=h, width=w) for name, (h, w, _) in shapes.items()}
        self._cameras = dict(own if cameras is None else cameras)
        self._states = tuple(name for name in arm.observation_features if name not in shapes)
        self._actions = tuple(arm.action_features)
        limits = limits or {}
        _check_names("camera", self._cameras, shapes)
        _check_names("limits of", limits, self._actions)
        _check_names("range of", ranges, {*self._states, *self._actions})
        if missing := [name for name in (*self._states, *self._actions) if name not in ranges]:
            raise UserError(f"ranges lacks {', '.join(missing)}: LeRobot does not say what they go from and to")
        low, high = np.array([ranges[name] for name in self._actions]).T
        self._offset, self._scale = (high + low) / 2, (high - low) / 2
        units = tuple(f"{ranges[name][0]:g} at -1, {ranges[name][1]:g} at 1" for name in self._actions)
        world = WorldSpec(
            cameras=tuple(self._cameras.values()),
            state=_vector(self._states, ("as LeRobot gives it",) * len(self._states), ranges),
            action=_vector(self._actions, units, dict.fromkeys(self._actions, (-1.0, 1.0))),
            localization=_vector((), (), {}),
            control_dt_s=control_dt_s,
        )
        axes = tuple(
            Axis(
                state=name if name in self._states else None,
                relative=False,
                scale=scale,
                offset=offset,
                limits=limits.get(name, Limits()),
            )
            for name, scale, offset in zip(self._actions, self._scale.tolist(), self._offset.tolist(), strict=True)
        )
        self._targets: dict[str, float] = {}  # sent last, since the last connect
        self._frozen_after_s = frozen_after_s
        self._forget_pictures()
        self.spec = RobotSpec(name=getattr(arm, "name", type(arm).__name__), world=world, axes=axes)

    def connect(self) -> None:
        """Connect, and calibrate if LeRobot requires it."""
        self._targets = {}
        self._forget_pictures()
        with _as_connection_errors():
            try:
                self._arm.connect()
            except BaseException:
                with suppress(OSError, RuntimeError):  # the first error is the informative one
                    self._free()
                raise

    def observe(self) -> Reading:
        """The reading; LeRobot gives no time, so it has the time of this call, or of its oldest frame if that is older.

        LeRobot's cameras allocate a new array for every frame, so a repeated array is an old frame. A new array with
        the same content counts as new for `frozen_after_s`. An invalid frame is passed on unchanged, for the safety
        filter to reject (agent/robot/safety.py).

        Raises:
            ConnectionError: LeRobot failed, or an entry is missing.
        """
        time_s = self._clock.now_s()
        with _as_connection_errors():
            shown = self._arm.get_observation()
        if missing := [name for name in (*self._cameras, *self._states) if name not in shown]:
            raise ConnectionError(f"{self.spec.name} did not show {', '.join(missing)}")
        seen_s = [self._since_s(name, shown[name], time_s) for name in self._cameras]
        return Reading(
            frames={spec.name: _picture(shown[name], spec) for name, spec in self._cameras.items()},
            state=np.array([shown[name] for name in self._states], np.float32),
            time_s=min((time_s, *seen_s)),
        )

    def _forget_pictures(self) -> None:
        self._still = {name: StillPicture(self._frozen_after_s) for name in self._cameras}
        self._arrays: dict[str, tuple[Any, Any, float]] = {}  # by camera: the last array, its content, when it came

    def _since_s(self, camera: str, picture: Any, now_s: float) -> float:
        """Estimated time of a camera's frame."""
        last, content, came_s = self._arrays.get(camera, (None, None, now_s))
        if picture is not last or not np.array_equal(picture, content):  # some cameras reuse one array
            self._arrays[camera] = picture, np.array(picture), now_s
            came_s = now_s
        return min(came_s, self._still[camera].since_s(np.asarray(picture), now_s))

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Send targets, and return those that LeRobot reports as sent, [A]."""
        targets = dict(zip(self._actions, (self._offset + self._scale * action).tolist(), strict=True))
        with _as_connection_errors():
            sent = targets | dict(self._arm.send_action(targets) or {})
        self._targets = {name: sent[name] for name in self._actions}
        return ((np.array([sent[name] for name in self._actions]) - self._offset) / self._scale).astype(np.float32)

    def stop(self) -> None:
        """Send the current positions as targets; a target without a measured position is unchanged.

        LeRobot reads an arm and its cameras in one call. If that fails, e.g. because a camera hangs, the last targets
        are sent again.
        """
        with _as_connection_errors():
            try:
                shown = self._arm.get_observation()
            except (OSError, RuntimeError):
                shown = self._targets
            known = [name for name in self._actions if np.isfinite(np.array(shown.get(name), np.float32)).all()]
            if known:
                self._arm.send_action({name: shown[name] for name in known})

    def disconnect(self) -> None:
        """Disconnect all connected parts."""
        with _as_connection_errors():
            self._free()

    def _free(self) -> None:
        """LeRobot's own `disconnect` refuses a partly connected arm; then disconnect each part."""
        arm = self._arm
        if arm.is_connected:
            arm.disconnect()
            return
        with ExitStack() as parts:  # all of them, also where one fails
            for camera in getattr(arm, "cameras", {}).values():
                if camera.is_connected:
                    parts.callback(camera.disconnect)
            if (bus := getattr(arm, "bus", None)) is not None and bus.is_connected:
                goes_limp = getattr(getattr(arm, "config", None), "disable_torque_on_disconnect", True)
                parts.callback(bus.disconnect, goes_limp)


@contextmanager
def _as_connection_errors() -> Generator[None]:
    """LeRobot also raises RuntimeErrors if a thread of a camera or a motor fails."""
    try:
        yield
    except RuntimeError as error:
        raise ConnectionError(str(error)) from error


def _picture(shown: Any, spec: CameraSpec) -> Any:
    """The policy's frame; an invalid one is unchanged."""
    try:
        return resized(to_rgb(shown), spec)
    except ValueError:
        return shown


def _check_names(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = set(known)
    if wrong := [name for name in given if name not in names]:
        raise UserError(
            f"{kind} {', '.join(map(repr, wrong))} is not of this arm; there are: {', '.join(sorted(names))}"
        )


_GRIPPER = "gripper.pos"
"""LeRobot's name of a gripper's motor; with the prefixes left_ and right_ on bimanual arms."""


def _vector(names: tuple[str, ...], units: tuple[str, ...], ranges: Mapping[str, tuple[float, float]]) -> VectorSpec:
    low, high = (tuple(float(ranges[name][i]) for name in names) for i in (0, 1))
    grippers = tuple(i for i, name in enumerate(names) if name.split("_")[-1] == _GRIPPER)
    return VectorSpec(names=names, units=units, low=low, high=high, grippers=grippers)
