"""Upcycling: a policy with one expert per layer, trained, becomes one with several that begins where it was.

Komatsuzaki et al. 2023, "Sparse Upcycling": every expert starts as a copy of the dense layer and routers start random.
Weights of the chosen experts sum to 1, so the output is the dense one whatever the routers say, until training parts
the copies. What a decoupled weight adds to the router's is shared among the k chosen ones.
"""

from __future__ import annotations

import copy
from typing import Any

from vla_model.config import VLAConfig
from vla_model.model import VLA


def upcycle(model: VLA, num_experts: int, top_k_experts: int) -> VLA:
    """A model with E experts in each layer of the action head and everything else as it was; the given one is kept.

    Raises:
        ValueError: the model has more than one expert already, or top_k_experts is not within 1..num_experts.
    """
    if model.config.num_experts != 1:
        raise ValueError(f"only a head of one expert per layer can be upcycled, not one of {model.config.num_experts}")
    fields: dict[str, Any] = model.config.to_dict() | {"num_experts": num_experts, "top_k_experts": top_k_experts}
    grown = VLA(VLAConfig(**fields), decoder=copy.deepcopy(model.backbone.decoder))
    dense = model.state_dict()
    for name, fresh in grown.state_dict().items():
        if name.endswith(".router.adapter"):
            fresh.copy_(dense[name] / top_k_experts)
        elif ".router." not in name:
            fresh.copy_(dense[name])
    return grown.to(model.queries.device)
