"""The pages say what the ledger says, and the ledger's measurements can be repeated."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest

from agent import cli
from agent.commands.shared import options
from agent.runs.checks import check_config
from benchmarks.ledger.entries import FOLDER, ROOT, Entry, EntryError, Figure, load, parse, write
from benchmarks.ledger.pages import LIST, listed, pages, references, rendered, without_reference

ENTRIES = load()
README = ROOT / "README.md"
RENDER = "run: python -m benchmarks.ledger render"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_says_what_the_entries_say(page: Path) -> None:
    text = page.read_text()
    assert rendered(text, ENTRIES, page) == text, RENDER


def test_the_list_of_entries_is_up_to_date() -> None:
    assert LIST.read_text() == listed(ENTRIES), RENDER


def test_every_figure_of_the_readme_refers_to_an_entry() -> None:
    assert not without_reference(README.read_text())


@pytest.mark.parametrize("name", ENTRIES)
def test_every_figure_of_an_entry_stands_on_its_page(name: str) -> None:
    entry = ENTRIES[name]
    page = (ROOT / entry.page).read_text()
    for key, figure in entry.figures.items():
        for part in ("", *(part for part in ("interval", "range") if getattr(figure, part))):
            stands = any(re.search(rf"(?<![\d.]){re.escape(text)}(?!\d|\.\d)", page) for text in written(figure, part))
            assert stands, f"{entry.page} does not say that {key} is {figure.texts(part)[0]}"


def written(figure: Figure, part: str) -> list[str]:
    """How a page may say it: a range also by its two ends."""
    texts = list(figure.texts(part))
    return [*texts, str(figure.range[1])] if part == "range" and figure.range else texts


@pytest.fixture(scope="module")
def commits() -> tuple[str, ...]:
    """The checkout's history."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False).stdout

    if git("rev-parse", "--is-shallow-repository").strip() != "false":
        pytest.skip("not a checkout with its history")
    return tuple(git("rev-list", "HEAD").split())


@pytest.mark.parametrize("name", ENTRIES)
def test_the_commit_of_an_entry_exists(name: str, commits: tuple[str, ...]) -> None:
    assert any(commit.startswith(ENTRIES[name].commit) for commit in commits)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_commits_that_a_page_names_exist(page: Path, commits: tuple[str, ...]) -> None:
    named = re.findall(r"\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{7}\b", page.read_text())
    assert not [name for name in named if not any(commit.startswith(name) for commit in commits)]


class TakenError(Exception):
    """The command line was read and every option checked; the work would begin now."""


@pytest.mark.parametrize("name", ENTRIES)
def test_the_commands_of_an_entry_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(parsed: Any) -> Never:
        check_config(parsed)
        raise TakenError

    monkeypatch.setattr(options, "check_config", stop)
    for command in ENTRIES[name].commands:
        take(shlex.split(command))


def take(words: list[str]) -> None:
    """Parse a command by the options of today.

    Raises:
        SystemExit: it is not taken.
    """
    match words:
        case ["llamarm", *args]:
            with pytest.raises(TakenError):
                cli.main(args)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make has no {target}"
        case ["python", "-m", module, *args]:
            unknown = {arg for arg in args if arg.startswith("--")} - options_of(module)
            assert not unknown, f"{module} does not take {', '.join(unknown)}"
        case _:
            raise AssertionError(f"neither llamarm, make nor python -m: {shlex.join(words)}")


def options_of(module: str) -> set[str]:
    """Names of a benchmark's options, from its source: importing it would load all that it measures."""
    path = ROOT / module.replace(".", "/")
    tree = ast.parse((path / "__main__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options"]
    fields = [node.target for one in classes for node in one.body if isinstance(node, ast.AnnAssign)]
    of_fields = {f"--{field.id.replace('_', '-')}" for field in fields if isinstance(field, ast.Name)}
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return of_fields | {value for value in constants if isinstance(value, str) and value.startswith("--")}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("llamarm train sft_demo --out RUN --learner.batchsize 3", SystemExit),
        ("llamarm trian sft_demo --out RUN", SystemExit),
        ("make demmo", AssertionError),
        ("python -m benchmarks.ledger.nothing", FileNotFoundError),
        ("python -m benchmarks.world --num-actoins 200", AssertionError),
        ("python -m benchmarks.libero --stepps 3", AssertionError),
        ("./demo.sh", AssertionError),
    ],
)
def test_a_command_that_is_no_longer_taken_is_refused(command: str, what: type[BaseException]) -> None:
    with pytest.raises(what):
        take(shlex.split(command))


