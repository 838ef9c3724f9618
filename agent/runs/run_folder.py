"""A run's folder: the layout of its files, and its record.

    run.json        config, every session (command, versions, git commit, machine, time, memory, outcome), and the
                    training data since which update: episodes, rows, a checksum
    checkpoints/    000120/pretrained_model and the training state, numbered by update (or iteration)
    best/           the policy with the best evaluation, in a run that evaluates during training
    before/         the evaluation of the initial policy, in a run that fine-tunes one
    dataset/        demonstrations and rollouts, one LeRobotDataset
    tensorboard/    event files
    videos/         MP4 of evaluated episodes
    eval_info.json  the latest evaluation
    action_error.json   the latest errors of actions on recorded episodes (agent/evaluation/open_loop.py)
    experts.json    usage of the mixture's experts (agent/studies/moe), with experts.md and experts.png
    changes.json    videos of an episode that the best policy fixed, and of one that it broke
    report.html     the report
    .lock           held by the process that writes here (agent/runs/run_lock.py)

A folder holds one run with one config: resuming with another config is refused, with a list of the differences. Only
fields marked HOW may change, and fields that did not exist when the run began may have their defaults. A run without
results may be resumed with any config.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.runs.checks import HOW, STANDS_FOR
from agent.runs.run_lock import HOLDER_FILE, LOCK_FILE
from envs.errors import UserError
from rollout.peak_memory import peak_memory_gb
from vla_model.files.folders import make_folder, previous_folder, read_json, write_json
from vla_model.files.old_names import with_new_names

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PACKAGES = (
    "llamarm",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "mujoco",
    "mujoco-warp",
    "gymnasium",
    "ray",
    "numpy",
    "pyarrow",
    "av",
    "opencv-python-headless",
)
"""Packages whose version can change results."""
ACTION_ERROR = "action_error.json"
PRETRAINED = "pretrained_model"
"""LeRobot's name of the policy's folder within a checkpoint."""
VIDEOS = "videos"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and its record."""

    root: Path

    @property
    def record_file(self) -> Path:
        return self.root / "run.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        return self.root / "best"

    @property
    def before(self) -> RunFolder:
        """The evaluation of the initial policy."""
        return RunFolder(self.root / "before")

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def videos(self) -> Path:
        return self.root / VIDEOS

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def eval_info(self) -> Path:
        return self.root / "eval_info.json"

    @property
    def action_error(self) -> Path:
        return self.root / ACTION_ERROR

    @property
    def experts(self) -> Path:
        return self.root / "experts.json"

    @property
    def changes(self) -> Path:
        return self.root / "changes.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def record(self) -> dict[str, Any]:
        """
        Raises:
            UserError: run.json is damaged.
        """
        remedy = "restore it from a copy, or begin another run: checkpoints of this one are still policies"
        return with_new_names(read_json(self.record_file, ("config", "sessions", "phases"), remedy))

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint after that many updates."""
        return self.checkpoints / f"{step:06d}"

    def last_checkpoint(self) -> Path | None:
        """The checkpoint of the most updates; None if there is none yet."""
        folders = [p for p in self.checkpoints.glob("*") if p.name.isdecimal() and p.is_dir()]
        return max(folders, key=lambda p: int(p.name), default=None)

    @contextmanager
    def session(self, command: Sequence[str]) -> Generator[None]:
        """Record a process of the run: command, machine, versions, time, peak memory and outcome."""
        began_s = time.perf_counter()
        session: dict[str, Any] = {
            "command": list(command),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "git": git_state(),
            "outcome": "running",
        }
        self._put_session(session, new=True)
        try:
            yield
            session["outcome"] = "finished"
        except BaseException as error:
            session["outcome"] = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error!r}"
            raise
        finally:
            session["wall_s"] = time.perf_counter() - began_s
            session["peak_memory_gb"] = round(peak_memory_gb(), 3)
            self._put_session(session, new=False)

    @contextmanager
    def phase(self, name: str) -> Generator[dict[str, float]]:
        """Record the duration of a phase, finished or not, and the figures put into the yielded dict."""
        began_s = time.perf_counter()
        figures: dict[str, float] = {}
        try:
            yield figures
        finally:
            record = self.record
            record["phases"].append({"name": name, "wall_s": time.perf_counter() - began_s, **figures})
            write_json(self.record_file, record)

    def note_data(self, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """Record the training data from the last checkpoint on, if it has changed.

        Args:
            found: TrainingData.fingerprint.

        Returns:
            A message for each change since the last record; empty if there is none.
        """
        record, last = self.record, self.last_checkpoint()
        noted = record.get("data", [])
        before = noted[-1]["datasets"] if noted else []
        changes = [
            f"{new['dataset']} had {old['episodes']} episodes of {old['rows']} rows when this run last read it, now "
            f"{new['episodes']} of {new['rows']}{'' if old['rows'] != new['rows'] else ', and other content'}"
            for old, new in zip(before, found, strict=len(before) == len(found))
            if old["sha256"] != new["sha256"]
        ]
        if changes or len(before) != len(found):
            done = int(last.name) if last else 0
            record["data"] = [*noted, {"from": done, "datasets": [dict(entry) for entry in found]}]
            write_json(self.record_file, record)
        return changes

    def _put_session(self, session: dict[str, Any], *, new: bool) -> None:
        record = self.record
        record["sessions"] = [*(record["sessions"] if new else record["sessions"][:-1]), session]
        write_json(self.record_file, record)


def check_start(root: Path, config: DataclassInstance, *, resume: bool = False) -> None:
    """Check that `start_run` would succeed; nothing is written.

    Raises:
        UserError: see start_run.
    """
    folder = RunFolder(root)
    asked = _recorded(config)
    made = [path for path in root.iterdir() if not _is_of_any(path, folder)] if root.is_dir() else []
    if resume and not folder.record_file.exists():
        raise UserError(f"there is no run in {root} to resume; leave out --resume to begin one")
    if resume and made:
        recorded = _without_dropped(folder.record["config"])
        may_change = _may_change(config, recorded)
        changes = [
            f"{key} was {old!r}, now {new!r}"
            for key, old, new in _differences(recorded, asked, prefix="")
            if key not in may_change
        ]
        if changes:
            raise UserError(
                f"the run in {root} has another config: {'; '.join(changes)}; resume with its own, or name another "
                "--out"
            )
    if not resume and made and folder.record_file.exists():
        raise UserError(f"{root} already holds a run; --resume goes on with it, another --out begins a new one")
    if not resume and made:
        raise UserError(f"{root} is not empty and holds no run; choose another --out")


def start_run(root: Path, config: DataclassInstance, *, resume: bool = False) -> RunFolder:
    """Begin a run in `root`, or with `resume` continue the one in it.

    Args:
        root: the run's folder; it must be new or empty, unless resuming, or hold a run without results, e.g. because a
            folder that its config names was missing.
        config: resolved, seeds included; every field is a plain value, a path or another dataclass.
        resume: continue the run in `root`. One without results may continue with another config.

    Raises:
        UserError: the folder holds another run or other files, there is no run to resume, or the run there has another
            config.
    """
    check_start(root, config, resume=resume)
    folder = RunFolder(root)
    make_folder(root)
    asked = _recorded(config)
    new = {"config": asked, "sessions": [], "phases": []}
    write_json(folder.record_file, folder.record | {"config": asked} if resume else new)
    return folder


def _is_of_any(path: Path, folder: RunFolder) -> bool:
    """Whether every run has this file, even without results."""
    record = folder.record_file.name
    return path.name in (record, LOCK_FILE, HOLDER_FILE) or path.name.startswith(f".{record}.")


def policy_folder(path: str | Path) -> Path:
    """The folder to load a policy from, given that folder, a checkpoint, or a run (its best, else its last checkpoint).

    Raises:
        UserError: `path` is none of these.
    """
    path = Path(path)
    run = RunFolder(path)
    last = run.last_checkpoint()
    for folder in (path, path / PRETRAINED, run.best / PRETRAINED, *([last, last / PRETRAINED] if last else [])):
        # A killed save may have left the previous folder under another name.
        if any((place / "config.json").exists() for place in (folder, previous_folder(folder))):
            return folder
    raise UserError(
        f"{path} is neither a policy (config.json), nor a checkpoint, nor a run with checkpoints; llamarm train "
        "makes one"
    )


def run_of(policy: str | Path) -> RunFolder | None:
    """The run of a policy, given that run, a checkpoint or a policy's folder; None if it belongs to no run."""
    path = Path(policy).resolve()
    if not (path.exists() or previous_folder(path).exists()):
        return None
    runs = (RunFolder(folder) for folder in (path, *path.parents[:3]))
    return next((run for run in runs if run.record_file.exists()), None)


