"""The flow distribution, against chains of torch.distributions.Normal and velocity fields known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_model import tiny_config
from torch import Tensor

from vla_model.heads.flow import Flow, FlowActions

MEAN, STD = 0.7, 0.3


def exact_velocity(x: Tensor, time: Tensor, _: Tensor) -> Tensor:
    """E[a - x_0 | x_t = x] where a ~ N(MEAN, STD^2): linear in x."""
    variance = (1 - time) ** 2 + (time * STD) ** 2
    return MEAN + (time * STD**2 - (1 - time)) / variance * (x - time * MEAN)


def exact_flow(count: int, num_steps: int, noise_level: float = 0.5) -> FlowActions:
    return FlowActions(
        velocity=exact_velocity,
        condition=torch.zeros(count, 1, 1),
        action_size=1,
        num_steps=num_steps,
        noise_level=noise_level,
    )


def learnt_flow(batch: int = 5, noise: Tensor | None = None) -> tuple[Flow, FlowActions]:
    torch.manual_seed(0)
    flow = Flow(tiny_config(action_distribution="flow"))
    return flow, flow(torch.randn(batch, 4, flow.num_parameters), noise)


def action_noise(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(batch, 4, 3, generator=generator)
    return torch.cat([normal, torch.rand(batch, 4, 1, generator=generator)], dim=-1)


@pytest.mark.parametrize("num_steps", [2, 4, 200])
def test_with_an_exact_velocity_the_draws_have_the_moments_of_their_linear_chain(num_steps: int) -> None:
    """Step by step x' = gain x + offset + std z, so mean and variance follow. Many steps give the actions' own."""
    mean, variance, c, dt = 0.0, 1.0, 0.5, 1 / num_steps
    for i in range(num_steps):
        t = i * dt
        slope = (t * STD**2 - (1 - t)) / ((1 - t) ** 2 + (t * STD) ** 2)
        gain = 1 + dt * (slope - c**2 / 2 * (1 - t * slope))
        offset = dt * (1 + c**2 / 2 * t) * (MEAN - slope * t * MEAN)
        mean, variance = gain * mean + offset, gain**2 * variance + c**2 * (1 - t) * dt
    actions = exact_flow(100_000, num_steps).sample(torch.Generator().manual_seed(0)).actions
    assert actions.mean().item() == pytest.approx(mean, abs=0.005)
    assert actions.std().item() == pytest.approx(math.sqrt(variance), abs=0.005)
    if num_steps == 200:
        assert (mean, math.sqrt(variance)) == (pytest.approx(MEAN, abs=0.01), pytest.approx(STD, abs=0.01))


@pytest.mark.parametrize("noise_level", [0.2, 1.0])
def test_how_much_noise_is_injected_does_not_change_what_is_drawn_in_many_small_steps(noise_level: float) -> None:
    actions = exact_flow(50_000, 200, noise_level).sample(torch.Generator().manual_seed(0)).actions
    assert actions.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert actions.std().item() == pytest.approx(STD, abs=0.01)


def test_the_mode_of_a_gaussian_is_its_mean() -> None:
    torch.testing.assert_close(exact_flow(1, 4).mode().squeeze(), torch.tensor(MEAN))


def test_the_log_prob_of_a_chain_is_the_product_of_its_normal_transitions() -> None:
    _, actions = learnt_flow()
    sample = actions.sample(torch.Generator().manual_seed(1))
    assert sample.sampled.shape == (5, 4, 5, 3)
    assert torch.equal(sample.sampled[:, :, -1], sample.actions)
    expected = torch.zeros(5, 4)
    for i in range(4):
        t, x = torch.tensor([i / 4]), sample.sampled[:, :, i]
        velocity = actions.velocity(x, t, actions.condition)
        score = -(x - t * velocity) / (1 - t)
        sigma_squared = 0.5**2 * (1 - t)
        mean = x + (velocity + sigma_squared / 2 * score) / 4
        normal = torch.distributions.Normal(mean, (sigma_squared / 4).sqrt())
        expected += normal.log_prob(sample.sampled[:, :, i + 1]).sum(-1)
    torch.testing.assert_close(actions.log_prob(sample.sampled), expected)
    torch.testing.assert_close(actions.log_prob(sample.sampled[:, :2]), expected[:, :2])


def test_the_mean_log_prob_of_draws_is_the_negative_entropy() -> None:
    actions = exact_flow(20_000, 4)
    sampled = actions.sample(torch.Generator().manual_seed(0)).sampled
    assert actions.log_prob(sampled).mean().item() == pytest.approx(-actions.entropy()[0, 0].item(), abs=0.05)


def test_the_mean_gradient_of_log_prob_over_draws_is_zero() -> None:
    flow, actions = learnt_flow(batch=5000)
    sampled = actions.sample(torch.Generator().manual_seed(0)).sampled
    (mean,) = torch.autograd.grad(actions.log_prob(sampled).mean(), flow.last.bias)
    # The score of a bias in the velocity has variance sum_i (d mean_i / d bias)^2 / std_i^2, with 20,000 chains here.
    variance = sum(((1 + 0.125 * i / 4) / 4) ** 2 / (0.25 * (1 - i / 4) / 4) for i in range(4))
    assert mean.abs().max() < 4 * math.sqrt(variance / 20_000)


def test_the_loss_is_the_squared_error_of_the_velocity_on_the_path_of_unmasked_actions() -> None:
    noise, target = action_noise(5), torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(1))
    _, actions = learnt_flow(noise=noise)
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[0, 1:] = False
    errors = []
    for b, j in mask.nonzero().tolist():
        start, time = noise[b, j, :3], noise[b, j, 3:]
        point = (1 - time) * start + time * target[b, j]
        errors.append(actions.velocity(point, time, actions.condition[b, j]) - (target[b, j] - start))
    torch.testing.assert_close(actions.loss(target, mask), torch.stack(errors).square().mean())


def test_the_exact_velocity_has_the_smallest_loss() -> None:
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    target = MEAN + STD * torch.randn(count, 1, 1, generator=generator)
    noise = torch.cat([torch.randn(count, 1, 1, generator=generator), torch.rand(count, 1, 1, generator=generator)], -1)

    def loss(slope: float, offset: float) -> float:
        flow = FlowActions(
            velocity=lambda x, t, h: exact_velocity(x, t, h) + slope * x + offset,
            condition=torch.zeros(count, 1, 1),
            action_size=1,
            num_steps=4,
            noise_level=0.5,
            noise=noise,
        )
        return flow.loss(target, torch.ones(count, 1, dtype=torch.bool)).item()

    for slope, offset in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert loss(slope, offset) > loss(0.0, 0.0)


def test_a_loss_without_noise_says_where_it_comes_from() -> None:
    _, actions = learnt_flow()
    with pytest.raises(ValueError, match=r"needs ModelInputs.action_noise; .*sample_action_noise makes it"):
        actions.loss(torch.zeros(5, 4, 3), torch.ones(5, 4, dtype=torch.bool))


def test_flow_learns_a_distribution_of_two_peaks() -> None:
    torch.manual_seed(0)
    flow = Flow(tiny_config(action_distribution="flow", action_size=1, chunk_size=1))
    condition = torch.zeros(256, 1, flow.num_parameters)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    mask = torch.ones(256, 1, dtype=torch.bool)
    for _ in range(200):
        target = torch.randint(0, 2, (256, 1, 1)) * 2.0 - 1.0
        noise = torch.cat([torch.randn(256, 1, 1), torch.rand(256, 1, 1)], dim=-1)
        loss = flow(condition, noise).loss(target, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sampled = flow(condition).sample(torch.Generator().manual_seed(0)).actions.flatten()
    assert 0.3 < (sampled > 0).float().mean() < 0.7
    assert (sampled.abs() - 1).abs().mean() < 0.35
