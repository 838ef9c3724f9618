"""The gradient of a batch does not depend on how many parts it is computed in."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from sides_policy import sides_model, sides_processor
from sides_rollouts import rollouts
from torch import Tensor

from agent.algorithms.grpo import groups, grpo_advantages, grpo_loss, is_mixed
from agent.algorithms.grpo_config import GRPOConfig
from agent.algorithms.ppo import ppo_advantages, ppo_loss
from agent.algorithms.ppo_config import PPOConfig, SurrogateConfig
from agent.algorithms.rollout_batch import decisions
from agent.algorithms.sft import SFTBatch, fake_batch, sft_loss
from agent.algorithms.sft_config import SFTConfig
from agent.learning.gradients import Threads
from vla_model.heads.moe import Router
from vla_model.model import VLA

SURROGATE = SurrogateConfig(entropy_weight=0.1, reference_kl_weight=0.5)


def gradient(model: VLA, batch: Any, loss: Any, num_parts: int) -> tuple[Tensor, dict[str, float]]:
    """The gradient of all weights in one row, and the loss's metrics, in float32."""
    parameters = list(model.parameters())
    with closing(Threads(model, parameters, num_parts)) as threads:
        threads._objective._dtype = torch.float32
        metrics = threads(batch, loss)
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), metrics


def uneven(model: VLA) -> SFTBatch:
    """Seven rows of which every other one is the last of its episode, with labels in a frame in some of them only."""
    batch = fake_batch(model.config, 7)
    batch.mask[1::2, 1:] = False
    assert batch.future_known is not None
    batch.future_known[1] = False
    batch.localization[::3] = 5.0
    return batch


def cloning() -> tuple[VLA, Any, Any]:
    model = sides_model(foreseen_steps=[2], foreseen_keyframes=True, calibrated_cameras=["front"])
    return model, uneven(model), partial(sft_loss, config=SFTConfig(load_balancing_weight=1.0, router_z_weight=1.0))


def ppo() -> tuple[VLA, Any, Any]:
    batch = decisions(ppo_advantages(rollouts(4), PPOConfig()), sides_processor()).rows(torch.arange(7))
    batch = replace(batch, log_prob=batch.log_prob - 0.1, reference_log_prob=batch.log_prob + 0.3)
    return sides_model(value_head=True), batch, partial(ppo_loss, config=PPOConfig(surrogate=SURROGATE))


def grpo() -> tuple[VLA, Any, Any]:
    config = GRPOConfig(group_size=3, surrogate=SURROGATE)
    group = next(g for g in groups(rollouts(40, repeats=3, value_head=False)) if is_mixed(g, config))
    batch = decisions(grpo_advantages(group, config), sides_processor()).rows(torch.arange(7))
    return sides_model(), batch, partial(grpo_loss, config=config)


@pytest.mark.parametrize("case", [cloning, ppo, grpo])
def test_the_gradient_does_not_depend_on_the_number_of_parts(case: Any) -> None:
    model, batch, loss = case()
    whole, metrics = gradient(model, batch, loss, 1)
    for num_parts in (2, 4, 9):
        found, said = gradient(model, batch, loss, num_parts)
        assert float((found - whole).norm() / whole.norm()) < 1e-5, num_parts
        assert said == pytest.approx(metrics, rel=1e-4, abs=1e-5), num_parts


def test_with_parts_of_equal_size_each_reports_its_own_mean() -> None:
    """All terms but the product of two means."""
    model = sides_model()
    batch, loss = fake_batch(model.config, 8), partial(sft_loss, config=SFTConfig(load_balancing_weight=0.0))
    found, _ = gradient(model, batch, loss, 2)
    parameters = list(model.parameters())
    parts = [
        torch.autograd.grad(loss(model, batch.part(i, 2))[0], parameters, materialize_grads=True) for i in range(2)
    ]
    expected = torch.cat([torch.stack(each).mean(0).flatten() for each in zip(*parts, strict=True)])
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def test_a_part_that_fails_ends_the_update_with_its_own_error() -> None:
    model, batch, loss = cloning()

    def failing(model: VLA, part: SFTBatch) -> Any:
        if torch.equal(part.actions, batch.part(1, 3).actions):
            raise RuntimeError("part 1 is broken")
        return loss(model, part)

    with pytest.raises(RuntimeError, match="part 1 is broken"):
        gradient(model, batch, failing, 3)


def test_padding_after_an_episodes_end_changes_neither_loss_nor_expert_counts() -> None:
    model = sides_model(balancing_rate=0.01).train()
    batch = fake_batch(model.config, 8)
    batch.mask[:, 1:] = False
    loss = partial(sft_loss, config=SFTConfig())
    metrics = []
    for _ in range(2):
        metrics.append({name: float(value) for name, value in loss(model, batch)[1].items()})
        with torch.no_grad():
            model.queries[1:] += 5.0 * torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    of_queries = {"loss/localization", "loss/total"}  # read from the mean of all queries, as when it acts
    assert {k: v for k, v in metrics[0].items() if k not in of_queries} == pytest.approx(
        {k: v for k, v in metrics[1].items() if k not in of_queries}, rel=1e-5
    )
    router = model.action_head.get_submodule("layers.0.router")
    assert isinstance(router, Router)
    first, second = router._counts
    assert torch.equal(first, second)
    assert int(first.sum()) == 8 * router.top_k_experts


def test_no_operation_is_split_over_cores_until_the_threads_are_closed() -> None:
    """An operation that is split leaves a thread of OpenMP that spins on the core of a part."""
    seen: list[int] = []

    def watched(model: VLA, part: SFTBatch) -> Any:
        seen.append(torch.get_num_threads())
        return sft_loss(model, part, SFTConfig())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = sides_model()
        with closing(Threads(model, list(model.parameters()), num_parts=2)) as threads:
            threads(fake_batch(model.config, 4), watched)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 1, 2]
