"""One file per task, and the list of them."""

from __future__ import annotations

from envs.tabletop.episodes.task import Task
from envs.tabletop.tasks.close_drawer import CloseDrawer
from envs.tabletop.tasks.lift import Lift
from envs.tabletop.tasks.open_drawer import OpenDrawer
from envs.tabletop.tasks.pick_place import PickPlace
from envs.tabletop.tasks.place import Place
from envs.tabletop.tasks.press_button import PressButton
from envs.tabletop.tasks.push import Push
from envs.tabletop.tasks.reach import Reach
from envs.tabletop.tasks.recall_button import RecallButton
from envs.tabletop.tasks.slide import Slide
from envs.tabletop.tasks.sort import Sort
from envs.tabletop.tasks.stack import Stack
from envs.tabletop.tasks.turn_dial import TurnDial

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Reach(),
        Lift(),
        PickPlace(),
        Place(),
        Stack(),
        Sort(),
        Push(),
        Slide(),
        OpenDrawer(),
        CloseDrawer(),
        PressButton(),
        TurnDial(),
    )
}
"""The tasks of the suite "tabletop" by name."""

MEMORY_TASKS: dict[str, Task] = {task.name: task for task in (RecallButton(),)}
"""The tasks that need memory: a separate suite, so that the task list of "tabletop" is unchanged."""

SUITES: dict[str, dict[str, Task]] = {"tabletop": TASKS, "tabletop_memory": MEMORY_TASKS}
"""{suite: {task name: task}}."""

EVERY_TASK = TASKS | MEMORY_TASKS
"""All tasks by name; task names are unique across suites."""
