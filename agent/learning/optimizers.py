"""The optimisers of a model's weights: AdamW, or Muon for the hidden matrices and AdamW for the rest.

- rate of a weight: learning rate x schedule, x value_rate in the value head, x muon_rate where Muon steps
- weight decay: on matrices outside the value head
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agent.learning.config import LearnerConfig
from agent.learning.muon import Each, Muon, is_hidden_matrix

_VALUE_HEAD = "value_head."


class Optimizers:
    """All weights of a model that are trained, and their optimisers' state."""

    def __init__(self, model: nn.Module, config: LearnerConfig) -> None:
        """
        Args:
            model: of which weights that require a gradient are trained.
        """
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values = [p for name, p in trained.items() if name.startswith(_VALUE_HEAD)]
        self.others = [p for name, p in trained.items() if not name.startswith(_VALUE_HEAD)]
        hidden, matrices, vectors = [], [], []
        for name, parameter in trained.items():
            if not name.startswith(_VALUE_HEAD):
                is_hidden = config.optimizer == "muon" and is_hidden_matrix(name, parameter)
                (hidden if is_hidden else matrices if parameter.ndim >= 2 else vectors).append(parameter)
        self._adamw = torch.optim.AdamW(
            [
                {"params": matrices, "decay": config.weight_decay, "rate": 1.0},
                {"params": vectors, "decay": 0.0, "rate": 1.0},
                {"params": self.values, "decay": 0.0, "rate": config.value_rate},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self._by_name: dict[str, torch.optim.Optimizer] = {"optimizer": self._adamw}
        """By the first part of their state's names in a file."""
        self._muon: Muon | None = None
        if hidden:
            group = {"params": hidden, "decay": config.weight_decay, "rate": config.muon_rate}
            self._muon = Muon([group], lr=config.learning_rate, weight_decay=config.weight_decay)
            self._by_name["muon"] = self._muon

    def step(self, learning_rate: float, *, decays: bool, each: Each = map) -> None:
        """One step of all, and no gradient afterwards.

        Args:
            learning_rate: of this step.
            decays: whether weights decay in this step.
            each: see Muon.step.
        """
        for optimizer in self._by_name.values():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["rate"]
                group["weight_decay"] = group["decay"] * decays
        self._adamw.step()
        if self._muon is not None:
            self._muon.step(each=each)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for optimizer in self._by_name.values():
            optimizer.zero_grad()

    def reset(self) -> None:
        """Forget all moments."""
        for optimizer in self._by_name.values():
            optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """All moments, by name."""
        return {
            f"{optimizer_name}.{index}.{name}": value
            for optimizer_name, optimizer in self._by_name.items()
            for index, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` gave, of names that other tensors may stand between.

        Raises:
            RuntimeError: it is of another optimiser or of other weights.
        """
        states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in ("optimizer", "muon")}
        for full_name, value in tensors.items():
            optimizer_name, _, rest = full_name.partition(".")
            if optimizer_name in states:
                index, name = rest.split(".", 1)
                states[optimizer_name].setdefault(int(index), {})[name] = value
        for name, state in states.items():
            optimizer = self._by_name.get(name)
            count = 0 if optimizer is None else sum(len(group["params"]) for group in optimizer.param_groups)
            if state and state.keys() != set(range(count)):
                raise RuntimeError(f"{name!r} has the state of {len(state)} weights, expected {count}")
            if optimizer is not None:
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": state, "param_groups": groups})
