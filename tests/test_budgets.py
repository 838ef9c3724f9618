"""Small enough to read: limits on functions and files, and words where a reader needs them.

A function's length counts every line from `def` to its end, its docstring too.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("agent", "envs", "llamarm", "rollout", "vla_model")

FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_MAX = 12, 45, 100
FILE_MAX = 500
POSTPONED = tuple("".join(word) for word in (("TO", "DO"), ("FIX", "ME")))

EXCEPTIONS: dict[str, str] = {}
"""File, or file::function: why it may exceed its limit."""


def python_files(root: Path) -> list[Path]:
    return sorted(path for room in ROOMS for path in (root / room).rglob("*.py"))


def function_lengths(root: Path) -> list[tuple[str, int]]:
    """(file::name, lines) of every function and method."""
    lengths = []
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                name = f"{path.relative_to(root).as_posix()}::{node.name}"
                lengths.append((name, node.end_lineno - node.lineno + 1))
    return lengths


def too_long(root: Path) -> dict[str, str]:
    """Every function and file beyond its hard limit, and by how much."""
    functions = {name: n for name, n in function_lengths(root) if n > FUNCTION_MAX}
    sizes = {path.relative_to(root).as_posix(): len(path.read_text().splitlines()) for path in python_files(root)}
    files = {name: n for name, n in sizes.items() if n > FILE_MAX}
    return {name: f"{name} has {n} lines, at most {FUNCTION_MAX}" for name, n in functions.items()} | {
        name: f"{name} has {n} lines, at most {FILE_MAX}" for name, n in files.items()
    }


def undocumented(root: Path) -> Iterator[str]:
    """Modules, and their public functions and classes, without a docstring."""
    for path in python_files(root):
        where = path.relative_to(root).as_posix()
        module = ast.parse(path.read_text())
        if not ast.get_docstring(module):
            yield f"{where} has no docstring"
        for node in module.body:
            is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_definition and not node.name.startswith("_") and not ast.get_docstring(node):
                yield f"{where}:{node.lineno} {node.name} has no docstring"


def postponed(root: Path, files: list[str]) -> Iterator[str]:
    """Lines that leave work for later."""
    for file in files:
        text = (root / file).read_bytes().decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if any(word in line for word in POSTPONED):
                yield f"{file}:{number} {line.strip()}"


def bare_value_errors(root: Path) -> Iterator[str]:
    """Where a ValueError is made: the command line would show it as a bug, with its traceback."""
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(made, ast.Name) and made.id == "ValueError":
                    where = path.relative_to(root).as_posix()
                    yield f"{where}:{node.lineno} raises ValueError; what a user is told is envs.errors.UserError"


def report(found: list[str]) -> str:
    return "\n" + "\n".join(found)


def test_no_function_and_no_file_is_too_long() -> None:
    found = [message for name, message in too_long(ROOT).items() if name not in EXCEPTIONS]
    assert not found, report(found)


def test_most_functions_are_short() -> None:
    lengths = [n for _, n in function_lengths(ROOT)]
    assert np.median(lengths) <= FUNCTION_MEDIAN
    assert np.percentile(lengths, 90) <= FUNCTION_P90


def test_every_exception_is_still_needed() -> None:
    needless = EXCEPTIONS.keys() - too_long(ROOT).keys()
    assert not needless, f"within their limits by now: {needless}"
    assert all(EXCEPTIONS.values()), "every exception gives its reason"


def test_modules_and_public_names_have_docstrings() -> None:
    assert not (found := list(undocumented(ROOT))), report(found)


def test_nothing_is_left_for_later() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so which files are ours is not known")
    files = [file for file in listed.stdout.splitlines() if (ROOT / file).is_file()]
    assert not (found := list(postponed(ROOT, files))), report(found)


def test_what_a_user_is_told_is_raised_as_such() -> None:
    assert not (found := list(bare_value_errors(ROOT))), report(found)


def test_a_bare_value_error_is_found(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "a.py").write_text("raise UserError()\nraise ValueError('b') from e\n")
    assert [line.partition(" ")[0] for line in bare_value_errors(tmp_path)] == ["envs/a.py:2"]


def test_what_exceeds_a_limit_is_found(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    body = "    x = 1\n" * FUNCTION_MAX
    (tmp_path / "envs" / "a.py").write_text(
        f"def long():\n{body}\nclass Bare:\n    pass\n\ndef _private():\n    pass\n"
    )
    (tmp_path / "envs" / "b.py").write_text('"""Documented."""\n' + f"# {POSTPONED[0]}: later\n" * FILE_MAX)
    assert list(too_long(tmp_path).values()) == [
        f"envs/a.py::long has {FUNCTION_MAX + 1} lines, at most {FUNCTION_MAX}",
        f"envs/b.py has {FILE_MAX + 1} lines, at most {FILE_MAX}",
    ]
    assert list(undocumented(tmp_path)) == [
        "envs/a.py has no docstring",
        "envs/a.py:1 long has no docstring",
        f"envs/a.py:{FUNCTION_MAX + 3} Bare has no docstring",
    ]
    assert len(list(postponed(tmp_path, ["envs/a.py", "envs/b.py"]))) == FILE_MAX
