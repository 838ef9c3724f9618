"""Cost of the model: inference, a training step, and experts against one dense layer.

    python -m benchmarks.model --out docs/results/model.md

    python -m benchmarks.model --device cuda --shapes 256 4096 512 4096 1024 16384 --out docs/results/model_gpu.md

On the CPU with one thread; times are medians of this process's CPU time, so that other load on the machine counts less;
memory bandwidth and caches are still shared, so compare rows of one table, not tables of different days.
On a GPU they are medians of wall-clock time until the GPU has finished.

Shape letters: N worlds, B batch, T tokens.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, MixtralConfig

from agent.algorithms.sft import SFTEncoder, sft_loss
from agent.algorithms.sft_config import SFTConfig
from agent.runs.run_folder import machine
from benchmarks.document import finish, head
from benchmarks.untrained import untrained
from envs.make import make_world
from envs.types import Observation, WorldSpec
from rollout.dataset.batches import Batch
from vla_model.heads.moe import MixtureOfExperts
from vla_model.inputs.inputs import fake_inputs
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.dtypes import DtypeName
from vla_model.policy import VLAPolicy
from vla_model.weights.weight_formats import hold_weights

DTYPES: dict[DtypeName, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SENTENCE = "pick up the red cube and put it into the blue bowl"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    model: str = "nano"
    """The model: a size, smol, or a path."""
    world: str = "tabletop"
    num_worlds: tuple[int, ...] = (1, 16)
    """Numbers of worlds N per inference, a row for each."""
    batch_size: int = 64
    """Batch sizes B of a training step."""
    device: Literal["cpu", "cuda"] = "cpu"
    shapes: tuple[tuple[int, int], ...] = ((128, 512), (256, 512), (256, 4096), (512, 512), (512, 4096))
    """Token size and number of tokens of the layers of experts."""
    repeats: int = 20
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def clock_s(device: str) -> float:
    """CPU time of this process so far; on a GPU, the wall-clock time after synchronising."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def median_ms(function: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Median milliseconds of a call, after two warm-up calls."""
    return medians_ms([function], repeats, device)[0]


def medians_ms(functions: Sequence[Callable[[], object]], repeats: int, device: str = "cpu") -> list[float]:
    """The same for several calls, taken in turns so that all run under the same machine load."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 2):
        for function, its in zip(functions, times, strict=True):
            began = clock_s(device)
            function()
            its.append(1000.0 * (clock_s(device) - began))
    return [float(np.median(its[2:])) for its in times]


def noise(world_spec: WorldSpec, num_worlds: int) -> Observation:
    """Observations of N worlds, with coloured noise as frames."""
    rng = np.random.default_rng(0)
    return Observation(
        frames={
            c.name: rng.integers(0, 256, (num_worlds, c.height, c.width, 3), dtype=np.uint8) for c in world_spec.cameras
        },
        state=rng.normal(size=(num_worlds, world_spec.state.size)).astype(np.float32),
        instruction=(SENTENCE,) * num_worlds,
    )


def acting(options: Options, world_spec: WorldSpec, dtype: DtypeName) -> tuple[VLA, Processor]:
    """Model and processor of an inference-only policy, with weights held in its compute dtype."""
    model, processor = untrained(world_spec, options.model, DTYPES[dtype])
    hold_weights(model, dtype)
    return model.to(options.device).eval(), processor


def decisions(options: Options, world_spec: WorldSpec) -> Iterator[str]:
    """Table of `VLAPolicy.act`, frames in and actions out, with the instruction's prefix cached."""
    yield "| worlds | float32 ms | bfloat16 ms |"
    yield "|---|---|---|"
    policies = [VLAPolicy(*acting(options, world_spec, name), dtype=name).to(options.device) for name in DTYPES]
    for num_worlds in options.num_worlds:
        observation = noise(world_spec, num_worlds)
        cells = []
        for policy in policies:
            policy.begin(range(num_worlds), observation["instruction"], tuple(range(num_worlds)))
            decide = partial(policy.act, range(num_worlds), observation)
            cells.append(f"{median_ms(decide, options.repeats, options.device):.1f}")
        yield f"| {num_worlds} | {' | '.join(cells)} |"


def prefixes(options: Options, world_spec: WorldSpec) -> Iterator[str]:
    """Table of the model's inference time, with a full instruction's prefix cached and without."""
    yield "| computed in | with ms | without ms | ratio |"
    yield "|---|---|---|---|"
    for name, dtype in DTYPES.items():
        model, _ = acting(options, world_spec, name)
        inputs = fake_inputs(model.config, batch_size=1).to(options.device)
        inputs = dataclasses.replace(inputs, instruction_mask=torch.ones_like(inputs.instruction_mask))
        with torch.inference_mode(), torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            prefix = model.encode_instruction(inputs)
            ways = [lambda: model(inputs, prefix), lambda: model(inputs)]  # noqa: B023
            cached, whole = medians_ms(ways, options.repeats, options.device)
        yield f"| {name} | {cached:.1f} | {whole:.1f} | {cached / whole:.2f} |"


