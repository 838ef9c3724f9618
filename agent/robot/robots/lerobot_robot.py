"""LeRobotRobot: anything with the interface of LeRobot's Robot class, lerobot/robots/robot.py.

It wraps an object, so LeRobot itself is not imported here. Actions are targets: every entry of `action_features` is an
absolute position, with the name of the entry of `observation_features` that measures it.

Shape letters: A action dims, S state dims, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.camera import FROZEN_AFTER_S, StillPicture, resized, to_rgb
from agent.robot.clock import Clock, WallClock
from agent.robot.types import Axis, Limits, Reading, RobotSpec
from envs.errors import UserError
from envs.types import CameraSpec, VectorSpec, WorldSpec
from vla_model.inputs.conversion import Conversion
from vla_model.inputs.processor import Processor


class LeRobotRobot:
    """Robot of agent/robot/types.py that wraps one of LeRobot's.

    LeRobot gives neither units nor ranges, so `ranges` must, or the processor of a policy that was trained on the arm's
    recordings. Many arms go limp when they are disconnected.

    Examples:
        >>> arm = SO101Follower(SO101FollowerConfig(port="/dev/ttyACM0", id="mine", use_degrees=False, cameras=...))
        >>> ranges = {name: (-100.0, 100.0) for name in arm.action_features} | {"gripper.pos": (0.0, 100.0)}
        >>> top = CameraSpec(name="front", height=128, width=128)  # the policy's name of the arm's camera "top"
        >>> robot = LeRobotRobot(arm, ranges=ranges, control_dt_s=1 / 30, cameras={"top": top})
        >>> robot = LeRobotRobot(arm, processor=load_policy("runs/so101").processor)  # of the arm's recordings
    """

    def __init__(
        self,
        arm: Any,
        *,
        processor: Processor | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        control_dt_s: float | None = None,
        cameras: Mapping[str, CameraSpec] | None = None,
        limits: Mapping[str, Limits] | None = None,
        frozen_after_s: float = FROZEN_AFTER_S,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            arm: with observation_features, action_features, is_connected, connect, get_observation, send_action and
                disconnect; not connected.
            processor: of a policy of the arm's recordings; it defines ranges, rate and cameras.
            ranges: {entry: (low, high)} of every observation and action entry, in LeRobot's unit; for actions, the
                positions of -1 and 1.
            cameras: {the arm's camera: its name and size for the policy}; all of the arm's, unchanged, where None.
            limits: {action entry: its limits} besides its range.
            frozen_after_s: how long a camera may repeat a frame byte for byte; infinite for an arm with rendered
                cameras.

        Raises:
            UserError: a name that the arm does not have, or an entry without a range; the message lists those it has.
                Or the processor is not of a policy of recordings.
        """
        self._arm = arm
        self._clock = clock or WallClock()
        if processor is None:
            shown = _of_ranges(arm, ranges or {}, control_dt_s, cameras)
        else:
            shown = _of_policy(arm, processor)
        limits, world = limits or {}, shown.world
        self._cameras, self._conversion = shown.cameras, shown.conversion
        self._states, self._actions = world.state.names, world.action.names
        _check_names("limits of", limits, self._actions)
        self._offset, self._scale = (shown.high + shown.low) / 2, (shown.high - shown.low) / 2
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
            frames={spec.name: self._picture(shown[name], spec) for name, spec in self._cameras.items()},
            state=np.array([shown[name] for name in self._states], np.float32),
            time_s=min((time_s, *seen_s)),
        )

    def _picture(self, shown: Any, spec: CameraSpec) -> Any:
        """The policy's frame; an invalid one is unchanged."""
        try:
            frame = to_rgb(shown)
        except ValueError:
            return shown
        return resized(frame, spec) if self._conversion is None else self._conversion.frame(frame, spec)

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


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """An arm as a policy sees it."""

    world: WorldSpec
    cameras: dict[str, CameraSpec]
    """{the arm's camera: its name and size for the policy}"""
    low: NDArray[np.float64]
    """Position of action -1, [A]."""
    high: NDArray[np.float64]
    conversion: Conversion | None = None


def _of_ranges(
    arm: Any,
    ranges: Mapping[str, tuple[float, float]],
    control_dt_s: float | None,
    cameras: Mapping[str, CameraSpec] | None,
) -> _Shown:
    """
    Raises:
        UserError: a name that the arm does not have, an entry without a range, or no rate.
    """
    shapes = _shapes(arm)
    own = {name: CameraSpec(name=name, height=h, width=w) for name, (h, w, _) in shapes.items()}
    used = dict(own if cameras is None else cameras)
    states = tuple(name for name in arm.observation_features if name not in shapes)
    actions = tuple(arm.action_features)
    _check_names("camera", used, shapes)
    _check_names("range of", ranges, {*states, *actions})
    if missing := [name for name in (*states, *actions) if name not in ranges]:
        raise UserError(
            f"ranges lacks {', '.join(missing)}: LeRobot does not say what they go from and to; give ranges, or the "
            "processor of a policy of this arm's recordings"
        )
    if control_dt_s is None:
        raise UserError("control_dt_s is missing, the time between two actions: LeRobot does not say it")
    low, high = np.array([ranges[name] for name in actions], np.float64).T
    units = tuple(f"{ranges[name][0]:g} at -1, {ranges[name][1]:g} at 1" for name in actions)
    world = WorldSpec(
        cameras=tuple(used.values()),
        state=_vector(states, ("as LeRobot gives it",) * len(states), ranges),
        action=_vector(actions, units, dict.fromkeys(actions, (-1.0, 1.0))),
        localization=_vector((), (), {}),
        control_dt_s=control_dt_s,
    )
    return _Shown(world=world, cameras=used, low=low, high=high)


def _of_policy(arm: Any, processor: Processor) -> _Shown:
    """
    Raises:
        UserError: the policy is not of recordings, or of an arm with other cameras, states or actions.
    """
    conversion, world, shapes = processor.conversion, processor.world_spec, _shapes(arm)
    if conversion is None:
        raise UserError("the policy was not trained on recordings of an arm, so it has no ranges: give ranges")
    named = {conversion.camera_name(own): own for own in shapes} | {own: own for own in shapes}
    _check_names("camera", (camera.name for camera in world.cameras), named)
    _check_names("state", world.state.names, [name for name in arm.observation_features if name not in shapes])
    _check_names("action", world.action.names, arm.action_features)
    if more := [name for name in arm.action_features if name not in world.action.names]:
        raise UserError(f"the policy commands only {', '.join(world.action.names)}; the arm also has {', '.join(more)}")
    return _Shown(
        world=world,
        cameras={named[camera.name]: camera for camera in world.cameras},
        low=np.array(conversion.action_low),
        high=np.array(conversion.action_high),
        conversion=conversion,
    )


def _shapes(arm: Any) -> dict[str, tuple[int, int, int]]:
    """The arm's cameras."""
    return {name: shape for name, shape in arm.observation_features.items() if isinstance(shape, tuple)}


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
