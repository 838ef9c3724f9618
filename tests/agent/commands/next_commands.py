"""The commands that a command names in its last lines, taken by the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Never

import pytest

from agent.cli import main
from agent.commands.shared import options
from agent.runs.checks import check_config


class _TakenError(Exception):
    """The options are valid, and the work would begin now."""


def next_commands(said: str) -> list[list[str]]:
    """Their words after `llamarm`, of what was written to standard error; each has been parsed as the command does."""
    found = [shlex.split(line)[1:] for line in re.findall(r"^To [^:]+: (llamarm .*)$", said, re.MULTILINE)]
    for words in found:
        with _stopped_when_parsed(), pytest.raises(_TakenError):
            main(words)
    return found


@contextmanager
def _stopped_when_parsed() -> Generator[None]:
    def stop(parsed: Any) -> Never:
        check_config(parsed)
        raise _TakenError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(options, "check_config", stop)
        yield
