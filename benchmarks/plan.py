"""Accuracy of `llamarm plan`: predicted against measured peak memory of processes.

    python -m benchmarks.plan --out docs/results/plan.md

Each row is a process of its own that loads a model with random weights and acts, or learns for three updates from
random samples with instructions of full length, and samples its memory every 2 ms. The process alone, after all
imports, is a row too; errors are given for the memory on top of that and for the total. Mapped pages of a weights file
being read belong to the system's cache and are not counted.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import tyro

from agent.algorithms.sft import fake_batch, sft_loss
from agent.algorithms.sft_config import SFTConfig
from agent.commands.plan import MODES
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.runs.run_folder import machine
from benchmarks.document import finish, head
from benchmarks.model import noise
from benchmarks.untrained import unit_statistics
from envs.make import make_world
from envs.types import WorldSpec
from vla_model.config import VLAConfig
from vla_model.create import shape_of
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.numerics.precision import native_dtype
from vla_model.policy import VLAPolicy
from vla_model.sizes import ModelConfig
from vla_model.weights.checkpoint import save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare
from vla_model.weights.footprint import Footprint, acting, learning


@dataclass(frozen=True, kw_only=True)
class Case:
    """A process to measure."""

    model: str = "nano"
    """A size, or smol (random weights of its shape)."""
    dtype: DtypeName | None = None
    """Number format of the weights at inference; None for training."""
    mode: str = "full"
    """Trained parts, a name of agent/commands/plan.py's MODES."""
    batch_size: int = 0
    """Batch size of training; 0 only imports."""

    def __str__(self) -> str:
        if self.dtype is not None:
            return f"{self.model}, act in {self.dtype}"
        return f"{self.model}, {self.mode}, batch {self.batch_size}" if self.batch_size else "imports alone"


CASES = (
    Case(),
    *(Case(model=model, dtype=dtype) for model in ("nano", "smol") for dtype in ("float32", "bfloat16", "int8")),
    *(Case(batch_size=size) for size in (16, 64, 128)),
    Case(mode="head", batch_size=128),
    Case(model="smol", batch_size=4),
    Case(model="smol", batch_size=16),
    *(Case(model="smol", mode=mode, batch_size=16) for mode in list(MODES)[1:]),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    one: str | None = None
    """A case as JSON: measure it in this process, and print its measured and predicted GB."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


class Peak:
    """Context manager: the peak memory of this process inside it, in GB."""

    def __init__(self) -> None:
        self.gb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._files = _resident("File")
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.gb = max(self.gb, self._files + _resident("Anon") + _resident("Shmem"))
            if self._stop.wait(0.002):
                return


def _resident(kind: str) -> float:
    """One kind of this process's resident memory, in GB; Linux only."""
    found = re.search(rf"^Rss{kind}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e9


def run_case(case: Case, world_spec: WorldSpec) -> None:
    """Run the case in this process."""
    torch.manual_seed(0)
    if case.dtype is None and not case.batch_size:
        return
    config = shape_of(ModelConfig(name=case.model), world_spec)
    if case.dtype is not None:
        _act(config, world_spec, case.dtype)
    else:
        _learn(config, *MODES[case.mode], case.batch_size)


def _act(config: VLAConfig, world_spec: WorldSpec, dtype: DtypeName) -> None:
    """Load a policy saved by another process, and act a few times."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "policy"
        code = "from benchmarks.plan import save; save(*__import__('sys').argv[1:])"
        subprocess.run([sys.executable, "-c", code, json.dumps(config.to_dict()), str(folder)], check=True)
        policy = VLAPolicy.from_pretrained(folder, dtype=dtype)
    observation = noise(world_spec, 1)
    for seed in range(3):
        policy.begin([0], observation["instruction"], seeds=(seed,))
        policy.act([0], observation)


def save(config: str, folder: str) -> None:
    """A policy of that shape with random weights."""
    world_spec = make_world("tabletop").world_spec
    processor = Processor.from_statistics(world_spec, unit_statistics(world_spec))
    save_policy(Path(folder), VLA(VLAConfig(**json.loads(config))), processor)


def _learn(config: VLAConfig, fine_tuning: FineTuning, decoder: DtypeName, batch_size: int) -> None:
    """Three updates of behaviour cloning."""
    model = VLA(config)
    if decoder == "bfloat16":
        model.backbone.decoder.to(torch.bfloat16)
        model.backbone.dtype = torch.bfloat16
    prepare(model, fine_tuning)
    parts = 2 if batch_size > 1 else 1
    learner = Learner(model, LearnerConfig(batch_size=batch_size, num_parts=parts))
    for _ in range(3):
        learner.update(fake_batch(config, batch_size), lambda model, part: sft_loss(model, part, SFTConfig()))
    learner.close()


def predicted(case: Case, world_spec: WorldSpec) -> Footprint:
    """The peak that the formulas predict."""
    if case.dtype is None and not case.batch_size:
        return Footprint()
    config = shape_of(ModelConfig(name=case.model), world_spec)
    if case.dtype is not None:
        return acting(config, case.dtype)
    fine_tuning, decoder = MODES[case.mode]
    compute: DtypeName = "bfloat16" if native_dtype(torch.device("cpu")) == torch.bfloat16 else "float32"
    parts = 2 if case.batch_size > 1 else 1
    return learning(config, fine_tuning, case.batch_size, num_parts=parts, compute=compute, decoder=decoder)


def measured_gb(case: Case) -> float:
    """Peak memory of the case in a separate process."""
    command = [sys.executable, "-m", "benchmarks.plan", "--one", json.dumps(dataclasses.asdict(case))]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.splitlines()[-1].split()[0])


def rows(world_spec: WorldSpec) -> Iterator[str]:
    """Table of predicted and measured peaks."""
    yield "| process | predicted GB | measured GB | error | error without the process itself |"
    yield "|---|---|---|---|---|"
    alone = None
    for case in CASES:
        gb, formula = measured_gb(case), predicted(case, world_spec)
        alone = gb if alone is None else alone
        total, own = formula.total / 1e9, (formula.total - formula.process) / 1e9
        extra = f"{100 * (own / (gb - alone) - 1):+.0f} %" if gb > alone + 0.05 else ""
        yield f"| {case} | {total:.2f} | {gb:.2f} | {100 * (total / gb - 1):+.0f} % | {extra} |"


def main(options: Options) -> None:
    """Measure, print and write."""
    if options.one is not None:
        case: dict[str, Any] = json.loads(options.one)
        world_spec = make_world("tabletop").world_spec
        with Peak() as peak:
            run_case(Case(**case), world_spec)
        print(peak.gb, predicted(Case(**case), world_spec).total / 1e9)
        return
    conditions = f"Largest resident memory of a process. {machine()['cpu']}, torch {torch.__version__}."
    lines = [*head("Planned against measured memory", "plan", conditions), ""]
    for line in rows(make_world("tabletop").world_spec):
        print(line, flush=True)
        lines.append(line)
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
