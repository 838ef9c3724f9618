"""ACT, trained by LeRobot, beside nano: one policy per task, the same demonstrations, processor time and episodes.

    python -m benchmarks.peers --lerobot VENV/bin --root runs/peers --out docs/results/peers.md

For each task: the scripted expert's demonstrations (half of the episodes with noise in what is executed, never in what
is cloned); nano for so many updates, without labels from the simulator; ACT by lerobot-train for the processor time
that all of nano's training took, its start included, counted from ACT's first step, of which its last checkpoint is
used; then both on the same held-out episodes, ACT by examples/serve_lerobot.py and `llamarm eval ws://...`. ACT reads
no instruction, so each task has a policy of its own. Processor time, of all cores together, does not depend on what
else runs; one thread each, because threads that wait for each other use it too. What is already in --root is not done
again; a training that was cut short goes on from its last checkpoint, with the processor time that it had used then.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import tyro

from agent.evaluation.compare import compare
from agent.evaluation.eval_info import read_eval_info
from agent.runs.run_folder import RunFolder
from benchmarks.document import finish, head
from vla_model.files.folders import read_json, write_whole

ROOT = Path(__file__).parents[1]
WORLD = "metaworld-mt50"
RECIPE = "sft_mt50_unlabelled"
_BEGINS = "Start offline training"
"""A line of lerobot-train's log, before its first step."""
_POLL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to compare."""

    lerobot: Path
    """Folder of the programs of the environment with LeRobot: python and lerobot-train."""
    root: Path
    """Folder of demonstrations, runs and evaluations."""
    tasks: tuple[str, ...] = ("door-open-v3", "push-v3", "pick-place-v3")
    demonstrations: int = 50
    updates: int = 3000
    """Of nano; ACT gets as many seconds of processor time as these take."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """Of nano."""
    episodes: int = 20
    act_steps: tuple[int, ...] = (100, 10)
    """Actions executed of each of ACT's chunks: LeRobot's default, and as often as is usual with it in simulation."""
    act_args: tuple[str, ...] = ("--policy.pretrained_backbone_weights=null", "--batch_size=8", "--num_workers=0")
    """Of lerobot-train; all else as it does by default."""
    save_every: int = 100
    """Updates between checkpoints, of both."""
    num_worlds: int = 4
    port: int = 8177
    out: Path | None = None
    """File that the table is written to besides the screen."""


def llamarm(*args: str) -> None:
    """Run a command of ours."""
    subprocess.run([sys.executable, "-m", "agent.cli", *args], check=True, cwd=ROOT)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training in a process of its own, with the processor time that its checkpoints took."""

    spent: Path
    """JSON: processor time at the last checkpoint, in seconds, and whether the training is done."""
    checkpoints: Path
    """Its folder of checkpoints, of numbers."""
    log: Path

    @property
    def cpu_s(self) -> float:
        """At the last checkpoint, of all processes so far; 0 before the first."""
        return read_json(self.spent)["cpu_s"] if self.spent.exists() else 0.0

    @property
    def is_done(self) -> bool:
        return self.spent.exists() and read_json(self.spent)["is_done"]

    def checkpoint(self) -> str:
        """Name of the last checkpoint; empty before the first."""
        names = [path.name for path in self.checkpoints.glob("*") if path.name.isdecimal()]
        return max(names, key=int, default="")

    def run(self, command: Sequence[str | Path], *, begins: str = "", limit_s: float = math.inf) -> None:
        """Run the command until it ends, or has used so much processor time since that line of its log.

        Raises:
            RuntimeError: it failed, or ended before its time.
        """
        spent_s = before_s = self.cpu_s
        last, first_s = self.checkpoint(), None
        quiet = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}
        with (
            self.log.open("w") as file,
            subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=quiet, cwd=ROOT) as child,
        ):
            # A training of ours leaves a checkpoint then, which is noted below.
            signal.signal(signal.SIGTERM, lambda *_: child.terminate())
            process, used_s = psutil.Process(child.pid), 0.0
            while child.poll() is None:
                used_s = _used_s(process) or used_s
                if first_s is None and begins in self.log.read_text():
                    first_s = used_s if begins else 0.0
                spent_s = before_s + used_s - (used_s if first_s is None else first_s)
                if spent_s >= limit_s:
                    child.kill()
                elif (newest := self.checkpoint()) != last:
                    last = newest
                    self._note(spent_s, is_done=False)
                time.sleep(_POLL_S)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if self.checkpoint() != last:
            self._note(spent_s, is_done=False)
        if spent_s < limit_s and (child.returncode or limit_s < math.inf):
            raise RuntimeError(f"{command[0]} ended with {child.returncode} before its time; {self.log} says why")
        self._note(spent_s, is_done=True)

    def _note(self, spent_s: float, *, is_done: bool) -> None:
        write_whole(self.spent, json.dumps({"cpu_s": spent_s, "is_done": is_done}))