SUCCESS = Figure(value=90.8, unit="%", interval=(84.3, 94.8), n=120)
TRY = Entry(
    title="Try",
    page="README.md",
    commands=("make demo",),
    commit="934044a",
    date="2026-11-30",
    machine="2 cores",
    figures={
        "success": SUCCESS,
        "success/reach": Figure(value=85, unit="%"),
        "seconds": Figure(value=507, unit="s"),
        "change": Figure(value=2.3, unit="points", interval=(-0.3, 4.3)),
        "p": Figure(value=3e-7, unit=""),
    },
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("in 91 %<!-- try.success --> of", "in 90.8 %<!-- try.success --> of"),
        ("in 90.80<!-- try.success --> of", "in 90.80<!-- try.success --> of"),
        ("**7**<!-- no reference -->", "**7**<!-- no reference -->"),
        ("7<!-- try.success -->, 7 %<!-- try.p -->", "90.8<!-- try.success -->, 3e-7<!-- try.p -->"),
        ("80 to 90 %<!-- try.success.interval -->", "84.3 to 94.8 %<!-- try.success.interval -->"),
        ("of 100<!-- try.success.n --> episodes", "of 120<!-- try.success.n --> episodes"),
        ("took 9 min 1 s<!-- try.seconds -->", "took 8 min 27 s<!-- try.seconds -->"),
        ("by -2<!-- try.change -->", "by +2.3<!-- try.change -->"),
        ("(-3 to +4<!-- try.change.interval -->)", "(-0.3 to +4.3<!-- try.change.interval -->)"),
        ("p = 0.02<!-- try.p -->", "p = 3e-7<!-- try.p -->"),
    ],
)  # fmt: skip
def test_a_figure_before_a_reference_is_that_of_the_entry(before: str, after: str) -> None:
    assert rendered(before, {"try": TRY}, README) == after
    assert rendered(after, {"try": TRY}, README) == after


def test_columns_of_a_table_are_those_of_the_entry() -> None:
    columns = "<!-- columns: try.success/{} | - | try.success/{}.interval -->"
    head = f"{columns}\n\n| task | success | a | b |\n|---|---|---|---|\n"
    before = head + "| reach | 70 % | 3 | |\n| all | **70 %** (1 to 2) | 4 | 1 to 2 |\n"
    after = head + "| reach | 85 % | 3 | |\n| all | **90.8 %** (84.3 to 94.8) | 4 | 84.3 to 94.8 |\n"
    assert rendered(before, {"try": TRY}, README) == after


def test_a_results_table_has_a_row_for_each_entry() -> None:
    text = rendered("<!-- results: try -->\n\n<!-- end of results -->", {"try": TRY}, README)
    assert "[Try](README.md) | **90.8 %** | 84.3 to 94.8 % of 120 |  | 8\u00a0min 27\u00a0s |" in text
    assert rendered(text, {"try": TRY}, README) == text
    assert list(references(text)) == ["try"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 %<!-- tyr.success -->", "no entry 'tyr'"),
        ("7 %<!-- try.sucess -->", "no 'sucess'"),
        ("7 %<!-- try.seconds.interval -->", "no 'interval'"),
        ("most<!-- try.success -->", "stands behind no figure"),
        ("<!-- results: tyr -->\n\n<!-- end of results -->", "no entry 'tyr'"),
        ("<!-- columns: try.success -->\n\n| a | b |\n|---|---|\n| all | most |\n", "is no figure"),
        ("<!-- columns: try.success -->\n\n| a | b | c |\n|---|---|---|\n| all | 7 | 8 |\n", "a row has 2"),
    ],
)
def test_a_reference_to_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(EntryError, match=message):
        rendered(text, {"try": TRY}, README)


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("reaches 92.5, 95.0<!-- try.success --> and 92.5 %", ["92.5", "92.5 %"]),
        ("takes 4 ms, 290 steps of it per second, p = 1e-7", ["4 ms", "290 steps of it per second", "1e-7"]),
        ("in 20 minutes, 1.86 times, 9,000 pairs per second", ["20 minutes", "1.86 times", "9,000 pairs per second"]),
        ("the 95 % interval; Python 3.11; versions 3.0 and 2; 120 episodes; `99 %`; [a](b/1.5.md)", []),
    ],
)  # fmt: skip
def test_figures_without_a_reference_are_found(text: str, figures: list[str]) -> None:
    assert without_reference(text) == figures


def test_a_changed_figure_of_the_readme_is_found() -> None:
    text = README.read_text()
    changed = re.sub(r"\*\*[\d.]+ %\*\*", "**99.9 %**", text, count=1)
    assert changed != text
    assert rendered(changed, ENTRIES, README) == text
    added = text.replace("# llamarm\n", "# llamarm\n\nIt succeeds in 99.9 %.\n", 1)
    assert without_reference(added) == ["99.9 %"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": "latest"}, "commit"),
        ({"date": "yesterday"}, "isoformat"),
        ({"page": "docs/none.md"}, "does not exist"),
        ({"commands": []}, "are needed"),
        ({"seeds": [1]}, "seeds"),
        ({"figures": {"a.b": {"value": 1, "unit": "%"}}}, "name"),
        ({"figures": {"a": {"value": 1, "unit": "percent"}}}, "unit"),
        ({"figures": {"a": {"value": 1, "unit": "%", "interval": [2, 3]}}}, "does not hold"),
        ({"figures": {"a": {"value": 1, "unit": "%", "n": 0}}}, "n is 0"),
    ],
)
def test_a_malformed_entry_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = json.loads(write("try", TRY, tmp_path).read_text())
    with pytest.raises((EntryError, TypeError, ValueError), match=message):
        parse(content | change)


def test_a_written_entry_is_read_back(tmp_path: Path) -> None:
    entry = replace(TRY, training_seeds=(0, 1), evaluation_seeds=(5, 9), simulator_labels=False, note="a")
    write("try", entry, tmp_path)
    assert load(tmp_path) == {"try": entry}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_an_entry_is_written_as_it_is_written_by_the_tool(path: Path, tmp_path: Path) -> None:
    assert write(path.stem, ENTRIES[path.stem], tmp_path).read_text() == path.read_text()
