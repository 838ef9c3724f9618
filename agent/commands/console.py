"""The command `llamarm console`."""

from __future__ import annotations

import math
import signal
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from agent.commands.shared.acting import EXPERT, check_names
from agent.commands.shared.options import limit_threads, parse_with
from agent.console.config import PageConfig
from agent.robot.drive import DriveConfig
from agent.robot.robots.imported import imported_robot
from agent.runs.addresses import check_address
from agent.runs.checks import Seed
from agent.runs.names import check_name
from agent.runs.policies import DEFAULT_WORLD, load_policy, say_place, where_to_act
from envs.errors import UserError
from envs.types import EpisodeSpec
from vla_model.inputs.instructions import check_text

if TYPE_CHECKING:
    from agent.console.drive_session import DriveSession
    from agent.console.page import Page
    from vla_model.policy import VLAPolicy

_FIRST_TASK = "pick_place"


@dataclass(frozen=True, kw_only=True)
class Console:
    """Browser page: instruct, watch, disturb, stop, take over and record. Ctrl-C ends it."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint, a policy's folder, or "expert" for the scripted
    expert of "sim"."""
    robot: str = "sim"
    """"sim", or MODULE:FUNCTION, which is called without arguments and returns the robot (docs/your_robot.md)."""
    instruction: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """Initial instruction; default: with "sim" the task's."""
    task: str | None = None
    """Initial task of "sim"; default: the first of the policy's tasks."""
    seed: Seed = 1_000_000
    """Initial episode's seed, with "sim"."""
    variation: str = "train"
    """Initial episode's variation, with "sim"."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Console, "console", args, page=PageConfig(), drive=DriveConfig())
    if options.instruction is not None:
        check_text(options.instruction)
    check_address(options.page.host, 0)  # 0: the page takes the next port if its own is in use

    if options.robot == "sim":
        check_names(options.policy, DEFAULT_WORLD, _named(options), (options.variation,))
    elif options.policy == EXPERT:
        raise UserError("the scripted expert drives only 'sim': name a policy, or leave out --robot")

    policy = None if options.policy == EXPERT else load_policy(options.policy)
    limit_threads(policy, spared_cores=1)
    if policy is not None:
        policy = policy.to("auto")
    if options.robot == "sim":
        session, page = _with_table(options, policy)
    else:
        from agent.console.drive_session import DriveSession
        from agent.console.page import Page

        assert policy is not None
        robot = imported_robot(options.robot)
        session = DriveSession(policy, robot, options.drive)
        page = Page(session, robot.spec, options.page, instruction=options.instruction or "")
    ended = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with closing(page), closing(session):  # the robot rests first
        print(f"{page.address} shows {options.policy}; Ctrl-C ends it", flush=True)
        page.run(ended)


def _named(options: Any) -> tuple[str, ...]:
    """The task that the user asks for, if any."""
    return (options.task,) if options.task else ()


def _with_table(options: Any, policy: VLAPolicy | None) -> tuple[DriveSession, Page]:
    """A session and a page with the simulated table."""
    from agent.console.drive_session import DriveSession
    from agent.console.page import Page
    from agent.console.table import LiveTable, TableExpert
    from envs.tabletop.arm.control import CONTROL_DT_S
    from envs.tabletop.episodes.variations import VARIATIONS
    from envs.tabletop.world import TabletopConfig, TabletopWorld

    # A person is slower than the expert, so the page's time limit ends a drive, not the task's.
    world = TabletopWorld(1, TabletopConfig(max_steps=math.ceil(options.page.seconds / CONTROL_DT_S)))
    made_for = None if policy is None else policy.processor.deployment
    _, tasks = where_to_act(options.policy, made_for, DEFAULT_WORLD, _named(options))
    task, variation = (
        check_name("task", tasks[0] if tasks else _FIRST_TASK, world.tasks),
        check_name("variation", options.variation, VARIATIONS),
    )
    say_place(options.policy, made_for, DEFAULT_WORLD, tasks)
    table = LiveTable(world, EpisodeSpec(suite=world.suite, task=task, seed=options.seed, variation=variation))
    session = DriveSession(policy or TableExpert(table), table, options.drive, close=world.close)
    session.show(table.episode)
    page = Page(
        session,
        table.spec,
        options.page,
        table=table,
        tasks=world.tasks,
        variations=tuple(VARIATIONS),
        instruction=options.instruction or "",
    )
    return session, page
