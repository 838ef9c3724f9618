"""A decision of nano, `VLAPolicy.act` on worlds' tensors: what it launches, and what it takes at up to 4,096 worlds."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from benchmarks.gpu.launches import Counts, counted
from benchmarks.gpu.worlds import clock_s
from benchmarks.model import noise
from benchmarks.untrained import untrained
from envs.make import world_spec_of
from envs.types import Observation
from vla_model.policy import VLAPolicy
from vla_model.weights.weight_formats import hold_weights


def policy(device: str, *, sample: bool = False, graphs: bool = True) -> VLAPolicy:
    """nano with random weights, as it is loaded: bfloat16 on "cuda"."""
    model, processor = untrained(world_spec_of("tabletop"))
    hold_weights(model, "bfloat16")
    made = VLAPolicy(model, processor, sample=sample, dtype="bfloat16").to(device)
    if not graphs:
        made._graphs = None
    return made


def begun(made: VLAPolicy, num_worlds: int, device: str) -> Observation:
    """An observation of N worlds on the device, whose episodes have begun."""
    seen = noise(made.processor.world_spec, num_worlds)
    made.begin(range(num_worlds), seen["instruction"], tuple(range(num_worlds)))
    frames = {camera: torch.from_numpy(frames).to(device) for camera, frames in seen["frames"].items()}
    return Observation(**(seen | {"frames": frames, "state": torch.from_numpy(seen["state"]).to(device)}))


def counts_of_decision(*, sample: bool) -> tuple[Counts, Counts]:
    """On the CPU: what a decision launches, and what of it is within its graph where it has one."""
    made = policy("cpu", sample=sample)
    seen = begun(made, 3, "cpu")
    made.act(range(3), seen)
    with counted() as whole:
        made.act(range(3), seen)
    within, decide = Counts(), made._decide

    def counting(*args: Any) -> Any:
        nonlocal within
        with counted() as within:
            return decide(*args)

    made._decide = counting
    made.act(range(3), seen)
    return whole, within


def measure(device: str, num_worlds: int, repeats: int) -> dict[str, Any]:
    """Median seconds of a decision by graph and kernel by kernel, and how far apart their actions are."""
    found: dict[str, Any] = {"worlds": num_worlds}
    actions = {}
    for name, graphs in (("graph", True), ("kernels", False)):
        made = policy(device, graphs=graphs)
        seen, times = begun(made, num_worlds, device), []
        for _ in range(repeats + 2):  # the first one captures
            began = clock_s()
            actions[name] = made.act(range(num_worlds), seen).actions
            times.append(clock_s() - began)
        found[f"{name}_s"] = statistics.median(times[2:])
    found["apart"] = float((actions["graph"] - actions["kernels"]).abs().max())
    return found
