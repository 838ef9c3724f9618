"""A robot of the user's own, by the name MODULE:FUNCTION."""

from __future__ import annotations

from typing import Any

from agent.robot.types import RobotSpec
from envs.errors import UserError
from envs.imported import imported
from envs.suites.returned import calling


def imported_robot(name: str) -> Any:
    """The robot that MODULE:FUNCTION returns; the current folder is on the import path.

    Raises:
        UserError: it is not of that form, cannot be imported, raises, or returns no robot.
    """
    if ":" not in name:
        raise UserError(f"robot {name!r} is neither 'sim' nor MODULE:FUNCTION")
    make = imported("robot", name)
    with calling(f"robot {name!r}"):
        robot = make()
    if not isinstance(getattr(robot, "spec", None), RobotSpec):
        raise UserError(f"robot {name!r} gave a {type(robot).__name__}, expected a robot, whose spec is a RobotSpec")
    return robot
