"""Help and refusals come at once: what they import is held here, because times depend on the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import COMMANDS
from agent.recipes import RECIPES

ROOT = Path(__file__).parents[3]
LEARNING = {"torch", "transformers", "ray", "peft", "tokenizers", "tensorboard"}
"""What no refusal of a name, a value or a place waits for."""
HEAVY = LEARNING | {
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "mujoco",
    "mujoco_warp",
    "pandas",
    "scipy",
    "viser",
    "warp",
}
"""What no help waits for."""

_LOADED_BY = """
import contextlib, io, json, sys
from agent.cli import main
found = []
for args in json.loads(sys.argv[1]):
    out, error, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(args)
        except SystemExit as end:
            status = end.code
    found.append([status, out.getvalue(), error.getvalue(), sorted({*sys.modules})])
print(json.dumps(found))
"""


def ran(calls: list[list[str]]) -> list[tuple[int | None, str, str, set[str]]]:
    """Of calls of llamarm, one after the other in a new process: status, output, error, all modules loaded by then."""
    command = [sys.executable, "-c", _LOADED_BY, json.dumps(calls)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [(status, out, error, set(modules)) for status, out, error, modules in json.loads(done.stdout)]


def test_the_help_of_every_command_and_recipe_loads_nothing_heavy() -> None:
    of_recipes = [[command, recipe] for recipe in RECIPES for command in ("train", "collect", "scale")]
    of_recipes = [
        [command, recipe]
        for command, recipe in of_recipes
        if command == "train" or RECIPES[recipe]().loop == "train"  # the others have no demonstrations
    ]
    calls = [*([command] for command in COMMANDS), *of_recipes, ["collect", "tabletop"]]
    for call, (status, out, error, modules) in zip(calls, ran([[*call, "--help"] for call in calls]), strict=True):
        assert status == 0, (call, error)
        assert out.startswith(f"usage: llamarm {call[0]}"), call
        assert not HEAVY & modules, call


REFUSALS = {
    ("trian",): "did you mean 'train'",
    ("doctor", "{here}"): "llamarm data {here}",
    ("train", "sft_dmeo"): "did you mean 'sft_demo'",
    ("train", "sft_demo", "--out", "{new}", "--lerner.batch-size", "3"): "--learner.batch-size",
    ("train", "sft_tiny", "--out", "{new}", "--learner.batch-size", "0"): "learner.batch-size is 0",
    ("train", "sft_tiny", "--out", "{new}", "--learner.batch-size", "x"): "invalid literal",
    ("train", "sft_tiny", "--out", "{new}", "--learner.num-parts", "9"): "cannot be computed in 9 parts",
    ("train", "sft_tiny", "--out", "{new}", "--model", "nnao"): "model 'nnao' does not exist",
    ("train", "sft_tiny", "--out", "{new}", "--model.vision", "cnv"): "vision 'cnv' does not exist",
    ("train", "sft_tiny", "--out", "{new}", "--model.action-distribution", "flwo"): "'flwo' does not exist",
    ("train", "sft_tiny", "--out", "{new}", "--demonstrations.world", "tabeltop"): "world 'tabeltop' does not exist",
    ("train", "sft_tiny", "--out", "{new}", "--demonstrations.tasks", "raech"): "did you mean 'reach'",
    ("train", "sft_tiny", "--out", "{new}", "--evaluation.variations", "typo"): "variation 'typo' does not exist",
    ("train", "sft_tiny", "--out", "{new}", "--resume"): "there is no run in",
    ("train", "sft_tiny", "--out", "{here}"): "is not empty and holds no run",
    ("train", "ppo_tabletop", "--out", "{new}"): "there is no initial policy",
    ("train", "ppo_tabletop", "--out", "{new}", "--init", "{new}"): "is neither a policy",
    ("train", "dagger_few", "--out", "{new}", "--practice.tasks", "raech"): "did you mean 'reach'",
    ("train", "ppo_tabletop", "--out", "{new}", "--iterations", "1"): "would learn nothing",
    ("collect", "tabletpo", "--out", "{new}"): "recipe 'tabletpo' does not exist",
    ("collect", "tabletop", "--out", "{new}", "--variation", "trian"): "did you mean 'train'",
    ("collect", "ppo_tabletop", "--out", "{new}"): "it has no demonstrations",
    ("eval", "expert", "--epsiodes", "3"): "--episodes",
    ("eval", "expert", "--out", "{new}", "--world", "tabeltop"): "did you mean 'tabletop'",
    ("eval", "expert", "--out", "{new}", "--tasks", "lfit"): "did you mean 'lift'",
    ("eval", "{new}", "--out", "{new}"): "is neither a policy",
    ("eval", "{policy}", "--out", "{new}", "--tasks", "lfit"): "did you mean 'lift'",
    ("eval", "{policy}"): "is not a run's folder",
    ("eval", "{new}", "--data", "{here}", "--out", "{new}"): "is neither a policy",
    ("experts", "{policy}", "--out", "{new}", "--variations", "trian"): "did you mean 'train'",
    ("compare", "{here}"): "AFTER",
    ("scale", "sft_tiny", "--out", "{new}", "--hours", "nan"): "hours is nan",
    ("scale", "sft_tiny", "--out", "{new}", "--widths", "64"): "a surface needs two widths",
    ("plan", "--memory", "24Gibi"): "is not an amount of memory",
    ("plan", "--models", "nnao"): "model 'nnao' does not exist",
    ("drive", "{new}"): "is neither a policy",
    ("drive", "{policy}", "--task", "lfit"): "did you mean 'lift'",
    ("console", "expert", "--task", "lfit"): "did you mean 'lift'",
    ("console", "expert", "--port", "99999"): "port is 99999",
    ("serve", "{new}", "--port", "0"): "is neither a policy",
    ("serve", "{new}", "--host", "0.0.0.0"): "clients need a key",
    ("data", "{here}", "--without-episodes", "x"): "without-episodes has 'x'",
    ("eval", "{new}"): "{new} is neither a policy",
    ("experts", "{new}"): "{new} is neither a policy",
    ("data",): "data is empty, expected 1 or more",
    ("report",): "RUN",
    ("report", "{new}"): "holds neither a run",
    ("compare", "{here}", "{new}"): "nothing was evaluated there",
}
"""{call: part of the message}; {here}: a folder, {new}: none, {policy}: a policy's folder, of which names suffice."""


def test_no_refusal_of_a_name_a_value_or_a_place_loads_torch(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "config.json").write_text("{}")
    (policy / "processor.json").write_text('{"deployment": {"world": "tabletop"}}')
    places = {"here": tmp_path, "new": tmp_path / "new", "policy": policy}
    calls = [[word.format(**places) for word in call] for call in REFUSALS]
    for call, (status, _, error, modules) in zip(REFUSALS, ran(calls), strict=True):
        assert status == 2, (call, error)
        assert REFUSALS[call].format(**places) in error, call
        assert not error.startswith(f"llamarm {call[0]}: "), "what it will do is said once nothing is refused"
        assert error.count("\n") == 1 or "For full helptext" in error, "in one line, but for what tyro says of options"
        assert not LEARNING & modules, call
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("module", ["agent.recipes", *(f"agent.commands.{command}" for command in COMMANDS)])
def test_importing_what_options_are_made_of_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.split()
