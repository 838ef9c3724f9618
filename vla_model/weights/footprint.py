"""Estimate of a model's memory (RSS) from its shape, for inference and for training on a batch.

    acting      process + weights (or their loading, if that is more) + work
    learning    process + weights + moving average + AdamW's two moments (Muon keeps one)
                + samples + weights cast for products, by each part of a batch + activations of all parts + work
                + gradients of each part, and their mean

Activations are freed when the gradients exist, yet both count: each part has a thread, and the C library returns memory
that one thread freed neither to other threads nor to the system.

Weights, moments and gradients are counts of parameters times bytes; the counts come from the model itself, built on
the meta device. Activations are counted layer by layer from what autograd saves (tensors saved by several operations
count once), which depends on what is trained:

    "trained"   trained weights: inputs of linear layers, for the gradients of their weights, and all later ones
    "lora"      frozen weights with low-rank adapters: the same without the norms' inputs for their weights
    "backprop"  frozen weights that gradients pass through: no inputs of linear layers
    "frozen"    frozen weights without a gradient: nothing

Every decoder is counted as LLaMA layers with its own widths, heads and active experts, without the extra norms of some
families; every camera's tower as "conv". "Work" is the temporary memory of the largest operation and of compiled
kernels.

Shape letters: B batch, I instruction tokens, R other tokens, n tokens, m tokens that they attend to, d decoder width,
h heads, c head size, f MLP width, K chunk size, C channels, M keypoints, H x W pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from transformers import PretrainedConfig

from vla_model.backbones.pretrained import first_layers
from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.weights.finetune import FineTuning, adaptable, prepare

Regime = Literal["trained", "lora", "backprop", "frozen"]

PROCESS_GB = 0.49
"""RSS of a process after importing all that training needs."""
KERNELS_GB = 0.05
"""oneDNN's compiled kernels for the shapes of a training step."""
ITEM_BYTES: dict[DtypeName, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of one number."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Parameter counts of the parts of a model."""

    total: int
    decoder: int
    """Of the total, in the decoder."""
    embeddings: int
    """Of the decoder, in its token embeddings."""
    products: int
    """Of the total, in matrices of products."""
    decoder_products: int
    """Of the products, in the decoder."""
    decoder_matrices: int
    """Of those, in linear layers, which can be quantised to 8 bits."""
    learning: int
    """Trained ones, adapters included."""
    largest_learning: int
    """In the largest trained tensor."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes by purpose."""

    process: float = 1e9 * PROCESS_GB
    weights: float = 0.0
    average: float = 0.0
    """Moving average (EMA) of the weights, which becomes the policy."""
    moments: float = 0.0
    gradients: float = 0.0
    samples: float = 0.0
    casts: float = 0.0
    activations: float = 0.0
    work: float = 0.0
    loading: float = 0.0
    """Weights while loading, if that is more than afterwards."""

    @property
    def total(self) -> float:
        """Peak."""
        held = self.process + self.weights + self.average + self.moments
        computing = self.samples + self.casts + self.activations + self.work + self.gradients
        return max(held + computing, self.process + self.loading)


def count_parameters(config: VLAConfig, fine_tuning: FineTuning) -> Parameters:
    """With adapters for the LoRA targets that the decoder has.

    The layers of a decoder are alike, so models with one and two of them are counted: building all 126 layers of the
    largest takes seconds, even without memory.
    """
    assert isinstance(config.backbone, PretrainedConfig)
    more = config.backbone.num_hidden_layers - 1
    if more <= 1:
        return _counted(config, fine_tuning)
    one, two = (_counted(_with_layers(config, number), fine_tuning) for number in (1, 2))
    per_layer = {field.name: getattr(two, field.name) - getattr(one, field.name) for field in fields(Parameters)}
    return Parameters(**{name: getattr(one, name) + more * count for name, count in per_layer.items()})


def _with_layers(config: VLAConfig, number: int) -> VLAConfig:
    shallow = copy.deepcopy(config)
    assert isinstance(shallow.backbone, PretrainedConfig)
    first_layers(shallow.backbone, number)
    return shallow


def _counted(config: VLAConfig, fine_tuning: FineTuning) -> Parameters:
    """Of a model built on the meta device."""
    with torch.device("meta"):
        model = VLA(config)
        prepare(model, adaptable(model, fine_tuning))
    named = dict(model.named_parameters())
    table = model.backbone.decoder.get_input_embeddings().get_parameter("weight")
    products = {name for name, p in named.items() if p.ndim >= 2 and p is not table}
    decoder = {name for name in named if name.startswith("backbone.")}
    learning = [p.numel() for p in named.values() if p.requires_grad]

    def count(names: set[str]) -> int:
        return sum(named[name].numel() for name in names)

    return Parameters(
        total=count(set(named)),
        decoder=count(decoder),
        embeddings=table.numel(),
        products=count(products),
        decoder_products=count(products & decoder),
        decoder_matrices=count({name for name in products & decoder if named[name].ndim == 2}),
        learning=sum(learning),
        largest_learning=max(learning, default=0),
    )


def acting(config: VLAConfig, dtype: DtypeName, num_worlds: int = 1, counts: Parameters | None = None) -> Footprint:
    """A process that acts in some worlds with weights in a number format (weights/weight_formats.py).

    Args:
        dtype: of the weights.
        num_worlds: in one batch.
        counts: of the model, if already counted.
    """
    counts = counts or count_parameters(config, FineTuning())
    item = 4 if dtype == "float32" else 2
    held = counts.products + counts.embeddings
    quantised = counts.decoder_matrices if dtype == "int8" else 0
    loading = item * held + 4 * (counts.total - held)
    weights = loading - (item - 1) * quantised
    loading += quantised  # into separate memory, layer by layer
    kept = num_worlds * config.instruction_length * _key_value_numbers(config) * item
    work = num_worlds * _work_bytes(config, item)
    return Footprint(weights=float(weights + kept), work=float(work), loading=float(loading))


def learning(
    config: VLAConfig,
    fine_tuning: FineTuning,
    batch_size: int,
    *,
    num_parts: int = 2,
    compute: DtypeName = "bfloat16",
    decoder: DtypeName = "float32",
    counts: Parameters | None = None,
) -> Footprint:
    """Peak of a learner's process, after a few updates.

    Args:
        fine_tuning: which weights are trained.
        batch_size: B, of all parts together.
        num_parts: of a batch, computed in parallel.
        compute: number format of products.
        decoder: number format of the decoder's weights; bfloat16 if they are frozen.
        counts: of the model, if already counted.
    """
    counts = counts or count_parameters(config, fine_tuning)
    item, narrow, regime = ITEM_BYTES[compute], decoder != "float32", decoder_regime(fine_tuning)
    weights = 4 * counts.total - (2 * counts.decoder if narrow else 0)
    # The prefix and the rest pass the decoder one after the other, and each casts its weights.
    casts = 0 if narrow or regime == "frozen" else 1 if regime == "backprop" else 2
    cast = counts.products + (casts - 1) * counts.decoder_products
    parts_and_mean = num_parts + 1 if num_parts > 1 else 1
    stacked = num_parts * counts.largest_learning if num_parts > 1 else 0
    return Footprint(
        weights=float(weights),
        average=float(weights),
        moments=8.0 * counts.learning,
        gradients=4.0 * (parts_and_mean * counts.learning + stacked),
        samples=float(3 * batch_size * _frame_bytes(config)),
        casts=float(num_parts * cast * item) if item < 4 else 0.0,
        activations=float(batch_size * activation_bytes(config, fine_tuning, item)),
        work=1e9 * KERNELS_GB + batch_size * _work_bytes(config, item),
    )


def decoder_regime(fine_tuning: FineTuning) -> Regime:
    """The regime of the decoder's layers."""
    if fine_tuning.mode == "full":
        return "trained"
    if fine_tuning.mode == "lora":
        return "lora"
    return "backprop" if fine_tuning.towers else "frozen"


def activation_bytes(config: VLAConfig, fine_tuning: FineTuning, item: int) -> float:
    """What autograd saves for one sample.

    Args:
        item: bytes of a number in products.
    """
    regime = decoder_regime(fine_tuning)
    towers: Regime = "trained" if fine_tuning.mode == "full" or fine_tuning.towers else "frozen"
    if towers == "frozen" and regime == "lora":
        towers = "backprop"  # to the instruction, which conditions them
    prefix, rest = config.instruction_length, _rest(config)
    # The prefix saves nothing unless weights of the decoder are trained.
    prefix_bytes = 0.0 if regime in ("frozen", "backprop") else _decoder_bytes(config, prefix, prefix, regime, item)
    rest_bytes = _decoder_bytes(config, rest, prefix + rest, regime, item)
    tower_bytes = sum(_tower_bytes(config, height, width, towers, item) for _, height, width in config.cameras or ())
    return prefix_bytes + rest_bytes + (config.history_length + 1) * tower_bytes + _head_bytes(config, item)


def _frame_bytes(config: VLAConfig) -> int:
    """Of the frames of a sample; a batch holds them, its parts, and their augmented copies."""
    pixels = sum(height * width for _, height, width in config.cameras or ())
    return 3 * pixels * (config.history_length + 1)


def _rest(config: VLAConfig) -> int:
    """R."""
    return config.num_tokens - config.instruction_length


def _decoder_bytes(config: VLAConfig, n: int, m: int, regime: Regime, item: int) -> float:
    """Of all layers, n tokens that attend to m."""
    if regime == "frozen":
        return 0.0
    d, h, c, f, layers = _shape(config)
    norms = 8 * n * d + (8 * n * d if regime == "trained" else 0)
    attention = item * n * h * c + 2 * item * m * h * c + (4 + (item if item < 4 else 0)) * h * n * m
    mlp = 3 * item * n * f
    # In half precision the inputs of q, k, v, gate and up are each cast separately.
    inputs = (5 if item < 4 else 2) * item * n * d + item * n * h * c + item * n * f
    return layers * (norms + attention + mlp + (inputs if regime != "backprop" else 0))


def _tower_bytes(config: VLAConfig, height: int, width: int, regime: Regime, item: int) -> float:
    """Of one camera's tower."""
    if regime == "frozen":
        return 0.0
    pixels, wide = height * width, config.vision_channels
    cells = pixels / 64
    heatmaps = cells * config.num_keypoints * (2 * item + 8)
    if regime == "backprop":  # from the FiLM blocks on
        return item * cells * wide * (2 + 3 * (config.vision_blocks - 1)) + heatmaps
    stem = 3 * item * pixels + 2 * item * (wide / 2) * pixels / 16
    # Inputs of norms, silus, modulations and convolutions.
    return stem + item * cells * wide * (3 + 5 * config.vision_blocks) + heatmaps


def _head_bytes(config: VLAConfig, item: int) -> float:
    """Of the layers of experts."""
    d, k = config.hidden_size, config.top_k_experts
    per_query = 8 * d + k * (3 * item * d + 5 * item * config.expert_size)
    return config.moe_layers * config.chunk_size * per_query


def _work_bytes(config: VLAConfig, item: int) -> float:
    """Temporary memory of the largest operation on one sample."""
    _, h, _, f, _ = _shape(config)
    n, m = _rest(config), config.num_tokens
    pixels = max(height * width for _, height, width in config.cameras or ((None, 0, 0),))
    return max(
        2 * 4 * h * n * m, 2 * item * n * f, 3 * 4 * pixels + 2 * item * (config.vision_channels / 2) * pixels / 16
    )


def _shape(config: VLAConfig) -> tuple[int, int, int, int, int]:
    """d, h, c, f over all active experts, and the number of layers."""
    backbone: Any = config.backbone
    heads = backbone.num_attention_heads
    head_size = getattr(backbone, "head_dim", None) or backbone.hidden_size // heads
    active = getattr(backbone, "num_experts_per_tok", 1)
    width = active * backbone.intermediate_size
    return backbone.hidden_size, heads, head_size, width, backbone.num_hidden_layers


def _key_value_numbers(config: VLAConfig) -> int:
    """Numbers in the key-value cache per token."""
    backbone: Any = config.backbone
    _, heads, head_size, _, layers = _shape(config)
    return 2 * layers * (getattr(backbone, "num_key_value_heads", None) or heads) * head_size
