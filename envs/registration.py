"""Ids for gymnasium.make: one per task of the tabletop suite, `llamarm/PickPlace-v0` and so on.

The entry points are strings, so a simulator is imported by `make` and not before. For the same reason the tasks' names
are read from the files of tabletop/tasks (one file, one task), and the ids carry no `max_episode_steps`: the world ends
its episodes at its task's step limit itself, and a TimeLimit beside it would be a second copy of that number.
"""

from __future__ import annotations

import pkgutil
from pathlib import Path

import gymnasium

_TASK_FILES = Path(__file__).parent / "tabletop" / "tasks"


def env_ids() -> dict[str, str]:
    """{id: task}, e.g. {"llamarm/PickPlace-v0": "pick_place"}."""
    tasks = [module.name for module in pkgutil.iter_modules([str(_TASK_FILES)])]
    return {f"llamarm/{task.title().replace('_', '')}-v0": task for task in tasks}


def register_envs() -> None:
    """Make every id known to gymnasium; `import envs` calls this."""
    for env_id, task in env_ids().items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point="envs.tabletop.env:TabletopEnv", kwargs={"task": task})
