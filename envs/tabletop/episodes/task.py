"""Task: the interface of the suite's tasks (instructions, success, reward terms, expert), and the View they read.

One file of `tasks/` holds one task. Everything is batched over the worlds that run it, in arrays of numpy or torch.

Shape letters: n worlds of one task, O objects, R receptacles, A action dims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar, Literal

from array_api_compat import array_namespace

from envs.arm import ArmSpec
from envs.tabletop.episodes.episode import DIRECTION_WORDS, Episode
from envs.types import Array

LOST_BELOW_M = 0.05
"""An object this far below the table top has fallen off the table."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The privileged state of n worlds: metres and radians, table frame (z = 0 on the table)."""

    arm: ArmSpec
    step: Array  # [n] int64, control steps since the episode began
    target: Array  # [n] int64, Episode.target
    goal: Array  # [n] int64, Episode.goal
    start_pos: Array  # [n, 2] initial position of the target object
    direction: Array  # [n, 2] unit vector of Episode.direction
    drawer_start_m: Array  # [n, 2] initial opening of each drawer
    tcp_pos: Array  # [n, 3] point between the fingertips
    tcp_yaw: Array  # [n] rotation of the gripper about the vertical, 0 at home
    tcp_tilt: Array  # [n, 2] rotation vector (x, y) that would bring the gripper back to vertical
    opening_m: Array  # [n] distance between the fingers' pads
    object_pos: Array  # [n, O, 3]
    object_yaw: Array  # [n, O]
    object_speed: Array  # [n, O] m/s
    receptacle_pos: Array  # [n, R, 3]
    drawer_m: Array  # [n, 2] opening of each drawer
    handle_pos: Array  # [n, 2, 3] centre of each handle
    button_m: Array  # [n, 3] how far each button is pressed
    button_pos: Array  # [n, 3, 3] centre of each button's top
    dial_rad: Array  # [n] positive to the left (counter-clockwise from above)
    dial_pos: Array  # [n, 3] centre of the bar's top

    @cached_property
    def rows(self) -> Array:
        return array_namespace(self.target).arange(len(self.target), device=self.target.device)  # [n]

    def part(self, rows: Array) -> View:
        """The view of some of the worlds."""
        return View(arm=self.arm, **{name: getattr(self, name)[rows] for name in _ARRAYS})

    def of_target(self, per_thing: Array) -> Array:
        """Each world's entry for its target: [n, things, ...] -> [n, ...]."""
        return per_thing[self.rows, self.target]

    def of_goal(self, per_thing: Array) -> Array:
        """Each world's entry for its goal: [n, things, ...] -> [n, ...]."""
        return per_thing[self.rows, self.goal]

    def any_other(self, per_thing: Array) -> Array:
        """Whether a condition holds for any thing but the target: bool [n, things] -> [n]."""
        xp = array_namespace(per_thing)
        others = xp.asarray(per_thing, copy=True)
        others[self.rows, self.target] = False
        return xp.any(others, axis=1)


_ARRAYS = tuple(field.name for field in fields(View) if field.name != "arm")


class Task(ABC):
    """One task: an ObjectsTask or a FixturesTask. Instances hold no state."""

    name: ClassVar[str]
    kind: ClassVar[Literal["objects", "fixtures"]]
    max_steps: ClassVar[int]
    paraphrases: ClassVar[tuple[str, ...]]
    """Training templates; {words} are filled by `words`."""
    held_out_paraphrases: ClassVar[tuple[str, ...]]
    """Templates never used in training."""
    receptacles: ClassVar[tuple[str, ...]] = ("bowl", "zone")
    """Kinds of receptacles that may lie beside the objects."""
    goal_is_object: ClassVar[bool] = False
    """Whether the goal is another object instead of a receptacle."""
    goal_by_colour: ClassVar[bool] = False
    """Whether the goal is the receptacle of the target's colour."""
    num_targets: ClassVar[int] = 1
    """Number of things on a fixtures table that the instruction selects from."""
    target_drawer_open: ClassVar[bool | None] = None
    """Whether the target drawer is initially open; None allows both."""
    has_signals: ClassVar[bool] = False
    """Whether `button_rgb` sets the buttons' colours instead of the episode."""

    def can_begin(self, episode: Episode) -> bool:
        """Whether the task can be done in this layout."""
        del episode
        return True

    @abstractmethod
    def words(self, episode: Episode) -> dict[str, str]:
        """Values of the {words} in the templates."""

    @abstractmethod
    def success(self, view: View) -> Array:
        """Whether the task is done, [n]."""

    def wrong(self, view: View) -> Array:
        """Whether the instruction was irreversibly violated, [n]."""
        return view.target < 0

    wrong_name: ClassVar[str] = "wrong object"

    def lost(self, view: View) -> Array:
        """Whether an object that the instruction names has left the table, [n]."""
        return view.target < 0

    def button_rgb(self, view: View) -> Array:
        """Current colours of the buttons, [n, buttons, 3]; called only if has_signals."""
        raise NotImplementedError(f"task {self.name} has no button signals")

    @abstractmethod
    def places(self, view: View) -> tuple[Array, Array]:
        """Target and goal positions, [n, 3] each, for reward terms and localization labels."""

    @abstractmethod
    def expert(self, view: View) -> Array:
        """The scripted expert's action, defined in every state, [n, A]."""


class ObjectsTask(Task):
    """A task at the table of loose objects: acts on one and, by default, brings it to a receptacle."""

    kind = "objects"

    def words(self, episode: Episode) -> dict[str, str]:
        """{object}; {base}, or {bowl} or {zone}; and {direction}."""
        words = {"object": episode.object_name(episode.target), "direction": DIRECTION_WORDS[episode.direction]}
        if self.goal_is_object:
            return words | {"base": episode.object_name(episode.goal)}
        return words | {episode.receptacle: episode.receptacle_name(episode.goal)}

    def lost(self, view: View) -> Array:
        """The target fell, or the goal where that is an object."""
        lost = view.of_target(view.object_pos)[:, 2] < -LOST_BELOW_M
        return lost | (view.of_goal(view.object_pos)[:, 2] < -LOST_BELOW_M) if self.goal_is_object else lost

    def places(self, view: View) -> tuple[Array, Array]:
        """The object, and the receptacle."""
        return view.of_target(view.object_pos), view.of_goal(view.receptacle_pos)


class FixturesTask(Task):
    """A task at the table of drawers, buttons and a dial."""

    kind = "fixtures"