def _used_s(process: psutil.Process) -> float:
    """Processor time of a process and its children, in seconds; 0 if it has ended."""
    try:
        times = [process.cpu_times(), *(child.cpu_times() for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    ended = times[0].children_user + times[0].children_system
    return ended + sum(one.user + one.system for one in times)


def trained_nano(task: str, demos: Path, options: Options) -> tuple[RunFolder, float]:
    """Nano's run and the processor time that its training took, in seconds."""
    run = RunFolder(options.root / f"nano-{task}")
    training = Training(
        spent=options.root / f"nano-{task}.json",
        checkpoints=run.checkpoints,
        log=options.root / f"nano-{task}.log",
    )
    if not training.is_done:
        training.run(
            [
                *[sys.executable, "-m", "agent.cli", "train", RECIPE, "--data", str(demos), "--out", str(run.root)],
                *["--demonstrations.tasks", task, "--learner.num-updates", str(options.updates)],
                *["--save-every", str(options.save_every), "--learner.optimizer", options.optimizer],
                *["--evaluation.episodes-per-task", "0", "--workers", "0", *["--resume"] * run.record_file.exists()],
            ]
        )
    return run, training.cpu_s


def evaluated_nano(task: str, run: RunFolder, options: Options) -> dict[str, Any]:
    """Its eval_info."""
    info = options.root / f"eval-nano-{task}" / "eval_info.json"
    if not info.exists():
        llamarm(
            *["eval", str(run.root), "--world", WORLD, "--tasks", task, "--episodes", str(options.episodes)],
            *["--num-worlds", str(options.num_worlds), "--out", str(info.parent)],
        )
    return read_eval_info(info)


def trained_act(task: str, demos: Path, cpu_s: float, options: Options) -> Path:
    """The folder of ACT's last checkpoint after so much processor time of training."""
    folder = options.root / f"act-{task}"
    training = Training(
        spent=options.root / f"act-{task}.json",
        checkpoints=folder / "checkpoints",
        log=options.root / f"act-{task}.log",
    )
    last = training.checkpoints / "last" / "pretrained_model"
    if not training.is_done:
        if not last.exists():
            shutil.rmtree(folder, ignore_errors=True)  # lerobot-train refuses a folder that exists
        anew = [
            *[f"--dataset.repo_id=local/{demos.name}", f"--dataset.root={demos}", f"--output_dir={folder}"],
            *["--policy.type=act", "--policy.device=cpu", "--policy.push_to_hub=false", "--steps=1000000"],
            *[f"--save_freq={options.save_every}", "--eval_freq=0", "--wandb.enable=false", "--seed=0"],
            *options.act_args,
        ]
        goes_on = ["--resume=true", f"--config_path={last / 'train_config.json'}"]
        program = options.lerobot / "lerobot-train"
        training.run([program, *(goes_on if last.exists() else anew)], begins=_BEGINS, limit_s=cpu_s)
    if not last.exists():
        raise RuntimeError(f"no checkpoint after {cpu_s:.0f} s: a smaller --save-every")
    return last


@contextmanager
def served(policy: Path, options: Options) -> Iterator[str]:
    """The URL of examples/serve_lerobot.py with that policy."""
    command = [options.lerobot / "python", ROOT / "examples" / "serve_lerobot.py", policy, "--port", str(options.port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.startswith("ws://"):
                    yield line.split()[0]
                    break
            else:
                raise RuntimeError(f"the server of {policy} ended before it listened")
        finally:
            server.terminate()


def evaluated_act(task: str, policy: Path, options: Options) -> dict[int, dict[str, Any]]:
    """{actions executed of each chunk: eval_info}."""
    folders = {steps: options.root / f"eval-act-{task}-{steps}" for steps in options.act_steps}
    missing = {steps: folder for steps, folder in folders.items() if not (folder / "eval_info.json").exists()}
    if missing:
        with served(policy, options) as url:
            for steps, folder in missing.items():
                llamarm(
                    *["eval", url, "--world", WORLD, "--tasks", task, "--episodes", str(options.episodes)],
                    *["--n-action-steps", str(steps), "--num-worlds", str(options.num_worlds), "--out", str(folder)],
                )
    return {steps: read_eval_info(folder / "eval_info.json") for steps, folder in folders.items()}


def row(task: str, options: Options) -> Iterator[str]:
    """Rows of the table for one task."""
    demos = options.root.resolve() / f"demos-{task}"
    count = str(options.demonstrations)
    llamarm("collect", RECIPE, "--tasks", task, "--episodes-per-task", count, "--workers", "0", "--out", str(demos))
    run, cpu_s = trained_nano(task, demos, options)
    own = evaluated_nano(task, run, options)
    yield f"| {task} | nano | {cpu_s:.0f} s, {options.updates} updates | {_cells(own)} | | |"
    act = trained_act(task, demos, cpu_s, options)
    for info in evaluated_act(task, act, options).values():
        paired = compare(info, own)
        trained = f"{cpu_s:.0f} s, {int(act.resolve().parent.name)} steps"
        difference = f"{len(paired.won)}, {len(paired.lost)} | {paired.p_value:.2g}"
        yield f"| {task} | ACT | {trained} | {_cells(info)} | {difference} |"


def _cells(info: dict[str, Any]) -> str:
    overall, steps = info["overall"], info["protocol"]["n_action_steps"]
    low, high = overall["pc_success_interval"]
    return (
        f"{steps} | {overall['pc_success']:.0f} % | {low:.0f} to {high:.0f} % | {overall['decision_ms']['median']:.0f}"
    )


def main(options: Options) -> None:
    """Train, evaluate, print and write."""
    os.environ["OMP_NUM_THREADS"] = "1"
    options.root.mkdir(parents=True, exist_ok=True)
    how = (
        f"{options.demonstrations} demonstrations per task, one policy per task and kind, {options.episodes} held-out "
        f"episodes each (seeds from 1,000,000; the same for both), {options.num_worlds} worlds, one thread. ACT: "
        f"lerobot's defaults but {' '.join(options.act_args)}. nano: {RECIPE} by {options.optimizer}, no labels from "
        "the simulator. One training seed. Trained: processor time. Won and lost: episodes in which only nano, and "
        "only ACT succeeded; McNemar's exact p."
    )
    lines = [
        *head("ACT by LeRobot beside nano", "peers", how),
        "",
        "| task | policy | trained | actions per decision | success | 95 % interval | decision, ms | won, lost | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task in options.tasks:
        for line in row(task, options):
            lines.append(line)
            print(line, flush=True)
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
