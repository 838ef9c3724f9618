"""Number formats of a policy's weights for inference.

    float32    as saved; if the computation is in bfloat16, autocast casts them at every call
    bfloat16   matrices and convolutions of the decoder and the towers, and the experts of the head, cast once: the
               same products, half the memory. Token embeddings too; norms, routers and small heads stay float32.
    int8       matrices of the decoder as 8-bit integers with one scale per row; the rest as in bfloat16

A row of an 8-bit matrix is s_o W_o with W_o in -127..127 and s_o = max |row o| / 127. Its input is quantised per token,
x_t ~ r_t X_t, so that

    y_to = r_t s_o (X_t . W_o)       an integer product, exact in int32

(Dettmers et al. 2022, "LLM.int8()", section 2.1, "vector-wise quantization", without its separate treatment of
outliers.) Experts of a decoder (Mixtral, Grok-1) are no linear layers and are not quantised. 8-bit policies run on
CPUs; they cannot be trained or load other weights.

Shape letters: T tokens, O outputs, D inputs.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from envs.errors import UserError
from vla_model.config import VLAConfig
from vla_model.heads.moe import MixtureOfExperts
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName


class Int8Linear(nn.Module):
    """A linear layer with 8-bit weights, for CPUs and without gradients."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127.0
        self.values = nn.Buffer((weight / scale[:, None]).round().to(torch.int8))  # [O, D]
        self.scale = nn.Buffer(scale)  # [O]
        self.bias = None if layer.bias is None else nn.Buffer(layer.bias.detach().float())  # [O]

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., O] of the same dtype."""
        rows = x.flatten(0, -2).float()  # [T, D]
        step = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127.0  # [T, 1]
        product = torch._int_mm((rows / step).round().to(torch.int8), self.values.t())  # int32 [T, O]
        y = product.float() * step * self.scale
        return (y if self.bias is None else y + self.bias).to(x.dtype).unflatten(0, x.shape[:-1])


def narrow_model(config: VLAConfig) -> VLA:
    """A model with random weights for `load_policy` to fill, the large ones in bfloat16 from the beginning.

    Its decoder's activations have the dtype of the config.
    """
    assert isinstance(config.backbone, PretrainedConfig)
    narrow = copy.deepcopy(config.backbone)
    narrow.dtype = torch.bfloat16
    decoder = AutoModel.from_config(narrow)
    activations = config.backbone.dtype or torch.float32
    for parameter in decoder.parameters():
        if parameter.ndim < 2:
            parameter.data = parameter.data.to(activations)
    model = VLA(config, decoder)
    model.backbone.dtype = activations
    hold_weights(model, "bfloat16")
    return model


@torch.no_grad()
def hold_weights(model: VLA, dtype: DtypeName) -> None:
    """Change the format of a model's weights in place; "auto" leaves them as they are.

    Raises:
        UserError: "int8", and the model is not on a CPU.
    """
    if dtype in ("auto", "float32"):
        return
    device = model.queries.device
    if dtype == "int8" and device.type != "cpu":
        raise UserError(f"int8 is for CPUs, and the model is on {device}; choose bfloat16")
    decoder = model.backbone.decoder
    for parent in list(decoder.modules()) if dtype == "int8" else []:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, Int8Linear(layer))
    for module in (*decoder.modules(), *model.cameras.modules(), *model.action_head.layers):
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            module.to(torch.bfloat16)
        elif isinstance(module, MixtureOfExperts):
            for parameter in (module.gate_up, module.down, module.shared_gate_up, module.shared_down):
                if parameter is not None:
                    parameter.data = parameter.data.to(torch.bfloat16)