def dataset_of(policy: str | Path) -> Path:
    """The dataset of a policy's run."""
    return (run_of(policy) or RunFolder(Path(policy))).dataset


def versions() -> dict[str, str]:
    """Versions of Python and of the installed `PACKAGES`."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this code runs from and whether it has uncommitted changes; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed copy may lie inside an unrelated checkout, e.g. a virtual environment in someone's project.
        if not git("ls-files", Path(__file__).name):
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, memory and GPUs."""
    import torch

    from rollout.dataset.decode import num_cores

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"cpu": _cpu_model(), "cores": num_cores(), "memory_gb": round(memory_gb, 1), "gpus": gpus}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _differences(old: object, new: object, *, prefix: str) -> Iterator[tuple[str, object, object]]:
    """Leaves of two JSON trees that differ, with dotted names."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), prefix=f"{prefix}.{key}" if prefix else key)
    elif old != new:
        yield prefix, old, new


_DROPPED = {("algorithm", "surrogate", "perception"): {"iterations": 0}}
"""Removed options: {path in a recorded config: its values where the option was off}."""


def _without_dropped(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded config without removed options that were off."""
    recorded = copy.deepcopy(recorded)
    for (*path, name), off in _DROPPED.items():
        parent: Any = recorded
        for key in path:
            parent = parent.get(key, {})
        if name in parent and parent[name] | off == parent[name]:
            del parent[name]
    return recorded


def _may_change(config: DataclassInstance, recorded: dict[str, Any], *, prefix: str = "") -> set[str]:
    """Dotted names of the fields that may differ from the recorded config: those marked HOW, those that it lacks and
    that have their defaults, and those that are None now and were recorded with a number that None may replace.
    """
    names = set()
    for field in fields(config):
        value, old = getattr(config, field.name), recorded.get(field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        is_added = field.name not in recorded and value == default
        numbers = field.metadata.get(STANDS_FOR)
        is_left_open = numbers is not None and value is None and (old in numbers or not numbers)
        if field.metadata == HOW or is_added or is_left_open:
            names.add(prefix + field.name)
        elif is_dataclass(value) and not isinstance(value, type) and isinstance(old, dict):
            names |= _may_change(value, old, prefix=f"{prefix}{field.name}.")
    return names


def _recorded(config: DataclassInstance) -> dict[str, Any]:
    """A config as in run.json."""

    def plain(leaf: object) -> str:
        if isinstance(leaf, Path):
            return str(leaf)
        raise UserError(f"a config holds plain values, paths and dataclasses only, not {leaf!r}")

    return json.loads(json.dumps(asdict(config), default=plain))
