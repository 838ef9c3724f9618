"""What the documents tell a reader to type is what the command line takes."""

import re
import shlex
from pathlib import Path
from typing import Any, Never

import pytest

from agent import cli
from agent.commands.shared import options
from agent.runs.checks import check_config

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL = {"$W": "examples.fetch:make_world", "$n": "2", "$(mktemp -d)": "folder", "RECIPE": "sft_demo"}
"""What a shell, or a reader, puts in place of these."""
ELSEWHERE = re.compile(r"no Ray cluster answers|cannot be read")
"""A refusal of what only the reader's machines have: a cluster, a key."""


def commands(document: str) -> list[str]:
    """What follows `llamarm` in every line of the document's blocks, and in its sentences unless it is one word."""
    blocks = "\n".join(BLOCK.findall(document)).replace("\\\n", " ")
    sentences = " ".join(BLOCK.sub("", document).split())
    found = re.findall(r"^ *(?:\$ )?(?:\.venv/bin/)?llamarm (.+)$", blocks, re.MULTILINE)
    return found + re.findall(r"`llamarm ([^`]* [^`]*)`", sentences)


def words(command: str) -> list[str]:
    """The arguments of one, as a reader's shell would give them."""
    for word, meant in SHELL.items():
        command = command.replace(word, meant)
    args = shlex.split(command.partition(" | ")[0], comments=True)
    if args[0] == "train" and not {"--out", "--help"} & {*args}:
        args += ["--out", "folder"]  # a sentence leaves that to the reader
    return args


class TakenError(Exception):
    """The command line was read and every option checked; the work would begin now."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
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
    shown = commands(document.read_text())
    assert shown
    for command in shown:
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
