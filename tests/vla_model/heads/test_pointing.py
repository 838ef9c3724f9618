"""The pointing loss against hand-computed cells, and its agreement with the keypoints."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envs.types import CameraSpec, VectorSpec, WorldSpec
from vla_model.heads.pointing import Pointing
from vla_model.sizes import pointing_columns
from vla_model.vision.tower import spatial_softmax

COLUMNS = [[1, 2]]


def pointing(logits: Tensor, shift: tuple[float, float] = (0.0, 0.0)) -> Pointing:
    return Pointing(logits=logits, shift=torch.tensor([shift]), columns=COLUMNS)


def label(u: float, v: float) -> Tensor:
    return torch.tensor([[9.0, u, v]])


def test_even_heatmaps_cost_the_logarithm_of_their_cells() -> None:
    loss, count = pointing(torch.zeros(1, 1, 4, 8)).loss_and_count(label(0.1, -0.3))
    assert loss.item() == pytest.approx(math.log(32))
    assert count.item() == 1


def test_a_thing_between_two_cells_is_shared_by_them() -> None:
    # Of four columns with centres -0.75, -0.25, 0.25, 0.75, u = -0.375 lies a quarter of the way from -0.25 to -0.75.
    logits = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    log_p = logits.flatten().log_softmax(0)
    loss, _ = pointing(logits).loss_and_count(label(-0.375, 0.0))
    assert loss.item() == pytest.approx(-(0.25 * log_p[0] + 0.75 * log_p[1]).item())


def test_things_outside_the_frame_do_not_count() -> None:
    loss, count = pointing(torch.randn(1, 1, 4, 4)).loss_and_count(label(1.2, 0.0))
    assert loss.item() == 0.0
    assert count.item() == 0


def test_minimising_the_loss_puts_the_keypoint_on_the_thing() -> None:
    logits = torch.zeros(1, 1, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        pointing(logits).loss_and_count(label(0.31, -0.52))[0].backward()
        optimizer.step()
    torch.testing.assert_close(spatial_softmax(logits.detach())[0, 0], torch.tensor([0.31, -0.52]), atol=0.01, rtol=0)


def test_a_shifted_frame_is_asked_for_the_shifted_place() -> None:
    logits = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved, _ = pointing(logits, shift=(0.25, -0.125)).loss_and_count(label(0.35, 0.1))
    still, _ = pointing(logits).loss_and_count(label(0.1, 0.225))
    assert moved.item() == pytest.approx(still.item(), rel=1e-5)


def test_the_columns_of_a_camera_are_the_places_that_the_labels_say() -> None:
    empty = VectorSpec(names=(), units=(), low=(), high=())
    places = (("front", 1, 2), ("above", 0, 1), ("front", 3, 0))
    labels = VectorSpec(names=tuple("abcd"), units=("1",) * 4, low=(-1.0,) * 4, high=(1.0,) * 4, places=places)
    views = tuple(CameraSpec(name=name, height=8, width=8) for name in ("front", "wrist"))
    spec = WorldSpec(cameras=views, state=empty, action=empty, localization=labels, control_dt_s=0.1)
    assert pointing_columns(spec) == {"front": [[1, 2], [3, 0]], "wrist": []}
