"""The camera towers: where keypoints are, what a shift does, and that the instruction conditions them."""

from __future__ import annotations

import pytest
import torch
from tiny_model import gradient, tiny_config

from vla_model.vision.tower import ConvTower, Stem, gather_shifted, shift_frames, spatial_softmax


def test_spatial_softmax_of_a_sharp_peak_is_the_centre_of_its_cell() -> None:
    heatmaps = torch.zeros(1, 2, 4, 8)
    heatmaps[0, 0, 3, 0] = heatmaps[0, 1, 1, 6] = 100.0
    expected = torch.tensor([[[1 / 8 - 1, 7 / 4 - 1], [13 / 8 - 1, 3 / 4 - 1]]])
    torch.testing.assert_close(spatial_softmax(heatmaps), expected)


def test_spatial_softmax_of_a_flat_map_is_the_middle_of_the_frame() -> None:
    torch.testing.assert_close(spatial_softmax(torch.full((2, 3, 5, 7), 4.0)), torch.zeros(2, 3, 2), atol=1e-6, rtol=0)


def test_spatial_softmax_finds_positions_between_cells() -> None:
    heatmaps = torch.full((1, 1, 1, 4), -100.0)
    heatmaps[..., 1], heatmaps[..., 2] = 0.0, torch.log(torch.tensor(3.0))
    assert spatial_softmax(heatmaps)[0, 0, 0].item() == pytest.approx(0.25 * -0.25 + 0.75 * 0.25)


def test_shifted_frames_repeat_their_edges() -> None:
    frames = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    shifted = shift_frames(frames, torch.tensor([[2, -1], [0, 0]]))
    assert torch.equal(shifted[1], frames[1])
    for y in range(4):
        for x in range(5):
            assert torch.equal(shifted[0, y, x], frames[0, max(y - 1, 0), min(x + 2, 4)])


def test_frames_shifted_pixel_by_pixel_as_on_a_gpu_are_those_shifted_as_on_a_cpu() -> None:
    frames = torch.randint(0, 256, (6, 9, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shift_px = torch.tensor([[0, 0], [3, -3], [-8, 2], [1, 12], [-1, -1], [6, 0]])
    assert torch.equal(gather_shifted(frames, shift_px), shift_frames(frames, shift_px))


def test_light_multiplies_each_colour_of_each_frame() -> None:
    torch.manual_seed(0)
    stem = Stem(4)
    frames = torch.randint(0, 120, (2, 16, 16, 3), dtype=torch.uint8)
    lit = frames.clone()
    lit[0, ..., 1] *= 2
    factors = torch.tensor([[1.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    torch.testing.assert_close(stem(frames, factors), stem(lit))


def test_keypoints_are_told_in_the_frame_as_it_was_before_the_shift() -> None:
    torch.manual_seed(0)
    tower, film = ConvTower(tiny_config(), "front"), torch.randn(2, 32)
    frames = torch.full((2, 32, 64, 3), 90, dtype=torch.uint8)  # looks the same shifted, so only the telling differs
    still = tower(frames, film).keypoints.view(2, -1, 2)
    moved = tower(frames, film, torch.tensor([[4, -1], [0, 2]])).keypoints.view(2, -1, 2)
    expected = torch.tensor([[4 / 32, -1 / 16], [0.0, 2 / 16]])[:, None]
    torch.testing.assert_close(moved - still, expected.expand_as(still), atol=1e-5, rtol=0)


def test_the_instruction_changes_where_a_tower_looks() -> None:
    torch.manual_seed(0)
    tower = ConvTower(tiny_config(), "front")
    frames = torch.randint(0, 256, (1, 32, 48, 3), dtype=torch.uint8).expand(2, -1, -1, -1)
    features = tower(frames, torch.randn(2, 32))
    assert (features.keypoints[0] - features.keypoints[1]).abs().max() > 1e-3
    assert features.tokens.shape == (2, 2 * 2 + 1, 32)


def test_gradient_reaches_the_first_convolution_and_the_instruction() -> None:
    torch.manual_seed(0)
    tower = ConvTower(tiny_config(), "front")
    film = torch.randn(3, 32, requires_grad=True)
    tower(torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8), film).keypoints.square().sum().backward()
    assert gradient(tower.stem.conv.weight).abs().sum() > 0
    assert gradient(film).abs().sum() > 0


def test_frames_of_any_size_give_the_same_number_of_tokens() -> None:
    tower = ConvTower(tiny_config(), "front")
    for height, width in ((16, 16), (64, 48), (100, 132)):
        frames = torch.zeros(1, height, width, 3, dtype=torch.uint8)
        assert tower(frames, torch.zeros(1, 32)).tokens.shape == (1, 5, 32)
