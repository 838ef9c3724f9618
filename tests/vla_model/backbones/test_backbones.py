"""The decoder in two parts: what is read once per episode, and what is run at every decision."""

from __future__ import annotations

import pytest
import torch
from tiny_model import gradient, tiny_config
from torch import Tensor

from vla_model.backbones.decoder import Backbone, InstructionPrefix


@pytest.fixture(name="backbone")
def make_backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(tiny_config()).eval()


def some_instructions(*lengths: int, width: int = 24) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 2048, (len(lengths), width), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return ids, mask


def one_pass(backbone: Backbone, ids: Tensor, mask: Tensor, rest: Tensor) -> Tensor:
    """Hidden states of the rest, computed with the instruction in a single pass without a cache."""
    longest = int(mask.sum(1).max())
    embeddings = backbone.decoder.get_input_embeddings()(ids[:, :longest])
    positions = torch.cat([torch.arange(longest), torch.arange(rest.shape[1]) + backbone.rest_position])
    seen = torch.ones(len(rest), rest.shape[1], dtype=torch.bool)
    return backbone.decoder(
        inputs_embeds=torch.cat([embeddings, rest], dim=1),
        attention_mask=torch.cat([mask[:, :longest], seen], dim=1),
        position_ids=positions[None],
        use_cache=False,
    ).last_hidden_state[:, longest:]


def test_prefix_and_rest_equal_one_full_forward_pass(backbone: Backbone) -> None:
    ids, mask = some_instructions(3, 24, 11)
    rest = torch.randn(3, 7, 32)
    torch.testing.assert_close(
        backbone(backbone.prefill(ids, mask), rest), one_pass(backbone, ids, mask, rest), atol=1e-5, rtol=1e-5
    )


def test_gradients_through_both_parts_equal_those_of_one_full_pass(backbone: Backbone) -> None:
    ids, mask = some_instructions(3, 5)
    rest = torch.randn(2, 7, 32)
    gradients = []
    for hidden in (backbone(backbone.prefill(ids, mask), rest), one_pass(backbone, ids, mask, rest)):
        backbone.zero_grad()
        hidden.square().sum().backward()
        gradients.append([gradient(p).clone() for p in backbone.parameters()])
    assert gradients[0][0].abs().sum() > 0
    for ours, full in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, full, atol=1e-4, rtol=1e-4)


def test_padding_and_other_rows_of_the_batch_change_nothing(backbone: Backbone) -> None:
    ids, mask = some_instructions(3, 24, 11)
    rest = torch.randn(3, 7, 32)
    together = backbone(backbone.prefill(ids, mask), rest)
    alone = backbone(backbone.prefill(ids[:1, :3], mask[:1, :3]), rest[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    other_padding = torch.where(mask, ids, 7)
    torch.testing.assert_close(backbone(backbone.prefill(other_padding, mask), rest), together, atol=1e-5, rtol=1e-5)


def test_prefixes_can_be_concatenated_and_indexed(backbone: Backbone) -> None:
    ids, mask = some_instructions(3, 24, 11)
    rest = torch.randn(3, 7, 32)
    parts = [backbone.prefill(ids[n : n + 1], mask[n : n + 1]) for n in range(3)]
    together = InstructionPrefix.concatenate(parts)
    torch.testing.assert_close(together.summary, backbone.prefill(ids, mask).summary, atol=1e-5, rtol=1e-5)
    expected = one_pass(backbone, ids, mask, rest)
    torch.testing.assert_close(backbone(together, rest), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        backbone(together.rows(torch.tensor([2, 0])), rest[[2, 0]]), expected[[2, 0]], atol=1e-5, rtol=1e-5
    )


def test_a_prefix_can_be_reused(backbone: Backbone) -> None:
    prefix = backbone.prefill(*some_instructions(4, 6))
    rest = torch.randn(2, 7, 32)
    first = backbone(prefix, rest)
    backbone(prefix, torch.randn(2, 9, 32))
    assert torch.equal(backbone(prefix, rest), first)


def test_summary_is_the_mean_of_the_real_tokens(backbone: Backbone) -> None:
    ids, mask = some_instructions(3, 24)
    hidden = backbone.decoder(inputs_embeds=backbone.decoder.get_input_embeddings()(ids[:1, :3])).last_hidden_state
    torch.testing.assert_close(backbone.prefill(ids, mask).summary[0], hidden[0].mean(0), atol=1e-5, rtol=1e-5)


def test_attention_is_causal(backbone: Backbone) -> None:
    prefix = backbone.prefill(*some_instructions(5))
    rest = torch.randn(1, 7, 32)
    changed = torch.cat([rest[:, :4], torch.randn(1, 3, 32)], dim=1)
    difference = (backbone(prefix, rest) - backbone(prefix, changed)).abs().amax(-1)[0]
    assert difference[:4].max() < 1e-6 < difference[4:].min()
