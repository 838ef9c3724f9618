"""A wide scene, compiled, and the episodes in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from envs.errors import UserError
from envs.seeds import seed_of
from envs.suites.libero.scene import InitialState, Scene, bddl_path, seed_samplers
from envs.suites.libero.tasks import TRAIN, WIDE
from envs.suites.libero.wide.composition import bddl_text, compose, composition_of, is_own
from envs.suites.libero.wide.goals import Goal, afforded, part_of, parts, sample_goal
from envs.suites.libero.wide.held_out import HeldOut, held_out, named_place, read_problem
from envs.suites.libero.wide.layout import Layout, Pose
from envs.suites.libero.wide.looks.colours import colours_of
from envs.suites.libero.wide.looks.sizes import declare, resized, resized_in_place
from envs.suites.libero.wide.relations import relations
from envs.suites.libero.wide.sentences import Speaker
from envs.suites.libero.wide.shapes import shapes_of, supports_of

MOST_SAMPLES = 300
HORIZONS = (300, 520)
"""Step limits for goals of one predicate and of two."""
_OPEN_FOR_THINGS, _OTHERWISE_OPEN = 0.7, 0.1
"""Probability that a drawer into which something goes is open, and that something else is open or on."""


class SampledEpisode(NamedTuple):
    """What an episode asks for, and where things are."""

    goal: Goal
    sentence: str
    poses: dict[str, Pose]
    switches: dict[str, bool]
    """{part: whether it is open or on}"""


class WideScene(Scene):
    """A task's wide scene of one number."""

    def __init__(self, task: str, number: int, refused: HeldOut | None = None) -> None:
        """Compile, which takes 0.5 to 4 s, and twice that where the task's own things have no other episode.

        Args:
            task: a name in tasks.SUITES.
            number: tasks.scene_number of the seeds.
            refused: what episodes must not have; LIBERO-PRO's by default.
        """
        self._refused = refused or held_out()
        self._compile(task, number, is_own(number))
        if self._is_own and self._sampled_episode(np.random.default_rng(seed_of("libero wide", task))) is None:
            self._compile(task, number, own=False)
        self._colours = colours_of(self, self.composition.categories)

    def _compile(self, task: str, number: int, own: bool) -> None:
        """The scene with the task's own things in their places, or with others."""
        file = bddl_path(task, TRAIN)
        problem, sizes = read_problem(file), np.random.default_rng(seed_of("libero wide sizes", task, number))
        suites = composition_of(problem)
        self.composition = suites if own else compose(suites, task, number)
        self._is_own = own
        bddl = file.read_text() if own else bddl_text(self.composition)
        categories = resized_in_place(problem, sizes) if own else resized(self.composition.movable, sizes)
        seed_samplers(seed_of("libero wide rest", task, number))
        super().__init__(task, WIDE, declare(bddl, categories))
        self.shapes = shapes_of(self)
        self._supports = supports_of(self)
        self._goals = self._compiled_only(afforded(self.composition, self.shapes, self._refused))
        self._base_m = self.model.body("robot0_link0").pos[:2]

    @property
    def horizon(self) -> int:
        return HORIZONS[len(self.goal) - 1]

    def initial_state(self, seed: int, attempt: int = 0) -> InitialState:
        """As Scene's; goal, sentence and colours are from now on the episode's."""
        rng = np.random.default_rng(seed_of("libero wide", self.task, int(seed), attempt))
        self.to_rest()
        sampled = self.sample(rng)
        self.goal, self.instruction = sampled.goal, sampled.sentence
        self.interest = tuple(name for predicate in sampled.goal for name in predicate[1:])
        self.suite_env.parsed_problem["goal_state"] = [list(predicate) for predicate in sampled.goal]
        self._colours.draw(rng)
        for part, on in sampled.switches.items():
            self.suite_env.object_states_dict[part].set_joint(rng.uniform(*self._range(part, on)))
        for name, pose in sampled.poses.items():
            self.set_pose(name, pose.pos, pose.quat)
        return self.with_joint_noise(rng)

    def is_fair(self, start: InitialState) -> bool:
        """Whether the goal is still to be reached, and nothing has fallen over or rolled away."""
        return self.has_stood(start) and not self.succeeded()

    def sample(self, rng: np.random.Generator) -> SampledEpisode:
        """An episode that LIBERO-PRO does not have.

        Raises:
            UserError: none was found.
        """
        sampled = self._sampled_episode(rng)
        if sampled is None:
            raise UserError(
                f"no wide episode was found in a scene of {self.task}: {self.composition.categories}; "
                "leave the task out"
            )
        return sampled

    def _sampled_episode(self, rng: np.random.Generator) -> SampledEpisode | None:
        """As `sample`; None if none was found. Changes `data`."""
        composition, refused = self.composition, self._refused
        for _ in range(MOST_SAMPLES if self._goals else 0):
            goal = sample_goal(self._goals, rng)
            layout = Layout(composition, self.shapes, self._supports, self._base_m, goal, rng)
            if self._is_own:
                layout.poses.update(self._own_places(rng))
            elif not layout.sample():
                continue
            if layout.is_held_out(refused):
                continue
            where = relations(composition, goal, layout, rng)
            if where is not None:
                sentence = Speaker(composition.categories, refused, rng).say(goal, where)
                return SampledEpisode(goal, sentence, layout.poses, self._switches(goal, rng))
        return None

    def _switches(self, goal: Goal, rng: np.random.Generator) -> dict[str, bool]:
        """What is open or on at the beginning: what the goal wants to be otherwise, doors that things go through, most
        drawers that things go into, and some that the goal has nothing to do with.
        """
        here = self.composition.categories
        wanted = {predicate[1]: predicate[0] in ("open", "turnon") for predicate in goal if len(predicate) == 2}
        ways = {part_of(predicate[2], self.composition) for predicate in goal if len(predicate) == 3}
        named = {named_place(name, here)[0] for predicate in goal for name in predicate[1:]}
        switches = {}
        for part in parts(self.composition):
            chance = rng.random()
            if part not in self.regions and part not in self.fixtures:
                continue
            if part in wanted and not (part in ways and part not in self.fixtures):
                switches[part] = not wanted[part]
            elif part in ways:
                switches[part] = part in self.fixtures or chance < _OPEN_FOR_THINGS
            elif not self._is_own:  # there, what the suite left it
                switches[part] = named_place(part, here)[0] not in named and chance < _OTHERWISE_OPEN
        return switches

    def _own_places(self, rng: np.random.Generator) -> dict[str, Pose]:
        """Where a reset of the suite puts everything; changes `data`."""
        placed = self.reset_placements(int(rng.integers(2**32)))
        return {made.name: Pose(np.array(pos), np.array(quat), 0.0) for pos, quat, made in placed}

    def _compiled_only(self, goals: dict[str, list[Goal]]) -> dict[str, list[Goal]]:
        """The goals whose places the compiled scene has: LIBERO's own files declare those that their task needs."""
        here = self.objects.keys() | self.fixtures.keys() | self.regions.keys()
        known = {
            kind: [goal for goal in found if here.issuperset(name for predicate in goal for name in predicate[1:])]
            for kind, found in goals.items()
        }
        return {kind: found for kind, found in known.items() if found}

    def _range(self, part: str, on: bool) -> tuple[float, float]:
        """Of a joint that is open or on, or is not."""
        thing, _ = named_place(part, self.composition.categories)
        ranges = self.suite_env.get_object(thing).object_properties["articulation"]
        names = ("turnon", "turnoff") if "default_turnon_ranges" in ranges else ("open", "close")
        low, high = ranges[f"default_{names[0] if on else names[1]}_ranges"]
        return (low, high) if on else (0.0, 0.0)