def training(options: Options, world_spec: WorldSpec) -> Iterator[str]:
    """Table of a behaviour cloning step: forward, backward, clipping, AdamW, 12 instruction tokens each; and of its
    multiplications, against those of a large matrix product in the same time.
    """
    model, processor = untrained(world_spec, options.model)
    config, size, rng = model.train().config, options.batch_size, np.random.default_rng(0)
    observation = noise(world_spec, size)
    rows = Batch(
        frames=observation["frames"],
        state=observation["state"],
        instruction_id=np.zeros(size, np.int64),
        action=rng.uniform(-1, 1, (size, config.chunk_size, config.action_size)).astype(np.float32),
        mask=np.ones((size, config.chunk_size), bool),
        ended=np.zeros((size, config.chunk_size), bool),
        localization=rng.uniform(-1, 1, (size, config.localization_size)).astype(np.float32),
        episode=np.zeros(size, np.int64),
    )
    batch = SFTEncoder(processor, [SENTENCE], config, seed=0)(rows, 0).to(torch.device(options.device))
    batch.inputs.instruction_ids[:, 0] = torch.arange(size)  # no shared prefixes: they are computed once
    model.to(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(dtype: torch.dtype) -> None:
        with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
            loss, _ = sft_loss(model, batch, SFTConfig())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step(torch.bfloat16)  # each expert is one matrix product, which torch counts
    gflop = counter.get_total_flops() / 1e9
    yield "| computed in | step ms | samples/s | GFLOP per sample | GFLOP/s | of a matrix product's |"
    yield "|---|---|---|---|---|---|"
    for name, dtype in DTYPES.items():
        matrix = torch.randn(_MATRIX, _MATRIX, device=options.device, dtype=dtype)
        ways = partial(step, dtype), partial(torch.mm, matrix, matrix)
        milliseconds, product = medians_ms(ways, options.repeats, options.device)
        rate, most = gflop / milliseconds * 1e3, 2 * _MATRIX**3 / product / 1e6
        samples = f"{1e3 * size / milliseconds:.0f} | {gflop / size:.3f}"
        yield f"| {name} | {milliseconds:.0f} | {samples} | {rate:.0f} | {100 * rate / most:.0f} % of {most:.0f} |"


_MATRIX = 1024
"""Rows and columns of the product that a step is measured against."""


class DenseLayer(nn.Module):
    """A gated MLP as wide as a token's k experts together: the same multiplications, no router."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(size, 2 * hidden_size, bias=False)
        self.down = nn.Linear(hidden_size, size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[T, size] -> [T, size]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


def mixtral(size: int) -> nn.Module:
    """transformers' own experts of the same shape, run with its default implementation."""
    config = MixtralConfig(
        hidden_size=size, intermediate_size=2 * size, num_local_experts=8, num_experts_per_tok=2, num_hidden_layers=1
    )
    block = AutoModel.from_config(config).layers[0].mlp
    return nn.Sequential(nn.Unflatten(0, (1, -1)), block, nn.Flatten(0, 1))


def experts(options: Options) -> Iterator[str]:
    """Table of a forward and backward pass through 8 experts, 2 per token."""
    yield "| size | tokens | computed in | dense ms | experts ms | ratio | Mixtral's ms |"
    yield "|---|---|---|---|---|---|---|"
    for size, num_tokens in options.shapes:
        layers = DenseLayer(size, 4 * size), MixtureOfExperts(size, 8, 2, hidden_size=2 * size), mixtral(size)
        layers = tuple(layer.to(options.device) for layer in layers)
        x = torch.randn(num_tokens, size, device=options.device, requires_grad=True)
        for name, dtype in DTYPES.items():

            def both_ways(layer: nn.Module, dtype: torch.dtype = dtype, x: torch.Tensor = x) -> None:
                with torch.autocast(options.device, dtype, enabled=dtype != torch.float32):
                    y = layer(x)
                y.float().square().mean().backward()

            ways = [partial(both_ways, layer) for layer in layers]
            dense, sparse, theirs = medians_ms(ways, options.repeats, options.device)
            ratio = sparse / dense
            yield f"| {size} | {num_tokens} | {name} | {dense:.1f} | {sparse:.1f} | {ratio:.2f} | {theirs:.1f} |"


def where(options: Options) -> str:
    """The hardware, and which time is measured."""
    if options.device == "cuda":
        return f"Medians of wall-clock time on one {torch.cuda.get_device_name()}"
    return f"Medians of CPU time of one thread of {machine()['cpu']}"


def main(options: Options) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world_spec = make_world(options.world).world_spec
    num_parameters = sum(p.numel() for p in untrained(world_spec, options.model)[0].parameters())
    cameras = " and ".join(f"{c.height} x {c.width}" for c in world_spec.cameras)
    conditions = (
        f"{num_parameters / 1e6:.2f} M parameters, cameras of {cameras} pixels. "
        f"{where(options)}, torch {torch.__version__}."
    )
    lines = [
        *head(f"What {options.model} costs on a {'GPU' if options.device == 'cuda' else 'CPU'}", "model", conditions),
        "",
        "An inference, with weights in the computation's number format and cached keys and values:",
        "",
        *decisions(options, world_spec),
        "",
        "The model alone, one world, an instruction of 24 tokens, with its prefix cached and without:",
        "",
        *prefixes(options, world_spec),
        "",
        f"A training step of batch {options.batch_size}:",
        "",
        *training(options, world_spec),
        "",
        "Forward and backward through 8 experts, 2 per token; a dense layer of the same multiplications; Mixtral's:",
        "",
        *experts(options),
    ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
