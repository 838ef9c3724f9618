"""How much one reads to follow a command to what it is about, measured by following imports.

A journey is the shortest chain of imports through named stops, with the files of its algorithm: its own, and those of
agent/algorithms that this one imports but for method.py, the interface that all algorithms have. docs/overview.md
prints what is measured here.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from test_imports import MAY_IMPORT, ROOT, imports

GRADIENT = "agent/learning/gradients.py"
INTERFACE = "agent/algorithms/method.py"
JOURNEYS = {
    "sft": (("agent/commands/train.py", "agent/training/loop.py", GRADIENT), "agent/algorithms/sft.py", 6, 1100),
    "ppo": (("agent/commands/train.py", "agent/training/improve.py", GRADIENT), "agent/algorithms/ppo.py", 7, 1300),
}
"""Name: stops, the algorithm's file, and at most so many files and lines."""
EVALUATION = ("agent/commands/eval.py", "rollout/collect.py"), ("agent/commands/", "agent/evaluation/"), 16
"""Of the journey of an evaluation the stops, the last of them the loop of an episode; the folders of which all files
are read that the first stop leads to; and at most so many files."""


@cache
def graph(root: Path) -> dict[str, list[str]]:
    """{file: files of the four rooms that it imports, in their order}, also within functions and for types."""
    found = {}
    for room in MAY_IMPORT:
        for path in sorted((root / room).rglob("*.py")):
            names = (name for _, name in imports(path))
            files = dict.fromkeys(file for name in names if (file := _file(root, name)) is not None)
            found[path.relative_to(root).as_posix()] = list(files)
    return found


def _file(root: Path, name: str) -> str | None:
    """The file of the module that `from a.b import c` is about: a/b/c.py, else a/b.py."""
    for parts in (name.split("."), name.split(".")[:-1]):
        path = root.joinpath(*parts).with_suffix(".py")
        if parts and parts[0] in MAY_IMPORT and path.exists():
            return path.relative_to(root).as_posix()
    return None


def chain(of: dict[str, list[str]], start: str, end: str) -> list[str]:
    """The shortest chain of imports, both ends included."""
    before: dict[str, str | None] = {start: None}
    queue = deque([start])
    while queue and end not in before:
        file = queue.popleft()
        for imported in of[file]:
            if imported not in before:
                before[imported] = file
                queue.append(imported)
    found: list[str] = []
    at: str | None = end
    while at is not None:
        found.insert(0, at)
        at = before[at]
    return found


def reached(of: dict[str, list[str]], start: str, within: tuple[str, ...]) -> list[str]:
    """All files that a file leads to, itself first, by imports of files whose path begins so."""
    found = [start]
    for file in found:
        found += [i for i in of[file] if i.startswith(within) and i not in found]
    return found


def journey(of: dict[str, list[str]], stops: tuple[str, ...], algorithm: str) -> list[str]:
    """The files of a journey."""
    chains = [chain(of, *ends) for ends in pairwise(stops)]
    own = [file for file in reached(of, algorithm, ("agent/algorithms/",)) if file != INTERFACE]
    return list(dict.fromkeys([*(file for files in chains for file in files), *own]))


def lines_of(files: list[str]) -> int:
    return sum(len((ROOT / file).read_text().splitlines()) for file in files)


def evaluation_journey(of: dict[str, list[str]]) -> list[str]:
    """The files of the journey of an evaluation."""
    stops, folders, _ = EVALUATION
    return list(dict.fromkeys([*reached(of, stops[0], folders), *chain(of, *stops)]))


def journeys() -> dict[str, list[str]]:
    """Of this code, by name."""
    of = graph(ROOT)
    training = {name: journey(of, stops, algorithm) for name, (stops, algorithm, _, _) in JOURNEYS.items()}
    return training | {"evaluation": evaluation_journey(of)}


@pytest.mark.parametrize("name", JOURNEYS)
def test_from_the_command_line_to_the_gradient_it_is_not_far(name: str) -> None:
    files = journeys()[name]
    _, _, most_files, most_lines = JOURNEYS[name]
    assert len(files) <= most_files, files
    assert lines_of(files) <= most_lines, {file: lines_of([file]) for file in files}


def test_from_the_command_line_to_an_evaluated_episode_it_is_not_far() -> None:
    assert len(files := journeys()["evaluation"]) <= EVALUATION[2], files


def test_the_overview_names_the_files_of_every_journey() -> None:
    text = (ROOT / "docs/overview.md").read_text()
    for name, files in journeys().items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert row == f"| {name} | {len(files)} | {', '.join(f'`{file}`' for file in files)} |"


def test_only_recipes_name_an_algorithm_that_practises() -> None:
    """Whoever asked which algorithm a config is of would have to import it."""
    names = ("ppo", "grpo", "rft", "dagger", "ppo_config", "grpo_config", "cloning_config")
    practising = {f"agent/algorithms/{name}.py" for name in names}
    found = {file for file, imported in graph(ROOT).items() if practising & set(imported)}
    assert {file for file in found if not file.startswith("agent/algorithms/")} == {"agent/recipes.py"}


def test_a_journey_is_the_shortest_chain_and_the_algorithms_own_files(tmp_path: Path) -> None:
    for file, source in {
        "agent/commands/train.py": "from agent.training import detour\nfrom agent.training.loop import train",
        "agent/training/detour.py": "import agent.training.loop",
        "agent/training/loop.py": "def f():\n    from agent.learning.learner import Learner",
        "agent/learning/learner.py": "import torch",
        "agent/algorithms/sft.py": "from agent.algorithms.method import Method\nimport agent.algorithms.loss",
        "agent/algorithms/method.py": "",
        "agent/algorithms/loss.py": "import vla_model.means",
        "vla_model/means.py": "",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source)
    stops = ("agent/commands/train.py", "agent/learning/learner.py")
    assert journey(graph(tmp_path), stops, "agent/algorithms/sft.py") == [
        "agent/commands/train.py",
        "agent/training/loop.py",
        "agent/learning/learner.py",
        "agent/algorithms/sft.py",
        "agent/algorithms/loss.py",
    ]
