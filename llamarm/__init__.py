"""The public Python API: `import llamarm`, or `from llamarm import load_policy`.

Policies
    load_policy          loads the policy of a run, a checkpoint or a policy's folder
    VLAPolicy            the policy: frames and an instruction in, action chunks out
    ServedPolicy         client of `llamarm serve`, with the same interface
    Policy, ActionChunk  the interface of a policy of your own
    MixtureOfExperts     the layer alone, a torch module
Worlds
    make_world           N parallel worlds of a suite, or of MODULE:FUNCTION of your own
    EpisodeSpec          one episode: suite, task, seed, variation
    WorldSpec, VectorSpec, CameraSpec    observations and actions: names, units, ranges, sizes, rate
    GymnasiumTask, GymnasiumWorld        a gymnasium environment as a world
Robots
    Agent                a policy that drives a robot: control loop, safety filter, recording
    SimRobot, LeRobotRobot               a world in real time, an arm with LeRobot's interface
    RobotSpec, Axis, Limits, Reading, OpenCVCamera    the parts of a robot of your own
Training and evaluation
    RECIPES              {name: function that returns a config}, as for `llamarm train`
    start_run            creates a run's folder, for train and improve
    train, improve       run a config: train on demonstrations, or fine-tune a policy
    collect              runs episodes and yields their trajectories
    evaluation_specs, evaluate           fixed held-out episodes, and a policy's success on them
    DatasetReader        reads a collected or recorded dataset
    DatasetWriter, Trajectory            writes one: of which episodes
Errors
    UserError            invalid input, with a one-line message; a ValueError

Names are imported lazily: `import llamarm` itself loads no other module of ours, and neither torch nor a simulator.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.evaluation.evaluate import evaluate as evaluate
    from agent.evaluation.evaluate import evaluation_specs as evaluation_specs
    from agent.recipes import RECIPES as RECIPES
    from agent.robot.agent import Agent as Agent
    from agent.robot.camera import OpenCVCamera as OpenCVCamera
    from agent.robot.robots.lerobot_robot import LeRobotRobot as LeRobotRobot
    from agent.robot.robots.sim_robot import SimRobot as SimRobot
    from agent.robot.types import Axis as Axis
    from agent.robot.types import Limits as Limits
    from agent.robot.types import Reading as Reading
    from agent.robot.types import RobotSpec as RobotSpec
    from agent.runs.policies import load_policy as load_policy
    from agent.runs.run_folder import start_run as start_run
    from agent.serve.client import ServedPolicy as ServedPolicy
    from agent.training.improve import improve as improve
    from agent.training.loop import train as train
    from envs.errors import UserError as UserError
    from envs.make import make_world as make_world
    from envs.suites.gymnasium_env import GymnasiumTask as GymnasiumTask
    from envs.suites.gymnasium_env import GymnasiumWorld as GymnasiumWorld
    from envs.types import CameraSpec as CameraSpec
    from envs.types import EpisodeSpec as EpisodeSpec
    from envs.types import VectorSpec as VectorSpec
    from envs.types import WorldSpec as WorldSpec
    from rollout.collect import collect as collect
    from rollout.dataset.read import DatasetReader as DatasetReader
    from rollout.dataset.write import DatasetWriter as DatasetWriter
    from rollout.types import Trajectory as Trajectory
    from vla_model.heads.moe import MixtureOfExperts as MixtureOfExperts
    from vla_model.policy import VLAPolicy as VLAPolicy
    from vla_model.types import ActionChunk as ActionChunk
    from vla_model.types import Policy as Policy

_HOMES = {
    "agent.evaluation.evaluate": ("evaluate", "evaluation_specs"),
    "agent.recipes": ("RECIPES",),
    "agent.robot.agent": ("Agent",),
    "agent.robot.camera": ("OpenCVCamera",),
    "agent.robot.robots.lerobot_robot": ("LeRobotRobot",),
    "agent.robot.robots.sim_robot": ("SimRobot",),
    "agent.robot.types": ("Axis", "Limits", "Reading", "RobotSpec"),
    "agent.runs.policies": ("load_policy",),
    "agent.runs.run_folder": ("start_run",),
    "agent.serve.client": ("ServedPolicy",),
    "agent.training.improve": ("improve",),
    "agent.training.loop": ("train",),
    "envs.errors": ("UserError",),
    "envs.make": ("make_world",),
    "envs.suites.gymnasium_env": ("GymnasiumTask", "GymnasiumWorld"),
    "envs.types": ("CameraSpec", "EpisodeSpec", "VectorSpec", "WorldSpec"),
    "rollout.collect": ("collect",),
    "rollout.dataset.read": ("DatasetReader",),
    "rollout.dataset.write": ("DatasetWriter",),
    "rollout.types": ("Trajectory",),
    "vla_model.heads.moe": ("MixtureOfExperts",),
    "vla_model.policy": ("VLAPolicy",),
    "vla_model.types": ("ActionChunk", "Policy"),
}
"""{module: its names}. Type checkers read the imports above, Python reads these; a test compares them."""
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a name on first access."""
    if name not in _HOME:
        raise AttributeError(f"module 'llamarm' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    globals()[name] = found = getattr(import_module(_HOME[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
