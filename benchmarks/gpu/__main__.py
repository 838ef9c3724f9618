"""What a GPU changes, measured in at most 8 minutes, in steps that an interrupted run does not repeat.

    python -m benchmarks.gpu --out DIR                  on a machine with a GPU; writes docs/results/gpu.md anew
    python -m benchmarks.gpu --out DIR --small          the same steps, small, on Warp's CPU device

Each step is a process of its own with a time box, and writes DIR/STEP.json; a step whose file exists is not run again.
One that fails or takes too long is named on the page, and the others go on. Steps that no longer fit into the 8 minutes
are left for another call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.gpu import commands, decisions, kernels, learning, worlds
from benchmarks.gpu.page import write_page
from vla_model.files.folders import write_whole

_ROOT = Path(__file__).parents[2]
_PAGE = _ROOT / "docs/results/gpu.md"
_BUDGET_S = 480.0
_LEAST_S = 20.0
"""No step begins with less time left than this."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    out: Path
    """Folder of the steps' results."""
    small: bool = False
    """Few worlds and samples on Warp's CPU device."""
    steps: tuple[str, ...] = ()
    """Only these; default: all."""
    page: Path | None = None
    """Page to write; default: docs/results/gpu.md, and DIR/gpu.md for the small form."""
    run_step: str | None = None
    """Run one step in this process, as the steps' processes are started."""

    @property
    def device(self) -> str:
        """Of worlds."""
        return "warp" if self.small else "cuda"

    @property
    def torch_device(self) -> str:
        """Of policies and learners."""
        return "cpu" if self.small else "cuda"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A piece of the measurement."""

    limit_s: float
    run: Callable[[Options], dict[str, Any]]


def _counts(options: Options) -> dict[str, Any]:
    chunk = worlds.counts_of_chunk(options.device)
    found = {"chunk": {"kernels": chunk.kernels.total(), "torch": chunk.torch.total(), "graphs": chunk.graphs}}
    for name, sample in (("mode", False), ("sample", True)):
        whole, within = decisions.counts_of_decision(sample=sample)
        found[name] = {"all": whole.own, "within": within.own}
    return found


def _decisions(options: Options) -> dict[str, Any]:
    sizes, repeats = ((1, 3), 1) if options.small else ((1, 4, 16, 64, 256, 1024, 4096), 10)
    return {"rows": [decisions.measure(options.torch_device, size, repeats) for size in sizes]}


def _agreement(options: Options) -> dict[str, Any]:
    """The tests that compare a GPU with the CPU; they are skipped without one."""
    files = (
        "tests/envs/simulation/test_sim_warp.py",
        "tests/agent/learning/test_captured.py",
        "tests/vla_model/numerics/test_row_graphs.py",
        "tests/vla_model/test_policy.py",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    (options.out / "agreement.log").write_text(done.stdout + done.stderr)
    said = done.stdout.strip().splitlines()[-1]
    if done.returncode:
        raise RuntimeError(f"{said}; see {options.out / 'agreement.log'}")
    return {"tests": list(files), "said": said}


def _demo(options: Options) -> dict[str, Any]:
    sizes = ["--demonstrations.num-worlds", "1024", "--evaluation.num-worlds", "120"]
    if options.small:
        sizes = ["--demonstrations.tasks", "reach", "--demonstrations.episodes-per-task", "2"]
        sizes += ["--demonstrations.num-worlds", "2", "--learner.num-updates", "2", "--learner.warmup-updates", "1"]
        sizes += ["--learner.batch-size", "8", "--evaluation.episodes-per-task", "1", "--evaluation.num-worlds", "2"]
    return commands.demo(options.out, options.device, 1000.0 if options.small else 140.0, sizes)


def _improve(recipe: str, iterations: int, extra: Sequence[str], options: Options) -> dict[str, Any]:
    practised = ["--practice.num-worlds", "1024", "--practice.episodes-per-task", "171"]
    sizes = [*practised, "--evaluation.episodes-per-task", "20", "--evaluation.num-worlds", "120"]
    if options.small:
        sizes = ["--practice.tasks", "reach", "--practice.num-worlds", "4", "--practice.episodes-per-task", "4"]
        sizes += ["--evaluation.episodes-per-task", "1", "--evaluation.num-worlds", "2", "--learner.batch-size", "32"]
    sizes += ["--iterations", f"{iterations}", *extra]
    return commands.improve(recipe, options.out, options.device, 1000.0 if options.small else 60.0, sizes)


def _ppo(options: Options) -> dict[str, Any]:
    return _improve("ppo_tabletop", 2, ["--algorithm.warmup-iterations", "0"], options)


def _dagger(options: Options) -> dict[str, Any]:
    updates = "2" if options.small else "300"
    few = ["--learner.warmup-updates", "1"] if options.small else []
    demonstrations = str(options.out / "demo" / "dataset")
    extra = ["--algorithm.updates", updates, "--algorithm.demonstrations", demonstrations, *few]
    return _improve("dagger_tabletop", 1, extra, options)


def _worlds(options: Options, size: int) -> dict[str, Any]:
    return worlds.measure(options.device, 2 if options.small else size, 1 if options.small else 3)


STEPS: dict[str, Step] = {
    "kernels": Step(limit_s=200, run=lambda options: kernels.compile_all(options.device)),
    "counts": Step(limit_s=40, run=_counts),
    "worlds_64": Step(limit_s=40, run=lambda options: _worlds(options, 64)),
    "worlds_1024": Step(limit_s=40, run=lambda options: _worlds(options, 1024)),
    "worlds_4096": Step(limit_s=60, run=lambda options: _worlds(options, 4096)),
    "decisions": Step(limit_s=60, run=_decisions),
    "learner": Step(
        limit_s=40,
        run=lambda options: learning.measure(
            options.torch_device, 8 if options.small else 128, 1 if options.small else 20
        ),
    ),
    "agreement": Step(limit_s=90, run=_agreement),
    "ppo": Step(limit_s=80, run=_ppo),
    "demo": Step(limit_s=160, run=_demo),
    "dagger": Step(limit_s=80, run=_dagger),  # on the demo's dataset
}
"""In the order of running: what a run of 8 minutes may have to leave out comes last."""


def run_step(options: Options, name: str) -> None:
    """Run a step here and write its result."""
    began_s = time.perf_counter()
    found = STEPS[name].run(options)
    found["step_s"] = time.perf_counter() - began_s
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["torch_peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        free, total = torch.cuda.mem_get_info()
        found["device_used_gb"] = (total - free) / 1e9
    write_whole(options.out / f"{name}.json", json.dumps(found, indent=1))


def start_step(options: Options, name: str, limit_s: float) -> str | None:
    """Run a step in a process of its own; returns what went wrong, if anything."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(options.out), "--run-step", name]
    with (options.out / f"{name}.out").open("w") as out:
        process = subprocess.Popen(
            [*command, *(["--small"] if options.small else [])],
            cwd=_ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f"not finished within {limit_s:.0f} s"
        finally:
            if process.poll() is None:  # interrupted, or too late
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        lines = (options.out / f"{name}.out").read_text().strip().splitlines()
        return f"failed: {lines[-1] if lines else process.returncode}"
    return None


def main(options: Options) -> None:
    """Run the missing steps, and write the page."""
    if not options.small and not torch.cuda.is_available():
        sys.exit("this process has no NVIDIA GPU; --small runs the same steps in a small form on Warp's CPU device")
    if unknown := [name for name in options.steps if name not in STEPS]:
        sys.exit(f"there is no step {', '.join(unknown)}; steps: {', '.join(STEPS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.run_step is not None:
        run_step(options, options.run_step)
        return
    began_s, problems = time.perf_counter(), {}
    for name in options.steps or STEPS:
        if (options.out / f"{name}.json").exists():
            print(f"{name}: done before", flush=True)
            continue
        left_s = 1e9 if options.small else _BUDGET_S - (time.perf_counter() - began_s)
        if left_s < _LEAST_S:
            problems[name] = "not begun within 8 minutes; the same command goes on with it"
            continue
        limit_s = 1e9 if options.small else min(STEPS[name].limit_s, left_s)
        if (problem := start_step(options, name, limit_s)) is not None:
            problems[name] = problem
        print(f"{name}: {problem or 'done'}", flush=True)
    found = {name: json.loads(path.read_text()) for name in STEPS if (path := options.out / f"{name}.json").exists()}
    page = options.page or (options.out / "gpu.md" if options.small else _PAGE)
    write_page(page, found, problems, small=options.small)
    print(f"{page}")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
