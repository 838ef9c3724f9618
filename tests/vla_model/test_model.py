"""The whole model: shapes, losses, and what its outputs depend on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_model import WORLD_SPEC, tiny_config, tiny_vla

from envs.types import CameraSpec
from vla_model.config import VLAConfig
from vla_model.heads.action_head import DISTRIBUTIONS
from vla_model.inputs.inputs import ModelInputs, fake_inputs, sample_action_noise, sample_light, sample_shifts
from vla_model.model import VLA, VLAOutput
from vla_model.sizes import nano, pointing_columns


def losses(output: VLAOutput) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(output.actions.mode().shape, generator=generator)
    place = torch.randn(output.localization_from_vision.shape, generator=generator)
    return (
        output.actions.loss(target, torch.ones(target.shape[:2], dtype=torch.bool))
        + output.localization_loss(place)
        + 0.01 * output.load_balancing_loss()
        + 0.001 * output.router_z_loss()
    )


def test_outputs_have_the_shapes_of_the_world() -> None:
    config = tiny_config()
    output = tiny_vla()(fake_inputs(config, 5))
    assert output.actions.loc.shape == output.actions.log_scale.shape == (5, 4, 3)
    assert output.localization_from_vision.shape == output.localization_from_queries.shape == (5, 2)
    assert output.expert_usage().shape == (5, 2, 4)
    torch.testing.assert_close(output.expert_usage().sum(-1), torch.ones(5, 2))


def test_a_cached_prefix_changes_no_output() -> None:
    model, inputs = tiny_vla(), fake_inputs(tiny_config(), 5)
    fresh, cached = model(inputs), model(inputs, model.encode_instruction(inputs))
    assert torch.equal(fresh.actions.loc, cached.actions.loc)
    assert torch.equal(fresh.localization_from_vision, cached.localization_from_vision)


def test_an_instruction_that_rows_share_is_read_once_and_is_what_each_would_have_read() -> None:
    model, inputs = tiny_vla(), fake_inputs(tiny_config(), 3)
    shared = inputs.rows(torch.tensor([2, 0, 2, 1, 0]))
    padding = torch.randint(0, 2048, shared.instruction_ids.shape)
    shared = replace(shared, instruction_ids=shared.instruction_ids.where(shared.instruction_mask, padding))
    rows_read = []
    model.backbone.decoder.register_forward_pre_hook(
        lambda _, __, kwargs: rows_read.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    ours = model.encode_instruction(shared)
    assert rows_read == [3]
    every = model.backbone.prefill(shared.instruction_ids, shared.instruction_mask)
    assert torch.equal(ours.mask, every.mask[:, : ours.mask.shape[1]])
    torch.testing.assert_close(ours.summary, every.summary, atol=1e-5, rtol=1e-5)
    assert (ours.summary[0] - ours.summary[1]).abs().max() > 1e-3
    seen = torch.randn(5, 7, 32)
    torch.testing.assert_close(model.backbone(ours, seen), model.backbone(every, seen), atol=1e-5, rtol=1e-5)


def test_every_input_matters() -> None:
    model, config = tiny_vla(), tiny_config()
    inputs, other = fake_inputs(config, 4), fake_inputs(config, 4, seed=1)
    before = model(inputs).actions.loc
    for changes in (
        {"state": other.state},
        {"frames": inputs.frames | {"front": other.frames["front"]}},
        {"frames": inputs.frames | {"wrist": other.frames["wrist"]}},
        {"instruction_ids": other.instruction_ids},
    ):
        assert (model(replace(inputs, **changes)).actions.loc - before).abs().amax((1, 2)).min() > 1e-6, changes


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_every_parameter_learns(distribution: str) -> None:
    model = tiny_vla(action_distribution=distribution)
    noise = sample_action_noise(model.config, 16, torch.Generator().manual_seed(0))
    losses(model(replace(fake_inputs(model.config, 16), action_noise=noise))).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_the_value_head_learns_without_moving_the_policy() -> None:
    model = tiny_vla(value_head=True)
    output = model(fake_inputs(tiny_config(), 16))
    assert output.values is not None and output.values.shape == (16, 4)
    output.values.square().sum().backward()
    learning = [name for name, p in model.named_parameters() if p.grad is not None]
    assert learning == [name for name, _ in model.named_parameters() if name.startswith("value_head.")] != []


def test_a_value_head_changes_no_other_first_weight() -> None:
    plain, with_values = tiny_vla().state_dict(), tiny_vla(value_head=True).state_dict()
    assert all(torch.equal(tensor, with_values[name]) for name, tensor in plain.items())


def test_thirty_steps_fit_a_batch() -> None:
    torch.manual_seed(0)
    model, inputs = tiny_vla().train(), fake_inputs(tiny_config(), 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        loss = losses(model(inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.6 * history[0]


def test_bfloat16_autocast_gives_nearly_the_same() -> None:
    model, inputs = tiny_vla(), fake_inputs(tiny_config(), 8)
    exact = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(inputs)
    assert rough.actions.loc.dtype == rough.actions.log_scale.dtype == torch.float32
    torch.testing.assert_close(rough.actions.loc, exact.actions.loc, atol=0.1, rtol=0.1)


def test_localization_loss_is_the_sum_of_both_readings() -> None:
    output = tiny_vla()(fake_inputs(tiny_config(), 3))
    exact = replace(output, localization_from_vision=torch.zeros(3, 2), localization_from_queries=torch.ones(3, 2))
    assert exact.localization_loss(torch.zeros(3, 2)).item() == pytest.approx(0.0 + 0.5)


def test_a_model_of_a_world_without_localization_has_no_such_heads_and_no_such_loss() -> None:
    model = tiny_vla(localization_size=0)
    output = model(fake_inputs(model.config, 3))
    assert output.localization_from_queries.shape == (3, 0)
    assert output.localization_loss(torch.zeros(3, 0)).item() == 0.0
    assert not [name for name, _ in model.named_parameters() if "localize" in name]


def test_fake_inputs_repeat_with_their_seed() -> None:
    a, b, c = (fake_inputs(tiny_config(), 3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.frames["front"], b.frames["front"])
    assert not torch.equal(a.frames["front"], c.frames["front"])


def test_rows_of_inputs_are_rows_of_every_part() -> None:
    config = tiny_config()
    shifts = sample_shifts(config, 4, torch.Generator().manual_seed(0))
    light = sample_light(config, 4, torch.Generator().manual_seed(0))
    assert shifts is not None
    assert light is not None
    inputs = replace(fake_inputs(config, 4), shift_px=shifts, light=light)
    assert shifts["front"].abs().max() <= config.random_shift_px
    rows: ModelInputs = inputs.rows(torch.tensor([3, 1]))
    assert torch.equal(rows.state, inputs.state[[3, 1]])
    assert torch.equal(rows.frames["wrist"], inputs.frames["wrist"][[3, 1]])
    assert rows.shift_px is not None
    assert torch.equal(rows.shift_px["front"], shifts["front"][[3, 1]])
    assert rows.light is not None
    assert torch.equal(rows.light, light[[3, 1]])
    assert sample_shifts(tiny_config(random_shift_px=0), 4, torch.Generator()) is None
    assert sample_light(tiny_config(random_light=None), 4, torch.Generator()) is None


def test_noise_for_the_loss_is_drawn_where_the_distribution_takes_any_and_repeats() -> None:
    config = tiny_config(action_distribution="flow")
    noise, again = (sample_action_noise(config, 500, torch.Generator().manual_seed(0)) for _ in range(2))
    assert noise is not None and again is not None and torch.equal(noise, again)
    assert noise.shape == (500, 4, 4)
    assert noise[..., :3].std().item() == pytest.approx(1.0, abs=0.05)
    assert noise[..., 3].min() >= 0 and noise[..., 3].max() < 1
    assert noise[..., 3].mean().item() == pytest.approx(0.5, abs=0.05)
    inputs = replace(fake_inputs(config, 500), action_noise=noise).rows(torch.tensor([4, 2]))
    assert inputs.action_noise is not None and torch.equal(inputs.action_noise, noise[[4, 2]])
    assert sample_action_noise(tiny_config(), 5, torch.Generator()) is None


def test_the_light_of_training_is_as_bright_as_the_config_says_and_hardly_tinted() -> None:
    light = sample_light(tiny_config(random_light=[0.25, 1.0]), 2000, torch.Generator().manual_seed(0))
    assert light is not None
    brightness = light.log().mean(1)
    low, middle, high = brightness.quantile(torch.tensor([0.02, 0.5, 0.98])).exp().tolist()
    assert (low, middle, high) == pytest.approx((0.25, 0.5, 1.0), rel=0.1)
    assert (light.log() - brightness[:, None]).abs().mean() < 0.1


def test_nano_is_small_and_takes_its_sizes_from_the_world() -> None:
    world = replace(WORLD_SPEC, cameras=(CameraSpec(name="top", height=96, width=96),))
    config = nano(world)
    model = VLA(config)
    assert 1e6 < sum(p.numel() for p in model.parameters()) < 5e6
    assert model(fake_inputs(config, 1)).actions.loc.shape == (1, config.chunk_size, 3)


def test_a_head_without_experts_and_things_without_keypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer of experts, got moe_layers 0"):
        tiny_vla(moe_layers=0)
    things = max(len(columns) for columns in pointing_columns(WORLD_SPEC).values())
    with pytest.raises(ValueError, match=f"point at {things} places in a frame.*num_keypoints is {things - 1}"):
        tiny_vla(num_keypoints=things - 1)


def test_an_empty_config_builds_no_model() -> None:
    with pytest.raises(ValueError, match=r"at least one camera and one action dimension"):
        VLA(VLAConfig())
