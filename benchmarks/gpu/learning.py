"""An update of sft_demo's learner: its gradient captured as a graph, and kernel by kernel."""

from __future__ import annotations

import statistics
from functools import partial
from typing import Any

import torch

from agent.algorithms.sft import SFTConfig, fake_batch, sft_loss
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from benchmarks.gpu.worlds import clock_s
from benchmarks.untrained import untrained
from envs.make import world_spec_of


def measure(device: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """Median seconds of `Learner.update` on made-up batches."""
    found: dict[str, Any] = {"batch_size": batch_size}
    loss = partial(sft_loss, config=SFTConfig(hold_gripper=True))
    for name, capture in (("graph", True), ("kernels", False)):
        model, _ = untrained(world_spec_of("tabletop"))
        config = LearnerConfig(batch_size=batch_size, num_updates=1000, warmup_updates=10, capture=capture)
        learner = Learner(model.to(device), config, repeats=True)
        batch, times = fake_batch(model.config, batch_size).to(torch.device(device)), []
        for _ in range(repeats + 2):  # the first one captures
            began = clock_s()
            learner.update(batch, loss)
            times.append(clock_s() - began)
        found[f"{name}_s"] = statistics.median(times[2:])
        learner.close()
    return found
