"""Ids for gymnasium.make: one per task of the tabletop suite, `llamarm/PickPlace-v0` and so on.

The entry points are strings, so only `make` imports a simulator. For the same reason the task names are read from the
files of tabletop/tasks (one file per task). The ids have no `max_episode_steps`: the world itself truncates episodes at
the task's step limit, and a TimeLimit would duplicate that number.
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
    """Register every id with gymnasium; `import envs` calls this."""
    for env_id, task in env_ids().items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point="envs.tabletop.env:TabletopEnv", kwargs={"task": task})
