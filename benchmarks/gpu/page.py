"""The results page: a table for each step that has a result, what is missing, and what was measured earlier, kept."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.runs.run_folder import machine
from benchmarks.document import head
from benchmarks.gpu import worlds

EARLIER = "## Measured earlier"
"""The page from this line on is kept."""

Found = Mapping[str, Any]


def write_page(path: Path, found: Mapping[str, Found], problems: Mapping[str, str], *, small: bool) -> None:
    """Write the page.

    Args:
        path: an existing page keeps its part from EARLIER on.
        found: {step: its result}.
        problems: {step: why it has none}.
        small: whether it is the small form.
    """
    device = next((result["device"] for result in found.values() if "device" in result), None)
    where = f"One {device}, " if device else "No GPU: Warp's CPU device; its times are not a GPU's. "
    conditions = (
        f"{where}{machine()['cpu']}, Python {platform.python_version()}, torch {version('torch')}, "
        f"MuJoCo Warp {version('mujoco-warp')}."
    )
    title = "The GPU benchmark in its small form" if small else "On a GPU"
    lines = [*head(title, "gpu", conditions), ""]
    for section in (_kernels, _counts, _worlds, _decisions, _learner, _commands, _agreement, _memory):
        lines += section(found)
    if problems:
        lines += ["", "Missing:", "", *(f"- {name}: {problem}" for name, problem in problems.items())]
    earlier = path.read_text() if path.exists() else ""
    kept = f"\n\n{earlier[earlier.index(EARLIER) :]}" if EARLIER in earlier else "\n"
    path.write_text("\n".join(lines) + kept)


def _kernels(found: Mapping[str, Found]) -> list[str]:
    if "kernels" not in found:
        return []
    result = found["kernels"]
    return [
        f"{result['modules']} modules of kernels compiled or loaded from the cache in {result['seconds']:.0f} s.",
        "",
    ]


def _counts(found: Mapping[str, Found]) -> list[str]:
    if "counts" not in found:
        return []
    chunk, mode, sample = (found["counts"][name] for name in ("chunk", "mode", "sample"))
    text = (
        f"A chunk of {worlds.CHUNK} actions in worlds of every task, besides MuJoCo Warp's own kernels: "
        f"{chunk['kernels']} kernels and {chunk['torch']} torch operations, {chunk['graphs']} graphs. A decision of "
        f"nano: {mode['all']} torch operations, {mode['all'] - mode['within']} of them outside its graph; with "
        f"sampling {sample['all']} and {sample['all'] - sample['within']}."
    )
    return ["## What is launched", "", text, ""]


def _worlds(found: Mapping[str, Found]) -> list[str]:
    rows = [worlds.row(result) for name, result in found.items() if name.startswith("worlds_")]
    if not rows:
        return []
    text = (
        f"Random actions in chunks of {worlds.CHUNK}, a pair of frames once per chunk. Medians. A reset draws the "
        "episodes, on the host, and the first frames. Joints apart: the most that any of ours ended from the bare "
        "loop's, in m or rad."
    )
    return [
        "## Worlds on MuJoCo Warp",
        "",
        text,
        "",
        f"| {' | '.join(worlds.COLUMNS)} |",
        "|---" * len(worlds.COLUMNS) + "|",
        *rows,
        "",
    ]


def _decisions(found: Mapping[str, Found]) -> list[str]:
    if "decisions" not in found:
        return []
    rows = [
        f"| {row['worlds']} | {1000 * row['graph_s']:.2f} | {1000 * row['kernels_s']:.2f} | {row['apart']:.1e} |"
        for row in found["decisions"]["rows"]
    ]
    return [
        "## A decision of nano, bfloat16",
        "",
        "| worlds | by a graph ms | kernel by kernel ms | actions apart |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _learner(found: Mapping[str, Found]) -> list[str]:
    if "learner" not in found:
        return []
    result = found["learner"]
    graph_s, kernels_s, size = result["graph_s"], result["kernels_s"], result["batch_size"]
    text = (
        f"Batches of {size}: captured {1000 * graph_s:.1f} ms, {size / graph_s:,.0f} samples/s; kernel by kernel "
        f"{1000 * kernels_s:.1f} ms."
    )
    return ["## An update of nano", "", text, ""]


def _commands(found: Mapping[str, Found]) -> list[str]:
    lines: list[str] = []
    for name in ("demo", "ppo", "dagger"):
        if name in found:
            result = found[name]
            end = "" if result["in_time"] else ", stopped at the end of its time box"
            lines += [f"`{result['command']}`: {result['seconds']:.0f} s{end}", ""]
            lines += [*(f"- {line}" for line in result["said"]), ""]
    return ["## From the command line", "", *lines] if lines else []


def _agreement(found: Mapping[str, Found]) -> list[str]:
    if "agreement" not in found:
        return []
    return [
        "## Agreement with the CPU",
        "",
        f"`pytest {' '.join(found['agreement']['tests'])}`:",
        "",
        f"{found['agreement']['said']}",
        "",
    ]


def _memory(found: Mapping[str, Found]) -> list[str]:
    rows = [
        f"| {name} | {result['torch_peak_gb']:.1f} | {result['device_used_gb']:.1f} |"
        for name, result in found.items()
        if "torch_peak_gb" in result
    ]
    table = ["| step | torch's peak GB | in use at its end, GB |", "|---|---|---|", *rows, ""]
    return ["## Memory", "", *table] if rows else []
