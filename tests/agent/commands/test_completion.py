"""Completion of the command line, in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import COMMANDS
from agent.recipes import RECIPES

ROOT = Path(__file__).parents[3]

_ASK = """
source <(llamarm --completion)
while read -r line; do
    COMP_WORDS=($line)
    [[ $line == *" " || $line == *"_" ]] && COMP_WORDS[-1]=${COMP_WORDS[-1]%_}
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _llamarm llamarm
    echo "${COMPREPLY[*]}"
done
complete -p llamarm
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With `llamarm` in the path, which runs this code."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "llamarm"
    script.write_text(f'#!/bin/bash\nPYTHONPATH={ROOT} exec {sys.executable} -m agent.cli "$@"\n')
    script.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def completed(lines: list[str], environment: dict[str, str]) -> list[list[str]]:
    """What bash offers for the last word of each line; `_` at its end stands for an empty word."""
    done = subprocess.run(
        ["bash", "--norc", "-c", _ASK],
        input="".join(f"{line}\n" for line in lines),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    *found, registered = done.stdout.splitlines()
    assert registered == "complete -o default -F _llamarm llamarm", "tyro's own registration does not replace it"
    return [line.split() for line in found]


def test_commands_recipes_options_and_values_are_completed(environment: dict[str, str]) -> None:
    expected = {
        "llamarm _": ["help", *COMMANDS],
        "llamarm help ev": ["eval"],
        "llamarm train sft_t": [name for name in RECIPES if name.startswith("sft_t")],
        "llamarm collect tabl": ["tabletop", "tabletop_memory"],
        "llamarm scale ppo": [],
        "llamarm train sft_demo --demonstrations.dev": ["--demonstrations.device"],
        "llamarm train sft_demo --demonstrations.device w": ["warp"],
        "llamarm train ppo_tabletop --out x --algorithm.dis": ["--algorithm.discount"],
        "llamarm eval runs/mine --dtype _": ["auto", "float32", "bfloat16", "int8"],
        "llamarm report _": [],
        "llamarm trian x --o": [],
    }
    assert dict(zip(expected, completed(list(expected), environment), strict=True)) == expected
