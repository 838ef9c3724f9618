"""Fine-tuning modes: which weights of a VLA are trained, and low-rank adapters for its decoder.

    full    all weights
    lora    the heads, and low-rank adapters in the decoder: y = W x + alpha / rank * B A x   (Hu et al. 2021)
    head    the heads: the action head, and the value head where there is one

With `towers` everything around the decoder is trained too, as a pretrained language model needs; `head` then freezes
the decoder alone. All other weights are frozen; a learner optimises those that require a gradient. Adapters have no
dropout, which would make the learner's probabilities differ from the worker's. peft injects them into the decoder and
changes names of weights; `merged_state_dict` gives the plain model's names, which workers load and policy folders have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from envs.errors import UserError
from vla_model.model import VLA
from vla_model.weights.config import FineTuning

_HEADS = ("action_head.", "value_head.")
"""Prefixes of the names of the heads' weights."""
_DECODER = "backbone."
_IMAGE_ENCODER = "image_encoder."
_LORA = ".lora_"
"""Substring of the names of all adapters' weights."""


def prepare(model: VLA, fine_tuning: FineTuning) -> None:
    """Freeze and unfreeze the weights of a plain model, and inject adapters, in place. New adapters compute 0.

    The adapters are initialised from torch's global generator.

    Raises:
        UserError: the mode is lora, and the decoder has no linear layer of one of the names.
    """
    if fine_tuning.mode == "lora":
        import peft

        _check_targets(model, fine_tuning.lora_targets)
        peft.inject_adapter_in_model(lora_config(fine_tuning), model.backbone.decoder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_learns(name, fine_tuning))


def linear_layers(model: VLA) -> tuple[str, ...]:
    """Last parts of the names of the decoder's linear layers, each once: the possible LoRA targets. The experts and
    routers of Mixtral and Grok-1 are no linear layers.
    """
    named = model.backbone.decoder.named_modules()
    return tuple(dict.fromkeys(name.rsplit(".", 1)[-1] for name, layer in named if isinstance(layer, nn.Linear)))


def adaptable(model: VLA, fine_tuning: FineTuning) -> FineTuning:
    """The fine-tuning without LoRA targets that the decoder lacks."""
    known = linear_layers(model)
    return replace(fine_tuning, lora_targets=tuple(name for name in fine_tuning.lora_targets if name in known))


def _check_targets(model: VLA, targets: tuple[str, ...]) -> None:
    known = linear_layers(model)
    unknown = [target for target in targets if target not in known]
    if unknown or not targets:
        kind = model.backbone.decoder.config.model_type
        raise UserError(
            f"the decoder, a {kind}, has no linear layers {', '.join(unknown) or 'named'} to adapt; it has: "
            f"{', '.join(known)}. A decoder's experts and their router get no adapters; to adapt the rest alone: "
            f"--fine-tuning.lora-targets {' '.join(target for target in targets if target in known) or known[0]}"
        )


def lora_config(fine_tuning: FineTuning) -> Any:
    """The adapters as a peft config."""
    import peft

    return peft.LoraConfig(
        r=fine_tuning.lora_rank,
        lora_alpha=fine_tuning.lora_alpha,
        target_modules=list(fine_tuning.lora_targets),
        lora_dropout=0.0,
    )


def trained_state_dict(model: VLA, fine_tuning: FineTuning) -> dict[str, Tensor]:
    """The trained weights, without the adapters'."""
    state = model.state_dict()
    return {name: state[name] for name in state if _learns(name, fine_tuning) and _LORA not in name}


def frozen_state_dict(model: VLA, fine_tuning: FineTuning) -> dict[str, Tensor]:
    """The frozen weights, under the names of a plain model."""
    return {_plain(name): tensor for name, tensor in model.state_dict().items() if not _learns(name, fine_tuning)}


@torch.no_grad()
def merged_state_dict(model: VLA) -> dict[str, Tensor]:
    """The state_dict of the equivalent plain model: adapters are added to the weights that they adapt."""
    merged = {_plain(name): tensor for name, tensor in model.state_dict().items() if _LORA not in name}
    if hasattr(model.backbone.decoder, "peft_config"):
        from peft.tuners.lora import LoraLayer

        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                (adapter,) = layer.active_adapters
                merged[f"{name}.weight"] = merged[f"{name}.weight"] + layer.get_delta_weight(adapter)
    return merged


def _learns(name: str, fine_tuning: FineTuning) -> bool:
    learns = fine_tuning.mode == "full" or name.startswith(_HEADS) or _LORA in name
    learns |= fine_tuning.towers and not name.startswith(_DECODER)
    frozen = fine_tuning.freeze_router and ".router." in name
    frozen |= fine_tuning.freeze_image_encoder and name.startswith(_IMAGE_ENCODER)
    return learns and not frozen


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")
