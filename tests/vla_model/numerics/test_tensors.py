"""Batches taken by the tensor."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny_model import tiny_config

from vla_model.inputs.inputs import fake_inputs
from vla_model.numerics.tensors import each_tensor, tensors_of


def test_tensors_of_a_batch_come_in_the_order_of_its_fields() -> None:
    inputs = replace(fake_inputs(tiny_config(), 2), light=torch.ones(2, 3))
    frames = list(inputs.frames.values())
    expected = [*frames, inputs.state, inputs.instruction_ids, inputs.instruction_mask, inputs.light]
    assert all(found is tensor for found, tensor in zip(tensors_of(inputs), expected, strict=True))


def test_each_tensor_keeps_none_and_does_not_change_the_original() -> None:
    inputs = fake_inputs(tiny_config(), 3)
    some = each_tensor(inputs, lambda tensor: tensor[[2, 0]])
    assert list(some.frames) == list(inputs.frames)
    assert some.light is None
    assert some.past_frames is None
    for new, old in zip(tensors_of(some), tensors_of(inputs), strict=True):
        assert torch.equal(new, old[[2, 0]])
    assert len(inputs.state) == 3
