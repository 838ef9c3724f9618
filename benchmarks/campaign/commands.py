"""The commands that the campaign interrupts, of some seconds each, and fingerprints of their results.

Everything is computed with one thread, so that sums are rounded alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agent.runs.run_folder import PRETRAINED, RunFolder
from agent.training.demonstrations import FAILED_PATH
from benchmarks.campaign.tally import digest
from rollout.dataset.read import DatasetReader

ROOT = Path(__file__).parents[2]
WORLD = "benchmarks.campaign.sides:make_world"
REFUSED = 2
"""Exit status of a command that says in one line why it cannot."""
_MODEL = {
    "hidden-size": 32,
    "num-layers": 1,
    "vision-channels": 8,
    "vision-blocks": 1,
    "num-keypoints": 2,
    "image-token-grid": 1,
    "instruction-length": 24,
    "chunk-size": 2,
    "num-experts": 2,
    "expert-size": 16,
}
_TASKS = ("left", "right")
_PLACES = ("episode_index", "index", "task_index")
"""Columns that say where an episode stands in its dataset, which is in the order in which episodes ended."""
_TIMED = ("time/", "learner/")
"""Curves that tell the time."""


def collect_args(out: Path, episodes_per_task: int = 40) -> list[str]:
    """Demonstrations; the expert stands still in a fifth of them."""
    how = ["--episodes-per-task", str(episodes_per_task), "--workers", "0", "--noise-std", "0.3"]
    return ["collect", WORLD, "--out", str(out), "--tasks", *_TASKS, *how]


def train_args(out: Path, data: Path, updates: int = 200) -> list[str]:
    """A model that learns from that dataset, with a checkpoint every 20 updates.

    A run that collects for itself and is killed meanwhile has the same episodes in another order, hence other batches
    (agent/training/demonstrations.py), and cannot be compared bit for bit.
    """
    return [
        *["train", "sft_tiny", "--out", str(out), "--data", str(data), "--workers", "0"],
        *[part for name, value in _MODEL.items() for part in (f"--model.{name}", str(value))],
        *["--demonstrations.world", WORLD, "--demonstrations.tasks", *_TASKS],
        *["--learner.num-updates", str(updates), "--learner.batch-size", "16", "--save-every", "20"],
        *["--evaluation.episodes-per-task", "4", "--evaluation.videos-per-task", "1"],
    ]


def improve_args(out: Path, init: Path, iterations: int = 8) -> list[str]:
    """That policy fine-tuned with ppo, with a checkpoint of every iteration."""
    return [
        *["train", "ppo_tabletop", "--out", str(out), "--init", str(init), "--workers", "0"],
        *["--practice.world", WORLD, "--practice.tasks", *_TASKS],
        *["--practice.episodes-per-task", "4", "--practice.num-worlds", "4", "--iterations", str(iterations)],
        *["--learner.batch-size", "16", "--evaluate-every", "2", "--selection-episodes", "4", "--collapse-share", "0"],
        *["--evaluation.episodes-per-task", "4", "--evaluation.videos-per-task", "1", "--evaluation.num-worlds", "4"],
        *["--evaluation.n-action-steps", "2"],
    ]


def eval_args(policy: Path, out: Path) -> list[str]:
    """An evaluation with controls and videos."""
    where = ["--world", WORLD, "--tasks", *_TASKS, "--out", str(out)]
    return ["eval", str(policy), *where, "--episodes", "8", "--videos", "4", "--controls"]


def drive_args(policy: Path, record: Path) -> list[str]:
    """A drive in real time, recorded."""
    task = ["--task", "left", "--seed", "1000001", "--seconds", "3"]
    return ["drive", str(policy), "--world", WORLD, *task, "--record", str(record)]


@dataclass(frozen=True)
class Done:
    """A command that came to its end."""

    status: int
    stderr: str
    seconds: float

    @property
    def one_line(self) -> bool:
        """Whether it said in one line why it could not; what it says of its work begins otherwise."""
        reasons = sum(line.startswith("llamarm: ") for line in self.stderr.splitlines())
        return self.status == REFUSED and reasons == 1 and "Traceback" not in self.stderr

    @property
    def refused_at_once(self) -> bool:
        """Whether that line is all that it said."""
        return self.one_line and sum(line.startswith("llamarm") for line in self.stderr.splitlines()) == 1

    @property
    def said(self) -> str:
        """Its last words."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return f"status {self.status}: {lines[-1][:300] if lines else 'nothing'}"


