"""Types of the interface of worlds, with shapes, dtypes and units.

Nothing here imports a simulator, so policies, dataset readers and robots can use them without one.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.seeds import seed_of

if TYPE_CHECKING:
    from typing import NotRequired, Self  # the interpreters of envs/suites/hosted may be Python 3.10

Array: TypeAlias = Any
"""A numpy.ndarray for worlds on the CPU, a torch.Tensor on the worlds' device for worlds on Warp.

To a type checker it is Any: the array API standard has no static type.
"""


MAX_INSTRUCTION_CHARS = 256
"""Maximum length of an instruction."""
STEP_LIMIT = "step limit"
"""Failure reason of an episode that its step limit ended."""
OUTSIDE = 2.0
"""Frame coordinates are clipped to this; points behind the camera have it."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera: its name, frame size and, if it is calibrated, its projection."""

    name: str
    height: int
    width: int
    projection: tuple[float, ...] | None = None
    """Of a calibrated, fixed camera: a 3 x 4 matrix in row-major order that maps (x, y, z, 1) to (u w, v w, w).
    x, y and z are metres in the frame of the hand's position in the state (WorldSpec.state's `position`); u points
    right, v down, -1 and 1 at the frame's edges."""

    def __post_init__(self) -> None:
        if self.projection is not None and len(self.projection) != 12:
            raise UserError(f"the projection of camera {self.name!r} must be 3 x 4 numbers, got {self.projection}")

    def project(self, points_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """Project points to (u, v), clipped to +-OUTSIDE, float32 [..., 2].

        Args:
            points_m: [..., 3].

        Raises:
            UserError: the camera is not calibrated.
        """
        if self.projection is None:
            raise UserError(f"camera {self.name!r} has no projection, so points cannot be projected into it")
        matrix = np.reshape(self.projection, (3, 4))
        image = points_m @ matrix[:, :3].T + matrix[:, 3]
        depth = image[..., 2:]
        place = np.where(depth > 0, image[..., :2] / np.maximum(depth, 1e-6), OUTSIDE)
        return place.clip(-OUTSIDE, OUTSIDE).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """Name, unit and range of every element of a float32 vector.

    Examples:
        >>> gripper = VectorSpec(names=("gripper",), units=("1",), low=(-1.0,), high=(1.0,))
        >>> gripper.size
        1
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    grippers: tuple[int, ...] = ()
    """Of an action: the elements that command a gripper, closing above 0."""
    position: tuple[int, ...] = ()
    """Of a state: the three elements that are the hand's x, y and z in metres; empty if unknown."""
    places: tuple[tuple[str, int, int], ...] = ()
    """Of labels: (camera, index of u, index of v) of every point in a camera's frame: u points right, v down, -1 and 1
    at the frame's edges."""

    def __post_init__(self) -> None:
        sizes = {len(self.names), len(self.units), len(self.low), len(self.high)}
        if len(sizes) != 1:
            raise UserError(f"names, units, low and high must have one length, got {sorted(sizes)} for {self.names}")
        if any(len(place) != 3 for place in self.places):
            raise UserError(f"a place is (camera, u, v), got {self.places}")
        in_frames = [i for _, *place in self.places for i in place]
        if any(not 0 <= i < self.size for i in (*self.grippers, *self.position, *in_frames)):
            raise UserError(
                f"grippers {self.grippers}, places {self.places} and position {self.position} must be elements 0 to "
                f"{self.size - 1} of {', '.join(self.names)}"
            )
        if len(self.position) not in (0, 3):
            raise UserError(f"a position is three elements, x, y and z, got {self.position}")

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def is_gripper(self) -> NDArray[np.bool_]:
        """[size], True for `grippers`."""
        return np.isin(np.arange(self.size), self.grippers)


def positions_and_places(things: Sequence[str], cameras: Sequence[str], farthest_m: float) -> VectorSpec:
    """The spec of labels that are the positions of things, and then their places in each camera's frame.

    Args:
        farthest_m: bound of every coordinate.
    """
    in_frames = [camera for camera in cameras for _ in things]
    num_positions, num_places = 3 * len(things), 2 * len(in_frames)
    high = (*(farthest_m,) * num_positions, *(OUTSIDE,) * num_places)
    return VectorSpec(
        names=(
            *(f"{thing}_{axis}" for thing in things for axis in "xyz"),
            *(f"{thing}_{camera}_{axis}" for camera in cameras for thing in things for axis in "uv"),
        ),
        units=(*("m",) * num_positions, *("half frame",) * num_places),
        low=tuple(-bound for bound in high),
        high=high,
        places=tuple((camera, num_positions + 2 * i, num_positions + 2 * i + 1) for i, camera in enumerate(in_frames)),
    )


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a policy or a dataset must match to be used with a world."""

    cameras: tuple[CameraSpec, ...]
    state: VectorSpec
    """Proprioception."""
    action: VectorSpec
    """Every action is float32 in [-1, 1]; the units say what 1 means."""
    localization: VectorSpec
    """Positions of the things the instruction names: a training label only, never an input of a policy."""
    control_dt_s: float
    """Time between two actions."""

    def __post_init__(self) -> None:
        for camera in self.calibrated_cameras:
            if not self.state.position:
                raise UserError(
                    f"camera {camera.name!r} has a projection, but the state's spec does not give the elements of "
                    f"the hand's position: {', '.join(self.state.names)}"
                )

    @classmethod
    def of(cls, content: Any) -> Self:
        """The inverse of dataclasses.asdict, after JSON.

        Raises:
            UserError: the content is malformed or has invalid values.
        """
        try:
            spec = cls._of(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"its world_spec lacks or misuses {error}") from error
        if found := list(_invalid_values(spec)):
            raise UserError(f"its world_spec has invalid values: {'; '.join(found)}")
        return spec

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Self:
        vectors = {
            name: VectorSpec(**{key: _as_tuples(values) for key, values in content[name].items()})
            for name in ("state", "action", "localization")
        }
        # Older files lack these fields: a gripper is an element with that name, the hand's position the first three
        # elements in metres, and a place a pair of labels THING_CAMERA_u and THING_CAMERA_v.
        if "position" not in content["state"]:
            units = vectors["state"].units
            first = next((i for i in range(len(units) - 2) if units[i : i + 3] == ("m",) * 3), None)
            position = () if first is None else (first, first + 1, first + 2)
            vectors["state"] = replace(vectors["state"], position=position)
        if "grippers" not in content["action"]:
            named = tuple(i for i, name in enumerate(vectors["action"].names) if "gripper" in name)
            vectors["action"] = replace(vectors["action"], grippers=named)
        if "places" not in content["localization"]:
            found = tuple(_places_of_before(vectors["localization"].names, [c["name"] for c in content["cameras"]]))
            vectors["localization"] = replace(vectors["localization"], places=found)
        cameras = tuple(
            CameraSpec(**camera | {"projection": (numbers := camera.get("projection")) and tuple(numbers)})
            for camera in content["cameras"]
        )
        return cls(cameras=cameras, control_dt_s=content["control_dt_s"], **vectors)

    @property
    def calibrated_cameras(self) -> list[CameraSpec]:
        """Those with a projection."""
        return [camera for camera in self.cameras if camera.projection is not None]

    def differences(self, given: WorldSpec, *, labels: bool = True) -> list[str]:
        """Every difference that matters to a policy or a dataset of this world, one line each.

        Ignored: cameras that only `given` has, values that one of the two lacks (None), such as the projection of an
        uncalibrated camera, and rounding.

        Args:
            given: the other world.
            labels: compare localization too; it matters for training, not for acting.
        """
        found: list[str] = []
        theirs = {camera.name: camera for camera in given.cameras}
        for camera in self.cameras:
            other = theirs.get(camera.name)
            if other is None:
                found.append(f"camera {camera.name!r} is missing; cameras: {', '.join(theirs)}")
                continue
            if (size := f"{other.height}x{other.width}") != (expected := f"{camera.height}x{camera.width}"):
                found.append(f"camera {camera.name!r} is {size}, expected {expected}")
            if not _alike(camera.projection, other.projection):
                projections = f"{other.projection}, expected {camera.projection}"
                found.append(f"camera {camera.name!r} has another pose: its projection is {projections}")
        for name in ("state", "action", *(["localization"] if labels else [])):
            ours: VectorSpec = getattr(self, name)
            # These three follow from the names, and are inferred for older files.
            for field in (f for f in fields(VectorSpec) if f.name not in ("grippers", "position", "places")):
                mine, its = getattr(ours, field.name), getattr(getattr(given, name), field.name)
                if not _alike(mine, its):
                    found.append(f"{name} {field.name} are {its}, expected {mine}")
        if not _alike(self.control_dt_s, given.control_dt_s):
            found.append(f"control_dt_s is {given.control_dt_s}, expected {self.control_dt_s}")
        return found


def _as_tuples(values: Any) -> tuple[Any, ...]:
    """JSON lists as tuples, recursively."""
    return tuple(_as_tuples(value) if isinstance(value, list) else value for value in values)


def _places_of_before(names: tuple[str, ...], cameras: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """VectorSpec.places of an older file, inferred from label names that end with a camera's name and u or v.

    Raises:
        UserError: a label has a u but no v.
    """
    for u, name in enumerate(names):
        ends_with = [camera for camera in cameras if name.endswith(f"_{camera}_u")]
        if not ends_with:
            continue
        if (other := f"{name[:-2]}_v") not in names:
            raise UserError(f"label {name!r} is a place in a frame, but there is no {other!r}; labels: {names}")
        # Of cameras "image" and "wrist_image" a label that ends with the longer name is the latter's.
        yield max(ends_with, key=len), u, names.index(other)


def _invalid_values(spec: WorldSpec) -> Iterator[str]:
    """Invalid values in a spec that was read from a file, as messages."""
    for camera in spec.cameras:
        sides = (camera.height, camera.width)
        if not isinstance(camera.name, str) or any(type(side) is not int or side < 1 for side in sides):
            yield f"a camera {camera.name!r} of {camera.height!r}x{camera.width!r} pixels"
        if not all(_is_number(value) for value in camera.projection or ()):
            yield f"camera {camera.name!r} has the projection {camera.projection}"
    for name in ("state", "action", "localization"):
        vector: VectorSpec = getattr(spec, name)
        cameras = [camera for camera, _, _ in vector.places]
        if wrong := [text for text in (*vector.names, *vector.units, *cameras) if not isinstance(text, str)]:
            yield f"{wrong[0]!r} is a name, a unit or a camera of the {name}"
        if wrong := [bound for bound in (*vector.low, *vector.high) if not _is_number(bound)]:
            yield f"{wrong[0]!r} is a bound of the {name}"
    if not (_is_number(spec.control_dt_s) and 0 < spec.control_dt_s < math.inf):
        yield f"control_dt_s is {spec.control_dt_s!r}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _alike(ours: object, theirs: object) -> bool:
    """Whether two fields of a spec are equal up to rounding, or one of them is None."""
    if ours is None or theirs is None:
        return True
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    return ours == theirs


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeSpec:
    """Everything that determines an episode before its first action.

    The same spec gives the same instruction and the same first observation, bit for bit, in any process, so results
    keyed by `id` can be compared in pairs and an episode lost with its worker can be run again.

    What episodes of different specs share depends on the world: see `envs/tabletop/episodes/layout.py` for the
    tabletop; Meta-World and gymnasium environments are reset with `seed` alone. A policy samples with `policy_seed`,
    which differs between any two specs.

    Raises:
        UserError: seed or repeat is not a whole number of at least 0.

    Examples:
        >>> EpisodeSpec(suite="tabletop", task="pick_place", seed=7).id
        'tabletop/pick_place/train/7'
    """

    suite: str
    task: str
    seed: int
    variation: str = "train"
    repeat: int = 0
    """Distinguishes repeated rollouts from the same initial state: ignored by worlds, part of `policy_seed`."""

    def __post_init__(self) -> None:
        for name, number in (("seed", self.seed), ("repeat", self.repeat)):
            if isinstance(number, bool) or not isinstance(number, Integral) or number < 0:
                raise UserError(f"the {name} of an episode is a whole number of at least 0, got {number!r}")

    @property
    def id(self) -> str:
        name = f"{self.suite}/{self.task}/{self.variation}/{self.seed}"
        return f"{name}/{self.repeat}" if self.repeat else name

    @property
    def policy_seed(self) -> int:
        """The seed given to `Policy.begin`, derived from all fields: 0..2^63 - 1."""
        return seed_of(self.suite, self.task, self.variation, int(self.seed), int(self.repeat))


class Observation(TypedDict):
    """A policy's observation of N worlds: a plain dict, and an element of the world's gymnasium observation space.

    Policies with history also need the step, which the rollout loop adds.
    """

    frames: dict[str, Array]  # {camera: uint8 [N, H, W, 3]}, RGB
    state: Array  # float32 [N, S], units of WorldSpec.state
    instruction: tuple[str, ...]  # N sentences
    step: NotRequired[NDArray[np.int64]]  # [N] control steps since the episode began


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """Result of executing k actions in each of N worlds.

    A world whose episode ended within or before the chunk ignores the remaining actions: their rewards are 0, and
    `num_steps` is the number of actions executed.
    """

    observation: Observation
    """After the last executed action of each world."""
    reward_terms: dict[str, Array]
    """Unweighted reward terms by name, float32, each [N, k]."""
    reward: Array
    """Weighted sum of the terms, float32 [N, k]."""
    states: Array
    """Proprioception after each action, float32 [N, k, S]."""
    localization: Array
    """Privileged label after each action, float32 [N, k, L]."""
    num_steps: NDArray[np.int64]
    """Actions executed in this chunk, [N]."""
    terminated: NDArray[np.bool_]
    """The task ended the episode (success, or a failure that cannot be undone), [N]."""
    truncated: NDArray[np.bool_]
    """The step limit ended the episode, [N]."""
    success: NDArray[np.bool_]
    """The world's own success flag, [N]."""
    failure: tuple[str | None, ...]
    """Reason of failure before the step limit, e.g. "wrong object" or "non-finite physics", [N]."""
    broken: frozenset[int] = frozenset()
    """Worlds whose episode ended with an error of the world (an exception or non-finite values), described in
    `failure`. Such an episode is not trained on, and an evaluation counts it as failed."""
    all_frames: dict[str, Array] | None = None
    """{camera: uint8 [N, k, H, W, 3]}: the frame after every action, if requested."""

    @property
    def done(self) -> NDArray[np.bool_]:
        return self.terminated | self.truncated

    @property
    def outcome(self) -> tuple[str, ...]:
        """Per world: "success", the reason of failure, e.g. "step limit", or "" while the episode runs, [N]."""
        ends = zip(self.done, self.success, self.failure, self.truncated, strict=True)
        return tuple(
            "" if not done else why_failed(success=won, failure=why, truncated=cut) or "success"
            for done, won, why, cut in ends
        )


def why_failed(*, success: bool, failure: str | None, truncated: bool) -> str | None:
    """Reason why a finished episode failed; None if it succeeded.

    Args:
        success: the world's success flag.
        failure: the world's reason, if any.
        truncated: whether the step limit ended it.
    """
    if success:
        return None
    return failure or (STEP_LIMIT if truncated else "ended by the task")


Info = dict[str, Any]
