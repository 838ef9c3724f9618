"""Unmodified third-party clients against `llamarm serve`: the same episodes with the same outcome as in-process.

    python -m benchmarks.clients --policy runs/demo --venvs runs/venvs --out docs/results/clients.md

openpi_client acts in our worlds through openpi's protocol, and vla_eval's runner evaluates our worlds through its own,
without Docker. Each has a virtual environment below --venvs, which is built if it is missing. Episodes are paired:
openpi_client's must have the same actions bit for bit and both the same success and number of steps.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import tyro

from agent.evaluation.evaluate import evaluation_specs
from agent.runs.policies import load_policy
from agent.serve import openpi, wire
from benchmarks.document import finish, head
from envs.make import make_world
from envs.types import EpisodeSpec, Observation
from envs.world import World
from rollout.collect import collect
from rollout.types import Trajectory
from vla_model.types import ActionChunk, Policy

ROOT = Path(__file__).parents[1]
WORLD = "tabletop"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare."""

    policy: Path
    """A run, a checkpoint or a policy's folder."""
    venvs: Path
    """Folder of the virtual environments."""
    tasks: tuple[str, ...] = ("reach", "lift", "pick_place", "press_button")
    episodes_per_task: int = 5
    n_action_steps: int | None = None
    """Actions to execute of each chunk; default: the policy's."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


class OpenpiClient:
    """A Policy for one world that queries openpi_client in another interpreter."""

    version = 0

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._instruction = ""

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Note the instruction."""
        del worlds, seeds
        (self._instruction,) = instructions

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Query the server through the pipe, openpi_client and the socket."""
        del worlds
        frames = {openpi.PREFIX + camera: frames[0] for camera, frames in observation["frames"].items()}
        request = openpi.pack(frames | {openpi.STATE: observation["state"][0], openpi.PROMPT: self._instruction})
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(struct.pack(">I", len(request)) + request)
        stdin.flush()
        answer = wire.unpack(stdout.read(*struct.unpack(">I", stdout.read(4))))
        return ActionChunk(actions=openpi.array("actions", answer["actions"])[None])


def venv(folder: Path, packages: Sequence[str], *, with_ours: bool) -> Path:
    """The interpreter of a virtual environment with these packages; our own environment's packages come after them."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    if with_ours:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "llamarm.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@contextmanager
def served(policy: Path, n_action_steps: int, *options: str, stderr: IO[str] | None = None) -> Iterator[str]:
    """The URL of `llamarm serve POLICY`, run in a separate process that logs to that file."""
    command = [sys.executable, "-m", "agent.cli", "serve", str(policy), "--port", "0", *options]
    with subprocess.Popen(
        [*command, "--n-action-steps", str(n_action_steps)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            if not (line := process.stdout.readline()):
                raise RuntimeError(f"the server of {policy} ended before it listened; its standard error says why")
            yield line.split()[0]
        finally:
            process.terminate()
            process.communicate()


def episodes(policy: Policy, world: World, specs: Sequence[EpisodeSpec], options: Options) -> dict[str, Trajectory]:
    """The evaluated episodes, by id."""
    return {t.spec.id: t for t in collect(policy, world, specs, n_action_steps=options.n_action_steps)}


def through_openpi_client(
    url: str, world: World, specs: Sequence[EpisodeSpec], options: Options
) -> dict[str, Trajectory]:
    """The episodes run with openpi_client as the policy."""
    python = venv(options.venvs / "openpi", ["openpi_client==0.1.2", "typing_extensions"], with_ours=False)
    with subprocess.Popen(
        [python, ROOT / "benchmarks" / "clients_openpi.py", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        return episodes(OpenpiClient(process), world, specs, options)


def through_vla_eval(url: str, options: Options) -> dict[tuple[str, int], tuple[bool, int]]:
    """{(task, episode): (success, steps)} as reported by vla-eval's runner."""
    python = venv(options.venvs / "vla_eval", ["vla_eval==0.8.0"], with_ours=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                *[python, "-m", "benchmarks.clients_vla_eval", f"{url}/vla-eval", folder, WORLD],
                *[str(options.episodes_per_task), *options.tasks],
            ],
            check=True,
            cwd=ROOT,
        )
        (file,) = Path(folder).glob("*_aggregate.json")
        result = json.loads(file.read_text())
    return {
        (task["task"], episode["episode_id"]): (bool(episode["metrics"]["success"]), episode["steps"])
        for task in result["tasks"]
        for episode in task["episodes"]
    }


def main(options: Options) -> None:
    """Run, compare, print and write."""
    world = make_world(WORLD)
    specs = evaluation_specs(world.suite, options.tasks, options.episodes_per_task)
    policy = load_policy(str(options.policy))
    n_action_steps = options.n_action_steps or policy.n_action_steps
    options = replace(options, n_action_steps=n_action_steps)
    here = episodes(policy, world, specs, options)
    with served(options.policy, n_action_steps) as url:
        openpi_client = through_openpi_client(url, world, specs, options)
        vla_eval = through_vla_eval(url, options)
    how = (
        f"{len(specs)} held-out episodes, {options.n_action_steps} actions executed of each chunk; in-process, through "
        "the unmodified openpi_client 0.1.2 and through vla_eval 0.8.0's own runner (docker=False)."
    )
    lines = [
        *head("Third-party clients", "clients", how),
        "",
        "| task | success in-process | openpi_client | same actions | vla_eval | same steps |",
        "|---|---|---|---|---|---|",
    ]
    for task in options.tasks:
        ids = [spec.id for spec in specs if spec.task == task]
        theirs = [vla_eval[task, number] for number in range(options.episodes_per_task)]
        cells = [
            sum(here[id_].success for id_ in ids),
            sum(openpi_client[id_].success for id_ in ids),
            sum(np.array_equal(here[id_].action, openpi_client[id_].action) for id_ in ids),
            sum(success for success, _ in theirs),
            sum((here[id_].success, here[id_].num_steps) == their for id_, their in zip(ids, theirs, strict=True)),
        ]
        lines.append(f"| {task} | " + " | ".join(f"{cell}/{len(ids)}" for cell in cells) + " |")
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
