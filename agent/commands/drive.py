"""The command `llamarm drive`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Interval

from agent.commands.shared.acting import check_names
from agent.commands.shared.options import limit_threads, parse_with
from agent.robot.agent import Agent
from agent.robot.drive import DriveConfig, Outcome
from agent.robot.robots.imported import imported_robot
from agent.runs.checks import Seed
from agent.runs.messages import say, say_next
from agent.runs.names import check_name
from agent.runs.policies import load_policy, say_place, where_to_act
from agent.runs.worlds import WorldPython, named_world
from envs.errors import UserError
from envs.make import make_world
from envs.types import EpisodeSpec
from vla_model.inputs.instructions import check_text
from vla_model.numerics.dtypes import DtypeName


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Drive a robot in real time. Ctrl-C stops it."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint, or a policy's folder."""
    robot: str = "sim"
    """"sim", or MODULE:FUNCTION, which is called without arguments and returns the robot (docs/your_robot.md)."""
    instruction: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """The policy's instruction; default: with "sim" the task's."""
    seconds: Annotated[float, Interval(gt=0, le=86_400)] = 20.0
    """Time limit."""
    record: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """LeRobotDataset to which the drive is appended."""
    world: str | None = None
    """Suite of "sim", or MODULE:FUNCTION of your own (docs/your_task.md); default: the policy's suite."""
    world_python: WorldPython = None
    """Interpreter in which the world, a MODULE:FUNCTION, runs, for packages that conflict with ours
    (docs/your_task.md)."""
    task: str | None = None
    """Task of "sim"; default: the policy's, if it has only one."""
    seed: Seed = 1_000_000
    """Episode's seed, with "sim"."""
    variation: str = "train"
    """Episode's variation, with "sim"."""
    dtype: DtypeName = "auto"
    """Number format of the policy's weights and computation; "auto" is bfloat16 where the hardware has it."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Drive, "drive", args, drive=DriveConfig())
    imported_arm = None if options.robot == "sim" else imported_robot(options.robot)
    if options.instruction is not None:
        check_text(options.instruction)
    elif imported_arm is not None:
        raise UserError("a real robot needs an instruction: --instruction TEXT")
    named = (options.task,) if options.task else ()
    asked = named_world(options.world, options.world_python)
    if imported_arm is None:
        check_names(options.policy, asked, named, (options.variation,))

    policy = load_policy(options.policy, options.dtype)
    limit_threads(policy, spared_cores=1)
    with ExitStack() as stack:
        robot, instruction = imported_arm, options.instruction
        if robot is None:
            from agent.robot.robots.sim_robot import SimRobot

            name, tasks = where_to_act(options.policy, policy.processor.deployment, asked, named)
            world = stack.enter_context(closing(make_world(name)))
            if len(tasks) != 1:
                raise UserError(f"name the task to drive: --task {' or '.join(tasks or world.tasks)}")
            task = check_name("task", tasks[0], world.tasks)
            say_place(options.policy, policy.processor.deployment, name, tasks)
            episode = EpisodeSpec(suite=world.suite, task=task, seed=options.seed, variation=options.variation)
            robot = SimRobot(world, episode)
            robot.connect()  # begins the episode, whose instruction is then known
            instruction = robot.instruction if instruction is None else instruction
        agent = Agent(policy.to("auto"), robot, config=options.drive)
        say("drive", f"drives {options.robot} for at most {options.seconds:g} s: {instruction}; Ctrl-C stops it")
        outcome = agent.run(instruction, options.seconds, record=options.record, judge=judge)
    for line in outcome.lines():
        print(line)
    if options.record:
        say_next("see what is recorded", "data", options.record)


def judge(outcome: Outcome) -> bool | None:
    """The robot's success flag, or where it has none a person's; None without an answer."""
    if outcome.success is None and sys.stdin.isatty():
        try:
            return input(f"{outcome.ended}. Success? [y/N] ").strip().lower() == "y"
        except (EOFError, KeyboardInterrupt):
            print()
    return outcome.success
