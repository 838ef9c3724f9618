"""The mixture of experts, against loops written here and transformers' Mixtral."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_model import gradient
from torch import Tensor
from torch.nn import functional as F
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from vla_model.heads import moe
from vla_model.heads.moe import (
    MixtureOfExperts,
    Router,
    Routing,
    balance_experts,
    keep_balance,
    run_grouped,
    run_per_expert,
)


def seeded(*args: Any, **kwargs: Any) -> MixtureOfExperts:
    torch.manual_seed(0)
    return MixtureOfExperts(*args, **kwargs)


def expert(layer: MixtureOfExperts, e: int, x: Tensor) -> Tensor:
    gate, up = (layer.gate_up[e] @ x).chunk(2)
    return layer.down[e] @ (F.silu(gate) * up)


def test_output_has_the_shape_of_the_input() -> None:
    assert seeded(256, 5, 2)(torch.randn(32, 256)).shape == (32, 256)
    assert seeded(8, 5, 2)(torch.randn(2, 3, 4, 8)).shape == (2, 3, 4, 8)


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_each_row_is_the_weighted_sum_of_exactly_its_chosen_experts(top_k: int) -> None:
    layer = seeded(16, 5, top_k, hidden_size=12)
    x = torch.randn(30, 16)
    y = layer(x)
    probabilities = torch.softmax(x @ layer.router.weight.T, dim=-1)
    for row in range(30):
        chosen = probabilities[row].argsort(descending=True)[:top_k]
        share = probabilities[row, chosen] / probabilities[row, chosen].sum()
        expected = sum(w * expert(layer, int(e), x[row]) for w, e in zip(share, chosen, strict=True))
        torch.testing.assert_close(y[row], expected, atol=1e-5, rtol=1e-5)


def run(
    function: Callable[..., Tensor], dtype: torch.dtype, device: str, experts: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What 5 experts make of 40 tokens, and the gradients of the tokens and of both weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((40, 16), (5, 48, 16), (5, 16, 24))
    inputs = [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]
    tokens, gate_up, down = inputs
    y = function(tokens, experts.to(device), gate_up, down)
    return y.detach().float().cpu(), torch.autograd.grad(y.float().square().sum(), inputs)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped product")
@pytest.mark.parametrize(
    ("dtype", "device", "tolerance"),
    [
        (torch.float32, "cpu", 1e-5),
        pytest.param(
            torch.bfloat16,
            "cuda",
            2e-2,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
        ),
    ],
)
def test_a_grouped_product_gives_what_a_product_per_expert_gives(
    dtype: torch.dtype, device: str, tolerance: float
) -> None:
    one_has_none = torch.stack([torch.arange(40) % 4, (torch.arange(40) + 1) % 4], dim=-1)
    y, gradients = run(run_grouped, dtype, device, one_has_none)
    expected, expected_gradients = run(run_per_expert, dtype, device, one_has_none)
    assert y.shape == (40, 2, 16)
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped product")
def test_on_a_cpu_experts_run_at_once_where_each_has_few_tokens_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name in ("run_grouped", "run_per_expert"):
        function = getattr(moe, name)
        monkeypatch.setattr(moe, name, lambda *a, n=name, f=function: calls.append(n) or f(*a))
    for layer, tokens in ((seeded(16, 2, 1), 512), (seeded(16, 2, 1), 513), (seeded(16, 2, 1).bfloat16(), 512)):
        layer(torch.randn(tokens, 16, dtype=layer.down.dtype))
    seeded(12, 2, 1)(torch.randn(8, 12))  # rows of 48 bytes, no multiple of eight numbers
    assert calls == ["run_grouped", "run_per_expert", "run_per_expert", "run_per_expert"]


def test_shared_expert_is_added_to_every_row() -> None:
    layer = seeded(16, 4, 2, hidden_size=12, shared_expert=True)
    x = torch.randn(10, 16)
    y = layer(x)
    assert layer.shared_gate_up is not None
    assert layer.shared_down is not None
    gate, up = (x @ layer.shared_gate_up.T).chunk(2, dim=-1)
    shared = (F.silu(gate) * up) @ layer.shared_down.T
    layer.shared_gate_up = layer.shared_down = None
    torch.testing.assert_close(y, layer(x) + shared, atol=1e-5, rtol=1e-5)


def test_gradients_reach_only_the_chosen_experts_and_the_router() -> None:
    layer = seeded(16, 6, 2)
    y, routing = layer.forward_with_routing(torch.randn(1, 16))
    y.sum().backward()
    chosen = set(routing.experts.flatten().tolist())
    for e in range(6):
        assert (gradient(layer.gate_up)[e].abs().sum() > 0) == (e in chosen)
        assert (gradient(layer.down)[e].abs().sum() > 0) == (e in chosen)
        # The weights are renormalised over the chosen, so a logit that was not chosen does not matter.
        assert (gradient(layer.router.weight)[e].abs().sum() > 1e-6) == (e in chosen)


def test_same_output_and_gradients_as_mixtral_with_the_same_weights() -> None:
    ours = seeded(32, 6, 2, hidden_size=48)
    config = MixtralConfig(hidden_size=32, intermediate_size=48, num_local_experts=6, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config)
    theirs.load_state_dict(
        {"gate.weight": ours.router.weight, "experts.gate_up_proj": ours.gate_up, "experts.down_proj": ours.down}
    )
    x = torch.randn(4, 9, 32)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    outputs = [layer(given) for layer, given in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.gate_up.grad, theirs.experts.gate_up_proj.grad, atol=1e-5, rtol=1e-5)


def test_router_stays_in_float32_under_autocast() -> None:
    layer, x = seeded(16, 5, 2), torch.randn(20, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y, routing = layer.forward_with_routing(x)
    assert (routing.logits.dtype, routing.weights.dtype, y.dtype) == (torch.float32, torch.float32, x.dtype)
    torch.testing.assert_close(routing.logits, x @ layer.router.weight.T)


def test_an_expert_that_nobody_chose_is_no_problem() -> None:
    layer, x = seeded(8, 4, 1), torch.randn(5, 8).abs()
    with torch.no_grad():
        layer.router.weight.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0])[:, None].expand(4, 8))
    y, routing = layer.forward_with_routing(x)
    assert routing.experts.unique().tolist() == [0]
    torch.testing.assert_close(y[3], expert(layer, 0, x[3]))


def routing_of(logits: Tensor, top_k: int) -> Routing:
    weights, experts = logits.softmax(-1).topk(top_k, dim=-1)
    return Routing(logits=logits, experts=experts, weights=weights / weights.sum(-1, keepdim=True))


def test_balanced_routing_has_a_load_balancing_loss_of_one() -> None:
    logits = 5.0 * torch.eye(4).repeat(3, 1)
    assert routing_of(logits, 1).load_balancing_loss().item() == pytest.approx(1.0)
    pairs = 5.0 * torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]])
    assert routing_of(pairs, 2).load_balancing_loss().item() == pytest.approx(1.0)


def test_routing_all_to_one_expert_has_a_load_balancing_loss_of_e() -> None:
    assert routing_of(torch.tensor([[40.0, 0, 0, 0]]).repeat(7, 1), 1).load_balancing_loss().item() == pytest.approx(4)


def test_router_z_loss_is_the_mean_squared_log_sum_exp() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    log4 = torch.log(torch.tensor(4.0)).item()
    assert routing_of(logits, 2).router_z_loss().item() == pytest.approx((log4**2 + (1 + log4) ** 2) / 2)


def test_usage_counts_the_choices_of_each_row() -> None:
    experts = torch.tensor([[[0, 1], [0, 2]], [[3, 1], [3, 1]]])  # [B, T, k]
    routing = Routing(logits=torch.zeros(2, 2, 4), experts=experts, weights=torch.full((2, 2, 2), 0.5))
    assert routing.usage().tolist() == [[0.5, 0.25, 0.25, 0.0], [0.0, 0.5, 0.0, 0.5]]


def test_more_experts_per_token_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"within 1\.\.num_experts = 1\.\.4, got 5"):
        MixtureOfExperts(8, 4, 5)


def test_decoupled_weights_begin_as_mixtrals_and_add_what_the_adapter_says() -> None:
    plain, decoupled = seeded(16, 5, 2), seeded(16, 5, 2, decoupled_weights=True)
    decoupled.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(30, 16)
    torch.testing.assert_close(decoupled(x), plain(x))
    assert decoupled.router.adapter is not None
    with torch.no_grad():
        decoupled.router.adapter.normal_()
    y, routing = decoupled.forward_with_routing(x)
    before = plain.forward_with_routing(x)[1]
    assert torch.equal(routing.experts, before.experts)
    for row in range(30):
        added = decoupled.router.adapter[routing.experts[row]] @ x[row]
        weights = before.weights[row] + added
        torch.testing.assert_close(routing.weights[row], weights)
        expected = sum(
            w * expert(decoupled, int(e), x[row]) for w, e in zip(weights, routing.experts[row], strict=True)
        )
        torch.testing.assert_close(y[row], expected, atol=1e-4, rtol=1e-4)


def test_a_bias_decides_who_is_chosen_and_not_how_much_it_counts() -> None:
    layer, x = seeded(16, 4, 2, balancing_rate=0.1), torch.randn(20, 16)
    assert layer.router.bias is not None
    layer.router.bias[3] = 2.0
    routing = layer.forward_with_routing(x)[1]
    assert (routing.experts == 3).any(-1).all()
    probabilities = routing.logits.softmax(-1).gather(-1, routing.experts)
    torch.testing.assert_close(routing.weights, probabilities / probabilities.sum(-1, keepdim=True))


def test_a_step_of_balancing_moves_biases_by_the_sign_of_what_is_missing() -> None:
    layer = seeded(8, 4, 1, balancing_rate=0.5).train()
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(4, 8))
    layer(torch.eye(4, 8)[[0, 0, 0, 1, 2, 2]] * 9)  # counts 3, 1, 2, 0; their mean is 1.5
    layer.eval()
    layer(torch.eye(4, 8))  # What is not training does not count.
    balance_experts(layer)
    assert layer.router.bias is not None
    assert layer.router.bias.tolist() == [-0.5, 0.5, -0.5, 0.5]
    balance_experts(layer)
    assert layer.router.bias.tolist() == [-0.5, 0.5, -0.5, 0.5], "nothing was counted since"


def test_shares_of_a_batch_are_balanced_by_the_tokens_of_all() -> None:
    """Two processes with 3, 1, 2, 0 and 0, 3, 0, 3 tokens: 3, 4, 2, 3 together, whose mean is 3."""
    layer = seeded(8, 4, 1, balancing_rate=0.5).train()
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(4, 8))
    layer(torch.eye(4, 8)[[0, 0, 0, 1, 2, 2]] * 9)
    balance_experts(layer, lambda counts: counts + torch.tensor([0, 3, 0, 3]))
    assert layer.router.bias is not None
    assert layer.router.bias.tolist() == [0.0, -0.5, 0.5, 0.0]


@pytest.mark.parametrize("how", ["frozen", "kept"])
def test_a_router_that_does_not_learn_keeps_its_biases(how: str) -> None:
    layer = seeded(8, 4, 1, balancing_rate=0.5).train()
    if how == "frozen":
        layer.router.weight.requires_grad_(False)
    else:
        keep_balance(layer)
    layer(torch.randn(9, 8))
    balance_experts(layer)
    assert layer.router.bias is not None
    assert not layer.router.bias.any()


def test_balancing_spreads_tokens_that_all_wanted_one_expert() -> None:
    layer, x = seeded(16, 4, 1, balancing_rate=0.02).train(), torch.randn(400, 16)
    x[:, 0] += 3.0
    with torch.no_grad():
        layer.router.weight.mul_(0.3)
        layer.router.weight[1] = 0.8 * torch.eye(16)[0]
    usage = []
    for _ in range(80):
        usage.append(layer.forward_with_routing(x)[1].usage().mean(0))
        balance_experts(layer)
    assert usage[0].max() > 0.7
    assert torch.stack(usage[-20:]).mean(0).max() < 0.35


def test_without_a_rate_a_state_dict_has_no_biases() -> None:
    assert seeded(8, 4, 2).state_dict().keys() == {"router.weight", "gate_up", "down"}
    assert "router.bias" in seeded(8, 4, 2, balancing_rate=0.1).state_dict()


@pytest.mark.parametrize("balancing_rate", [0.0, 0.1])
def test_leaving_out_an_expert_is_a_layer_of_the_others(balancing_rate: float) -> None:
    torch.manual_seed(0)
    layer = MixtureOfExperts(16, num_experts=4, top_k_experts=2, balancing_rate=balancing_rate)
    others = MixtureOfExperts(16, num_experts=3, top_k_experts=2, balancing_rate=balancing_rate)
    keep = torch.tensor([0, 2, 3])
    state = layer.state_dict()
    others.load_state_dict({name: tensor[keep] for name, tensor in state.items()})
    x = torch.randn(50, 16)
    whole = layer(x)
    layer.router.leave_out(1)
    torch.testing.assert_close(layer(x), others(x))
    assert layer.forward_with_routing(x)[1].usage()[:, 1].max() == 0.0
    layer.router.leave_out(None)
    assert torch.equal(layer(x), whole)


def test_an_expert_that_does_not_exist_or_that_all_tokens_need_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="experts: 0 to 3"):
        MixtureOfExperts(8, num_experts=4, top_k_experts=2).router.leave_out(4)
    with pytest.raises(ValueError, match="all 2 experts"):
        MixtureOfExperts(8, num_experts=2, top_k_experts=2).router.leave_out(0)


@pytest.mark.parametrize("why", ["left out", "bias"])
def test_weights_of_experts_whose_probabilities_underflow_are_the_softmax_over_the_chosen(why: str) -> None:
    router = Router(4, 4, 2, decoupled_weights=False, balancing_rate=0.001 if why == "bias" else 0.0)
    router.weight.data.copy_(torch.eye(4))
    if router.bias is not None:
        router.bias.copy_(torch.tensor([-3.0, 0.0, 0.5, 1.0]))  # the sure expert is overfull
    else:
        router.leave_out(0)
    routing = router(torch.tensor([[200.0, -1.0, 1.0, 2.0]]))
    assert routing.experts.tolist() == [[3, 2]]
    e = math.e  # softmax of (2, 1)
    torch.testing.assert_close(routing.weights, torch.tensor([[e / (1 + e), 1 / (1 + e)]]))


def test_the_most_wanted_of_experts_whose_probabilities_underflow_is_chosen() -> None:
    router = Router(4, 4, 1, decoupled_weights=False, balancing_rate=0.0)
    router.weight.data.copy_(torch.eye(4))
    router.leave_out(0)
    assert router(torch.tensor([[500.0, 0.0, 7.0, 3.0]])).experts.tolist() == [[2]]


def test_an_expert_is_dead_that_gets_under_a_twenty_fifth_of_an_even_share_however_many_there_are() -> None:
    """Of 4 experts an even share is 25 % and 1 % is the limit; of 200, among which all is even, nobody is dead."""
    choices = torch.tensor([0] * 97 + [1] * 2 + [2] * 1)[:, None]  # 97, 2, 1 and 0 %
    few = Routing(logits=torch.zeros(100, 4), experts=choices, weights=torch.ones(100, 1))
    assert int(few.num_dead_experts()) == 1
    fewer = Routing(logits=torch.zeros(200, 4), experts=torch.cat([choices, choices * 0]), weights=torch.ones(200, 1))
    assert int(fewer.num_dead_experts()) == 2  # 98.5, 1, 0.5 and 0 %: the last two
    many = Routing(logits=torch.zeros(200, 200), experts=torch.arange(200)[:, None], weights=torch.ones(200, 1))
    assert int(many.num_dead_experts()) == 0
