"""Gradients replayed as a CUDA graph against eager kernels; needs a GPU."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from sides_policy import sides_model

from agent.algorithms.sft import SFTBatch, fake_batch, sft_loss
from agent.algorithms.sft_config import SFTConfig
from agent.learning.captured import Captured
from agent.learning.config import LearnerConfig, OptimizerName
from agent.learning.gradients import Threads
from agent.learning.learner import Learner
from vla_model.model import VLA

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LOSS = partial(sft_loss, config=SFTConfig())


def learner(*, capture: bool, num_parts: int, device: str = "cuda", optimizer: OptimizerName = "adamw") -> Learner[VLA]:
    config = LearnerConfig(batch_size=8, num_parts=num_parts, warmup_updates=1, capture=capture, optimizer=optimizer)
    return Learner(copy.deepcopy(sides_model()).to(device), config, repeats=True)


def batch(size: int, seed: int) -> SFTBatch:
    return fake_batch(sides_model().config, size, seed).to(torch.device("cuda"))


@needs_gpu
@pytest.mark.parametrize("num_parts", [1, 2])
def test_a_replayed_graph_gives_the_same_updates_as_eager_kernels(num_parts: int) -> None:
    plain, captured = (learner(capture=capture, num_parts=num_parts) for capture in (False, True))
    assert isinstance(plain._gradients, Threads)
    assert isinstance(captured._gradients, Captured)
    for update, size in enumerate((8, 8, 4, 8)):  # a batch of another shape between is recorded for itself
        expected = plain.update(batch(size, update), LOSS)
        assert captured.update(batch(size, update), LOSS) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    for ours, theirs in zip(captured.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@needs_gpu
def test_muon_steps_on_replayed_gradients_as_on_eager_ones() -> None:
    plain, captured = (learner(capture=capture, num_parts=1, optimizer="muon") for capture in (False, True))
    for update in range(4):
        expected = plain.update(batch(8, update), LOSS)
        assert captured.update(batch(8, update), LOSS) == pytest.approx(expected, rel=1e-2, abs=1e-3)


@needs_gpu
def test_another_loss_is_captured_anew() -> None:
    captured = learner(capture=True, num_parts=1)
    both, action_only = LOSS, partial(sft_loss, config=SFTConfig(localization_weight=0.0, pointing_weight=0.0))
    samples = batch(8, 0)
    first = captured.update(samples, both)
    second = captured.update(samples, action_only)
    assert second["loss/total"] < first["loss/total"] - first["loss/localization"]


def test_on_a_cpu_the_gradient_is_never_captured() -> None:
    assert isinstance(learner(capture=True, num_parts=2, device="cpu")._gradients, Threads)