def environment() -> dict[str, str]:
    """Of a command: this code, one thread, and standard error without colours."""
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb", "NO_COLOR": "1"}
    return os.environ | ours


def start(args: Sequence[str], stderr: IO[str] | int, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`llamarm ARGS` in a process of its own; `before` are the driver's options (driver.py)."""
    command = [sys.executable, "-m", "benchmarks.campaign.driver", *before, "--", *args]
    return subprocess.Popen(
        command,
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def finish(process: subprocess.Popen[str], began_s: float) -> Done:
    """Wait for its end; its standard error is a pipe."""
    _, stderr = process.communicate()
    return Done(process.returncode, stderr, time.monotonic() - began_s)


def command(args: Sequence[str], before: Sequence[str] = ()) -> Done:
    """`llamarm ARGS`, from its start to its end."""
    began_s = time.monotonic()
    return finish(start(args, subprocess.PIPE, before), began_s)


def episodes_of(dataset: Path) -> list[tuple[str, str]]:
    """(spec id, hash) of every episode: each number of every column, and every frame. Where in the dataset it stands
    does not count.
    """
    if not (dataset / "meta/info.json").exists():
        return []
    found, reader = [], DatasetReader(dataset)
    for episode in reader:
        columns = {name: column for name, column in episode.columns.items() if name not in _PLACES}
        parts = [part for name in sorted(columns) for part in (name, columns[name])]
        parts += [part for name in sorted(episode.frames) for part in (name, episode.frames[name])]
        labels = (episode.instruction, episode.row["success"], episode.row["length"])
        found.append((f"episode {episode.row['spec_id']}", digest(*labels, *parts)))
    failed = dataset / FAILED_PATH
    rows = [json.loads(line) for line in failed.read_text().splitlines()] if failed.exists() else []
    found += [(f"failure {row['id']}", row["failure"]) for row in rows]
    totals = {name: value for name, value in reader.info.items() if name.startswith("total_")}
    return [*found, ("totals", json.dumps(totals))]


def left_over(root: Path) -> list[tuple[str, str]]:
    """Temporary files and folders, in a folder that no command works in."""
    paths = [path for pattern in (".*.new-*", ".*.previous", "*.part") for path in root.rglob(pattern)]
    return [(f"left over: {path.relative_to(root)}", "") for path in paths]


def evaluation_of(file: Path, name: str) -> list[tuple[str, str]]:
    """(episode, hash) of an evaluation, and its controls; without speeds."""
    if not file.exists():
        return []
    info = json.loads(file.read_text())
    rows = [(f"{name} {row['id']}", digest(json.dumps(row, sort_keys=True))) for row in info["per_episode"]]
    return [*rows, (f"{name} controls", digest(json.dumps(info["controls"], sort_keys=True)))]


def made_by(root: Path) -> list[tuple[str, str]]:
    """(name, hash) of all that the folder of a run or of a dataset holds at its end: episodes, weights, evaluations and
    curves.
    """
    run = RunFolder(root)
    found = (episodes_of(run.dataset) if run.record_file.exists() else episodes_of(root)) + left_over(root)
    last = run.last_checkpoint()
    folders = {"last checkpoint": last, "best": run.best} if last else {}
    for name, folder in folders.items():
        for file in ("learner.safetensors", f"{PRETRAINED}/model.safetensors"):
            if (folder / file).exists():
                found.append((f"{file} of {name}", tensors_of(folder / file)))
    if last:
        found.append(("number of the last checkpoint", last.name))
    found += evaluation_of(run.eval_info, "evaluated") + evaluation_of(run.before.eval_info, "evaluated before")
    return found + points_of(run.tensorboard)


def tensors_of(file: Path) -> str:
    """Hash of every tensor by name; the order of a file's header differs from one writing to the next."""
    parts: list[Any] = []
    for name, tensor in sorted(load_file(file).items()):
        parts += [name, str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).numpy()]
    return digest(*parts)


def points_of(folder: Path) -> list[tuple[str, str]]:
    """(curve at step, value) of everything that does not tell the time. A resumed run repeats the steps after its
    checkpoint, to the same values: those count once, others are two points.
    """
    if not folder.exists():
        return []
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(_TIMED)]
    return sorted({(f"{tag} at {event.step}", repr(event.value)) for tag in tags for event in events.Scalars(tag)})


def size_of(folder: Path) -> int:
    """Bytes that its files occupy on a tmpfs: pages of 4 KiB, and none for folders."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
