"""The language of the worlds: everything that crosses the door of this room, with shape, dtype and unit.

Nothing here imports a simulator, so a policy, a dataset reader or a robot can speak it without one.

Shape letters: N worlds, k actions executed of a chunk, A action dims, S state dims, L localization dims, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any, NotRequired, Self, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.seeds import seed_of

Array: TypeAlias = Any
"""A numpy.ndarray where worlds run on the CPU, a torch.Tensor on the worlds' device where they run on Warp.

To a type checker it is Any: the array API standard that the two share has no static type.
"""


MAX_INSTRUCTION_CHARS = 256
"""No world's instruction is longer."""
STEP_LIMIT = "step limit"
"""Why an episode failed that its step limit ended."""
OUTSIDE = 2.0
"""Frame coordinates are limited to this; what lies behind the camera is there."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera: its name, the size of the frames it gives and, where it is calibrated, what appears where in them."""

    name: str
    height: int
    width: int
    projection: tuple[float, ...] | None = None
    """Of a calibrated camera that stays where it is: a matrix of 3 x 4, row by row, that takes (x, y, z, 1) to
    (u w, v w, w). x, y and z are metres in the frame in which the state says where the hand is (WorldSpec.state's
    `position`); u is to the right, v down, -1 and 1 at the frame's edges."""

    def __post_init__(self) -> None:
        if self.projection is not None and len(self.projection) != 12:
            raise UserError(f"the projection of camera {self.name!r} must be 3 x 4 numbers, got {self.projection}")

    def project(self, points_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """Where points appear, (u, v), limited to OUTSIDE, float32 [..., 2].

        Args:
            points_m: [..., 3].

        Raises:
            UserError: the camera is not calibrated.
        """
        if self.projection is None:
            raise UserError(f"camera {self.name!r} has no projection, so where a point appears in it is unknown")
        matrix = np.reshape(self.projection, (3, 4))
        image = points_m @ matrix[:, :3].T + matrix[:, 3]
        depth = image[..., 2:]
        place = np.where(depth > 0, image[..., :2] / np.maximum(depth, 1e-6), OUTSIDE)
        return place.clip(-OUTSIDE, OUTSIDE).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """Name, unit and range of every element of a float32 vector.

    Example:
        >>> gripper = VectorSpec(names=("gripper",), units=("1",), low=(-1.0,), high=(1.0,))
        >>> gripper.size
        1
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    grippers: tuple[int, ...] = ()
    """Of an action: which elements command a gripper, closing above 0."""
    position: tuple[int, ...] = ()
    """Of a state: which three elements are the hand's x, y and z in metres; none where it does not say."""
    places: tuple[tuple[str, int, int], ...] = ()
    """Of labels: (camera, u, v) of every place in a frame, with the elements that say it: u to the right, v down, -1
    and 1 at the frame's edges."""

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


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a policy or a dataset must match to be used with a world."""

    cameras: tuple[CameraSpec, ...]
    state: VectorSpec
    """Proprioception."""
    action: VectorSpec
    """Every action is float32 in [-1, 1]; units name what 1 means."""
    localization: VectorSpec
    """Positions of what the instruction names, in metres: a training label only, never an input of a policy."""
    control_dt_s: float
    """Time between two actions."""

    def __post_init__(self) -> None:
        for camera in self.calibrated_cameras:
            if not self.state.position:
                raise UserError(
                    f"camera {camera.name!r} has a projection, to say where the hand appears, but the state's spec "
                    f"does not say which of its elements are the hand's position: {', '.join(self.state.names)}"
                )

    @classmethod
    def of(cls, content: Any) -> Self:
        """The inverse of dataclasses.asdict, after JSON.

        Raises:
            UserError: it is something else, or says of a world what none has.
        """
        try:
            spec = cls._of(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"its world_spec lacks or misuses {error}") from error
        if found := list(_never_so(spec)):
            raise UserError(f"its world_spec says what no world has: {'; '.join(found)}")
        return spec

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Self:
        vectors = {
            name: VectorSpec(**{key: _as_tuples(values) for key, values in content[name].items()})
            for name in ("state", "action", "localization")
        }
        # Of before it was said: a gripper was what had that name, the hand's position the first three in metres, and a
        # place what was called THING_CAMERA_u and THING_CAMERA_v.
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
        """Every difference that matters to a policy or a dataset of this world, a line each.

        No difference are cameras that only the given one has, for nobody looks through them, and what one of the two
        does not say (None), such as the projection of a camera that was not calibrated. Numbers may differ by rounding.

        Args:
            given: the other world.
            labels: localization too, which teaches and is never seen: to act without it is no difference.
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
                found.append(f"camera {camera.name!r} looks from elsewhere: its projection is {projections}")
        for name in ("state", "action", *(["localization"] if labels else [])):
            ours: VectorSpec = getattr(self, name)
            # These three say what the same names mean, and files of before only guess them.
            for field in (f for f in fields(VectorSpec) if f.name not in ("grippers", "position", "places")):
                mine, its = getattr(ours, field.name), getattr(getattr(given, name), field.name)
                if not _alike(mine, its):
                    found.append(f"{name} {field.name} are {its}, expected {mine}")
        if not _alike(self.control_dt_s, given.control_dt_s):
            found.append(f"control_dt_s is {given.control_dt_s}, expected {self.control_dt_s}")
        return found

    def camera(self, name: str) -> CameraSpec:
        """The camera of that name.

        Raises:
            UserError: no such camera; the message lists those that exist.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise UserError(f"camera {name!r} does not exist; cameras: {', '.join(c.name for c in self.cameras)}")


def _as_tuples(values: Any) -> tuple[Any, ...]:
    """JSON's lists, and the lists in them."""
    return tuple(_as_tuples(value) if isinstance(value, list) else value for value in values)


def _places_of_before(names: tuple[str, ...], cameras: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """VectorSpec.places of labels that only their names said to be places in the frames of these cameras.

    Raises:
        UserError: a label has its u and no v.
    """
    for u, name in enumerate(names):
        ends_with = [camera for camera in cameras if name.endswith(f"_{camera}_u")]
        if not ends_with:
            continue
        if (other := f"{name[:-2]}_v") not in names:
            raise UserError(f"label {name!r} is a place in a frame, but there is no {other!r}; labels: {names}")
        # Of cameras "image" and "wrist_image" a label that ends with the longer name is the latter's.
        yield max(ends_with, key=len), u, names.index(other)


def _never_so(spec: WorldSpec) -> Iterator[str]:
    """What of a spec that comes from a file is in no world."""
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
    """Whether two fields of a spec say the same, or one of them nothing."""
    if ours is None or theirs is None:
        return True
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(_alike, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    return ours == theirs


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeSpec:
    """Everything that decides an episode before its first action.

    The same spec gives the same instruction and the same first observation, bit for bit, in any process, so results
    keyed by `id` can be compared in pairs and an episode lost with its worker can be made again.

    What episodes of different specs share is the world's business: `envs/tabletop/episodes/layout.py` says it of the
    tabletop, and Meta-World and environments of gymnasium are reset with `seed` alone. What a policy draws, it draws
    from `policy_seed`, in which no two specs agree.

    Raises:
        UserError: seed or repeat is not a whole number of at least 0.

    Example:
        >>> EpisodeSpec(suite="tabletop", task="pick_place", seed=7).id
        'tabletop/pick_place/train/7'
    """

    suite: str
    task: str
    seed: int
    variation: str = "train"
    repeat: int = 0
    """Tells apart episodes that begin alike: worlds do not look at it, a policy that draws its actions draws others."""

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
        """The seed given to `Policy.begin`, of everything that tells this spec from others: 0..2^63 - 1."""
        return seed_of(self.suite, self.task, self.variation, int(self.seed), int(self.repeat))


class Observation(TypedDict):
    """What a policy sees of N worlds: a plain dict, and an element of the world's gymnasium observation space.

    Policies that look back need the step too. Worlds leave it out; who runs the episodes knows it and adds it.
    """

    frames: dict[str, Array]  # {camera: uint8 [N, H, W, 3]}, RGB
    state: Array  # float32 [N, S], units of WorldSpec.state
    instruction: tuple[str, ...]  # N sentences
    step: NotRequired[NDArray[np.int64]]  # [N] control steps since the episode began


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """What came of executing k actions in each of N worlds.

    A world whose episode ended within the chunk (or before it) ignores the rest: its later rewards are 0 and
    `num_steps` says how many actions it did execute.
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
    """Why a world's episode failed before its step limit, e.g. "wrong object" or "non-finite physics"."""
    broken: frozenset[int] = frozenset()
    """Worlds whose episode was ended by an error of the world's own (it raised, or gave what is not finite), which
    `failure` names. Such an episode is set aside: nobody learns from it, and an evaluation counts it as failed."""
    all_frames: dict[str, Array] | None = None
    """{camera: uint8 [N, k, H, W, 3]}: the frame after every action, where the caller asked for all."""

    @property
    def done(self) -> NDArray[np.bool_]:
        return self.terminated | self.truncated

    @property
    def outcome(self) -> tuple[str, ...]:
        """Of each world: "success", why its episode failed, e.g. "step limit", or "" while it runs, [N]."""
        told = zip(self.done, self.success, self.failure, self.truncated, strict=True)
        return tuple(
            "" if not done else why_failed(success=won, failure=why, truncated=cut) or "success"
            for done, won, why, cut in told
        )


def why_failed(*, success: bool, failure: str | None, truncated: bool) -> str | None:
    """Why an episode that ended failed, in words; None where it succeeded.

    Args:
        success: the world's success flag.
        failure: the world's own words, if it has any.
        truncated: whether the step limit ended it.
    """
    if success:
        return None
    return failure or (STEP_LIMIT if truncated else "ended by the task")


Info = dict[str, Any]
