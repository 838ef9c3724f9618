"""What the documents tell a reader to type is what the command line takes."""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Never

import pytest
import yaml

from agent import cli
from agent.commands.shared import options
from agent.runs.checks import check_config

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OF_LANGUAGE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = {"$W": "examples.fetch:make_world", "$n": "2", "$(mktemp -d)": "folder", "RECIPE": "sft_demo"}
"""What a shell, or a reader, puts in place of these."""
MEANT = {"COMMAND": "data", "N": "2", "S": "0", "SEED": "0"}
"""What a reader puts in place of these words."""
ELSEWHERE = re.compile(r"no Ray cluster answers|cannot be read")
"""A refusal of what only the reader's machines have: a cluster, a key."""


def commands(document: str) -> list[str]:
    """What follows `llamarm` in every line of the document's blocks but for what it prints (`llamarm train: ...`), and
    in its sentences unless it is one word.
    """
    blocks = "\n".join(BLOCK.findall(document)).replace("\\\n", " ")
    sentences = " ".join(BLOCK.sub("", document).split())
    found = re.findall(r"^ *(?:\$ )?(?:\.venv/bin/)?llamarm (?!(?:action error|\S+): )(.+)$", blocks, re.MULTILINE)
    return found + re.findall(r"`llamarm ([^`]* [^`]*)`", sentences)


def words(command: str) -> list[str]:
    """The arguments of one, as a reader's shell would give them."""
    for word, meant in SHELL.items():
        command = command.replace(word, meant)
    args = [MEANT.get(word, word) for word in shlex.split(command.partition(" | ")[0], comments=True)]
    if args[0] in ("train", "collect", "scale") and not {"--out", "--help"} & {*args}:
        args += ["--out", "folder"]  # a sentence leaves that to the reader
    return args


def parsed_by_bash(text: str) -> None:
    """
    Raises:
        subprocess.CalledProcessError: bash cannot parse it.
    """
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


PARSERS: dict[str, Callable[[str], object]] = {
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "toml": tomllib.loads,
    "bash": parsed_by_bash,
}
"""Language of a block: what parses it, or raises."""


class TakenError(Exception):
    """The command line was read and every option checked; the work would begin now."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if commands(path.read_text())], ids=named)
def test_the_command_line_takes_every_command_that_a_document_shows(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(parsed: Any) -> Never:
        try:
            check_config(parsed)
        except ValueError as refusal:
            if not ELSEWHERE.search(str(refusal)):
                raise
        raise TakenError

    monkeypatch.setattr(options, "check_config", stop)
    for command in commands(document.read_text()):
        args = words(command)
        try:
            cli.main(args)
        except TakenError:
            continue
        except SystemExit as end:
            code = end.code
        else:
            code = None if {"--help", "--version", "help"} & {*args} else "nothing was read"
        assert not code, f"llamarm {command}: {code}\n{capsys.readouterr().err}"


def test_commands_are_read_from_blocks_and_sentences() -> None:
    text = "```\nllamarm a \\\n--b  # c\n  $ llamarm d e | f\n```\nor `llamarm\ng h`, see `llamarm i`"
    assert commands(text) == ["a  --b  # c", "d e | f", "g h"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_a_document_s_blocks_are_of_their_language(document: Path) -> None:
    for language, text in OF_LANGUAGE.findall(document.read_text()):
        assert language in PARSERS, f"no parser for a block of {language}"
        PARSERS[language](text)


# A page of results names the commands of its commit.
@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.parent.name != "results"], ids=named)
def test_a_document_s_modules_and_make_targets_exist(document: Path) -> None:
    text = document.read_text()
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.MULTILINE):
        assert target in targets
    for module in re.findall(r"\bpython -m ((?:agent|benchmarks|docs|vla_model)[\w.]*\w)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_what_a_document_imports_of_lerobot_is_what_the_tests_with_lerobot_use(document: Path) -> None:
    """LeRobot, which moves its modules, is installed for those tests alone."""
    used = "\n".join(path.read_text() for folder in ("tests", "examples") for path in ROOT.glob(f"{folder}/**/*.py"))
    for module, names in re.findall(r"^from (lerobot[\w.]*) import (.+)$", document.read_text(), re.MULTILINE):
        for name in (module, *names.split(", ")):
            assert re.search(rf"\b{re.escape(name)}\b", used), name
