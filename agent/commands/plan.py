"""The command `llamarm plan`: which models, number formats, fine-tuning modes and batch sizes fit a machine.

Everything is computed from shapes (weights/footprint.py); no weights are created or read. A model fits if it takes at
most 90 % of the memory, because the formulas err by up to 10 % (benchmarks/plan.py). The numbers are for one process;
each worker takes the memory of inference besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import tyro
from annotated_types import Interval, MinLen

from agent.commands.shared.options import parse
from agent.runs.checks import check_config, check_world
from envs.errors import UserError
from envs.make import world_spec_of
from envs.types import WorldSpec
from vla_model.numerics.dtypes import DtypeName
from vla_model.sizes import SIZES, ModelConfig
from vla_model.weights.config import FineTuning

if TYPE_CHECKING:
    from rich.table import Table

    from vla_model.config import VLAConfig
    from vla_model.weights.footprint import Footprint, Parameters

SAFE_SHARE = 0.9
"""Share of the memory that a plan may use."""
CONTEXT_GB = 0.6
"""Memory of the CUDA context on a GPU; an assumption, not measured here."""
FORMATS: tuple[DtypeName, ...] = ("float32", "bfloat16", "int8")
MODES: dict[str, tuple[FineTuning, DtypeName]] = {
    "full": (FineTuning(mode="full"), "float32"),
    "lora": (FineTuning(mode="lora", towers=True), "float32"),
    "lora, bfloat16 decoder": (FineTuning(mode="lora", towers=True), "bfloat16"),
    "head": (FineTuning(mode="head", towers=True), "float32"),
    "head, bfloat16 decoder": (FineTuning(mode="head", towers=True), "bfloat16"),
}
"""Trainable parts, and the decoder's number format. Towers are always trained: a pretrained decoder knows no images."""
_UNITS = {"gib": 2**30, "gb": 1e9, "mib": 2**20, "mb": 1e6}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which models fit a machine, for inference and for training at which batch sizes."""

    memory: str = "24GiB"
    """The machine's memory, in GiB, GB, MiB or MB."""
    gpu: str = "none"
    """Memory of its GPU, on which the model then computes in bfloat16; "none" for no GPU."""
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Sizes, smol, or paths of pretrained weights; default: all sizes and smol."""
    world: str = "tabletop"
    """The world whose cameras, state and actions the model has."""
    batch_sizes: Annotated[
        tuple[Annotated[int, Interval(ge=1, le=10_000_000)], ...], MinLen(1), tyro.conf.arg(metavar="INT ...")
    ] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Batch sizes of a training step; the largest that fits is printed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model's memory in GB; None where it does not fit."""

    model: str
    parameters: Parameters
    acts: dict[DtypeName, float | None]
    """For inference, by number format of the weights."""
    learns: dict[str, tuple[int, float] | None]
    """For training, by mode: the largest batch that fits, and its memory."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse(Plan, "plan", args)
    on_gpu = options.gpu != "none"
    bytes_ = parse_memory(options.gpu if on_gpu else options.memory)
    spec = world_spec_of(check_world(options.world))
    names = options.models or (*SIZES, "smol")
    for name in names:
        check_config(ModelConfig(name=name))
    rows = [row_of(name, spec, bytes_, on_gpu, options.batch_sizes) for name in names]
    print_tables(sorted(rows, key=lambda row: row.parameters.total), options)


def parse_memory(text: str) -> float:
    """Bytes of "24GiB".

    Raises:
        UserError: the text is not a number and a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].lower() not in _UNITS or not float(match[1]):
        raise UserError(f"{text!r} is not an amount of memory; write a number and GiB, GB, MiB or MB, as in 24GiB")
    return float(match[1]) * _UNITS[match[2].lower()]


def row_of(name: str, world_spec: WorldSpec, memory: float, on_gpu: bool, batch_sizes: Sequence[int]) -> Row:
    """A model's row for a machine with `memory` bytes.

    Raises:
        UserError: no model has that name, or the path is not a model's folder.
    """
    from vla_model.create import shape_of
    from vla_model.weights.footprint import acting, count_parameters

    config = shape_of(ModelConfig(name=name), world_spec)
    counts = count_parameters(config, FineTuning())
    acts = {dtype: _fits(acting(config, dtype, counts=counts), memory, on_gpu) for dtype in FORMATS}
    learns: dict[str, tuple[int, float] | None] = {}
    for mode, (fine_tuning, decoder) in MODES.items():
        learns[mode] = None
        # Training takes more than inference, and counting adapters of the largest models takes seconds.
        if acts[decoder] is not None:
            counted = count_parameters(config, fine_tuning)
            for batch_size in sorted(batch_sizes):
                learns_with = _learning(config, fine_tuning, batch_size, decoder, counted, on_gpu)
                taken = _fits(learns_with, memory, on_gpu)
                if taken is not None:
                    learns[mode] = (batch_size, taken)
    return Row(model=name, parameters=counts, acts=acts, learns=learns)


def _learning(
    config: VLAConfig, fine_tuning: FineTuning, batch_size: int, decoder: DtypeName, counts: Parameters, on_gpu: bool
) -> Footprint:
    import torch

    from vla_model.numerics.precision import native_dtype
    from vla_model.weights.footprint import learning

    is_narrow = on_gpu or native_dtype(torch.device("cpu")) == torch.bfloat16
    compute: DtypeName = "bfloat16" if is_narrow else "float32"
    parts = 2 if batch_size > 1 else 1
    return learning(config, fine_tuning, batch_size, num_parts=parts, compute=compute, decoder=decoder, counts=counts)


def _fits(footprint: Footprint, memory: float, on_gpu: bool) -> float | None:
    """GB; None where it does not fit."""
    if on_gpu:
        footprint = replace(footprint, process=1e9 * CONTEXT_GB)
    return footprint.total / 1e9 if footprint.total <= SAFE_SHARE * memory else None


def print_tables(rows: Sequence[Row], options: Plan) -> None:
    """Print a table for inference and one for training."""
    from agent.report.tables import print_table

    where = options.memory + " of memory" if options.gpu == "none" else f"a GPU of {options.gpu}"
    fitting = [row for row in rows if any(gb is not None for gb in row.acts.values())]
    acts = _table(FORMATS, f"Inference of one world, in GB; {where}")
    learns = _table(MODES, "Training: the largest batch size, and its GB")
    for row in fitting:
        name = (row.model, _millions(row.parameters.total))
        acts.add_row(*name, *("-" if gb is None else f"{gb:.1f}" for gb in row.acts.values()))
        learns.add_row(*name, *("-" if it is None else f"{it[0]}:{it[1]:.1f}" for it in row.learns.values()))
    print_table(acts)
    print_table(learns)
    print("- does not fit. llamarm train RECIPE --model NAME --learner.batch-size N trains one.")
    if len(fitting) < len(rows):
        print(f"too large in every format: {', '.join(row.model for row in rows if row not in fitting)}")


def _table(columns: Iterable[str], title: str) -> Table:
    """An empty table of models. rich keeps the rows in the columns, so each table needs columns of its own."""
    from rich.table import Column, Table

    return Table("model", *(Column(name, justify="right") for name in ("parameters", *columns)), title=title)


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} M" if count < 1e9 else f"{count / 1e9:.3g} B"
