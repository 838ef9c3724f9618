"""The house has one arrow: envs -> vla_model -> rollout -> agent -> llamarm, and a heavy library lives in one room.

Read from the sources, so that imports inside functions and under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "envs": (),
    "vla_model": ("envs.types", "envs.errors"),
    "rollout": ("envs", "vla_model"),
    "agent": ("envs", "vla_model", "rollout"),
    "llamarm": ("envs", "vla_model", "rollout", "agent"),
}
"""Room: what it may import of the other rooms, each entry with all that lies below it."""

ORDER = {
    "envs": "errors seeds types arrays arm instructions world imported simulation suites tabletop make registration",
    "vla_model": "types config numerics files backbones vision heads inputs sizes model weights create policy",
    "rollout": "types weights broken_worlds peak_memory expert inference collect dataset codecs workers distributed",
    "agent": "runs learning algorithms evaluation training report studies robot serve console recipes commands cli",
}
"""Room: its files and folders in the order of their imports; each may import those before it."""

_NO_TRAINING = ("runs", "robot", "serve", "console")
ONLY = {
    "evaluation": ("runs",),
    "robot": _NO_TRAINING,
    "serve": _NO_TRAINING,
    "console": _NO_TRAINING,
}
"""Folder of agent: the only ones of agent that it may import, whatever comes before it."""

MOST_ENTRIES = 14
"""Files and folders in one folder."""
MORE_ENTRIES = {"agent/commands": 16}  # one file for each command that `llamarm --help` lists

OWNER = {
    "gymnasium": "envs",
    "mujoco": "envs",
    "mujoco_warp": "envs",
    "warp": "envs",
    "peft": "vla_model",
    "transformers": "vla_model",
    "av": "rollout",
    "pyarrow": "rollout",
    "ray": "rollout",
    "mjviser": "agent",
    "msgpack": "agent",
    "prometheus_client": "agent",
    "viser": "agent",
    "websockets": "agent",
}
"""Library: the only room that may import it."""

EXCEPTIONS = {
    (
        "agent/evaluation/videos.py",
        "av",
    ): "videos are for people: other codec settings and other frames than a dataset's videos",
}
"""(file, library): why it may import a library that another room owns."""

BEYOND_DOCSTRING = {"envs": "from envs.registration import register_envs\nregister_envs()"}
"""Room: what its __init__ does besides saying what the room is. Here: gymnasium ids appear with `import envs`."""

TOO_HEAVY = {
    "llamarm": {
        "agent",
        "envs",
        "gymnasium",
        "mujoco",
        "numpy",
        "ray",
        "rollout",
        "torch",
        "transformers",
        "vla_model",
    },
    "envs.make": {"mujoco"},
    "envs.types": {"mujoco", "mujoco_warp", "torch"},
    "envs.tabletop.world": {"mujoco_warp", "torch", "warp"},
    "envs.suites.libero.world": {"mujoco", "torch"},
    "envs.suites.metaworld.world": {"mujoco", "torch"},
    "vla_model": {"ray", "mujoco", "transformers", "torch"},
    "rollout.collect": {"ray", "mujoco", "torch"},
    "agent.cli": {"mujoco"},
    "agent.recipes": {"mujoco", "peft", "ray", "scipy", "tensorboard", "torch", "transformers"},
    "agent.serve.client": {"ray", "mujoco", "torch", "transformers"},
}
"""Module: libraries that importing it must not load. MuJoCo chooses what it draws with when it is first imported, so
commands leave that to the world."""


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports; `from a import b` imports a.b."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def violations(root: Path) -> list[str]:
    """Every import below root that the tables forbid, with what they allow."""
    found = []
    for room, allowed in MAY_IMPORT.items():
        for path in sorted((root / room).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            for line, name in imports(path):
                top = name.partition(".")[0]
                if top in MAY_IMPORT and top != room and not any(f"{name}.".startswith(f"{a}.") for a in allowed):
                    may = ", ".join(allowed) or "nothing"
                    found.append(f"{where}:{line} imports {name}; of the other rooms, {room} may import: {may}")
                owner = OWNER.get(top, room)
                if owner != room and (where, top) not in EXCEPTIONS:
                    found.append(f"{where}:{line} imports {name}; only {owner} may import {top}")
    return found


def backward(root: Path) -> list[str]:
    """Every import inside a room that goes against its order."""
    found = []
    for room, text in ORDER.items():
        order = text.split()
        for path in sorted((root / room).rglob("*.py")):
            where = path.relative_to(root)
            entry = where.parts[1].removesuffix(".py")
            if entry == "__init__":
                continue
            for line, name in imports(path):
                parts = name.split(".")
                if parts[0] != room or len(parts) < 2 or parts[1] == entry:
                    continue
                if order.index(parts[1]) > order.index(entry):
                    found.append(f"{where.as_posix()}:{line} imports {name}, which comes after {entry}")
                elif room == "agent" and entry in ONLY and parts[1] not in ONLY[entry]:
                    found.append(
                        f"{where.as_posix()}:{line} imports {name}; {entry} may import {', '.join(ONLY[entry])}"
                    )
    return found


def test_inside_a_room_imports_follow_its_order() -> None:
    assert not (found := backward(ROOT)), "\n" + "\n".join(found)


@pytest.mark.parametrize("room", ORDER)
def test_the_order_of_a_room_names_all_that_is_in_it(room: str) -> None:
    entries = {path.name.removesuffix(".py") for path in (ROOT / room).iterdir() if not path.name.startswith("__")}
    assert sorted(ORDER[room].split()) == sorted(entries)


def test_an_import_against_the_order_is_found(tmp_path: Path) -> None:
    (tmp_path / "rollout/dataset").mkdir(parents=True)
    (tmp_path / "rollout/dataset/read.py").write_text("from rollout.types import A\nimport rollout.workers.queue\n")
    assert backward(tmp_path) == [
        "rollout/dataset/read.py:2 imports rollout.workers.queue, which comes after dataset",
    ]


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        ("agent/learning/learner.py", "agent.algorithms.sft", "which comes after learning"),
        ("agent/evaluation/measure.py", "agent.learning.learner", "evaluation may import runs"),
        ("agent/serve/server.py", "agent.training.loop", "serve may import runs, robot"),
    ],
)
def test_a_room_of_training_where_none_may_be_is_found(tmp_path: Path, file: str, name: str, message: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"import {name}\n")
    (found,) = backward(tmp_path)
    assert found.startswith(f"{file}:1 imports {name}")
    assert message in found


def test_no_folder_has_more_entries_than_a_reader_keeps_in_mind() -> None:
    folders = {path.parent for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")}
    sizes = {
        str(folder.relative_to(ROOT)): sum(path.name != "__pycache__" for path in folder.iterdir())
        for folder in folders
    }
    assert not {folder: size for folder, size in sizes.items() if size > MORE_ENTRIES.get(folder, MOST_ENTRIES)}


def test_every_folder_says_what_is_inside() -> None:
    folders = {path.parent for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py")}
    assert not [folder for folder in folders if not ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))]


def test_every_import_follows_the_arrow() -> None:
    assert not (found := violations(ROOT)), "\n" + "\n".join(found)


def test_every_exception_is_still_used() -> None:
    for file, library in EXCEPTIONS:
        names = {name.partition(".")[0] for _, name in imports(ROOT / file)}
        assert library in names, f"{file} no longer imports {library}: drop its exception"


@pytest.mark.parametrize("room", sorted(MAY_IMPORT.keys() - {"llamarm"}))  # which test_llamarm.py looks at
def test_a_room_opens_with_its_docstring_and_hardly_anything_else(room: str) -> None:
    module = ast.parse((ROOT / room / "__init__.py").read_text())
    assert ast.get_docstring(module)
    assert ast.unparse(ast.Module(module.body[1:], [])) == BEYOND_DOCSTRING.get(room, "")


@pytest.mark.parametrize("module", TOO_HEAVY)
def test_importing_a_light_module_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({TOO_HEAVY[module]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split(), f"import {module} loads {done.stdout}"


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        (
            "envs/world.py",
            "import vla_model.types",
            "envs/world.py:1 imports vla_model.types; of the other rooms, envs",
        ),
        (
            "vla_model/model.py",
            "from envs import make",
            "imports envs.make; of the other rooms, vla_model may import: envs",
        ),
        (
            "vla_model/model.py",
            "def f():\n    from rollout.types import Trajectory",
            "vla_model/model.py:2 imports rollout",
        ),
        (
            "rollout/collect.py",
            "if TYPE_CHECKING:\n    import agent.training.loop",
            "rollout/collect.py:2 imports agent.training.loop",
        ),
        (
            "agent/deep/er/loop.py",
            "import mujoco.batch as b",
            "agent/deep/er/loop.py:1 imports mujoco.batch; only envs may",
        ),
        (
            "agent/serve.py",
            "from ray import remote",
            "agent/serve.py:1 imports ray.remote; only rollout may import ray",
        ),
        (
            "rollout/weights.py",
            "import os, transformers",
            "imports transformers; only vla_model may import transformers",
        ),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, source: str, message: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(source)
    (found,) = violations(tmp_path)
    assert message in found


def test_what_the_tables_allow_is_not_reported(tmp_path: Path) -> None:
    allowed = {
        "envs/simulation/simulator.py": "import mujoco\nimport envs.types\nfrom . import gl",
        "vla_model/policy.py": "from envs.types import Observation\nfrom envs import types\nimport transformers, torch",
        "rollout/workers/workers.py": "import ray\nimport envs.make, vla_model.policy\nimport rollout.collect",
        "agent/training/loop.py": "import envs, vla_model, rollout.workers.workers, agent.learning.learner, numpy",
        "agent/evaluation/videos.py": "import av",
    }
    for file, source in allowed.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source)
    assert violations(tmp_path) == []
