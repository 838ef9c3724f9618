"""A grid of runs: sizes x demonstrations x experts under one budget, each cell a run's folder.

    OUT/run.json           the config; called again, the command resumes
    OUT/grid.json          updates of every cell, and the seconds per update from which they follow
    OUT/demonstrations/    of each amount, nested, and held-out ones that no cell trains on
    OUT/cells/w128-d100-e4-s0/    a run, and cell.json: its outcome

Every cell makes the same number of updates with batches of the same size: all see equally many samples, so a surface
over parameters and demonstrations can describe them. The budget is the total time of all updates.

A size is a width: of the decoder, of its towers (half as many channels) and of its experts. Active parameters exclude
the token embedding and count k of E experts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from agent.algorithms.sft import fake_batch, sft_loss
from agent.evaluation.evaluate import Evaluation
from agent.learning.learner import Learner
from agent.runs.progress import progress_bars
from agent.runs.run_folder import RunFolder, start_run
from agent.runs.seeds import FIRST_HELD_OUT_SEED
from agent.studies.scale.action_error import action_error
from agent.studies.scale.config import Place, ScaleConfig, all_places
from agent.studies.scale.law import Cell
from agent.training.demonstrations import DemonstrationsConfig, collect_demonstrations
from agent.training.loop import RunConfig, train
from envs.errors import UserError
from envs.make import world_spec_of
from envs.types import WorldSpec
from vla_model.config import VLAConfig
from vla_model.create import ModelConfig, shape_of
from vla_model.files.folders import fresh_folder, read_json, write_json
from vla_model.model import VLA
from vla_model.numerics.precision import best_device
from vla_model.weights.finetune import prepare

TIMED_UPDATES = 3


def model_of(place: Place, model: ModelConfig) -> ModelConfig:
    """The recipe's model with the size of a cell."""
    return replace(
        model,
        hidden_size=place.width,
        vision_channels=place.width // 2,
        expert_size=place.width,
        num_experts=place.experts,
    )


def config_of(place: Place, config: ScaleConfig, updates: int) -> RunConfig:
    """Of a cell's run."""
    run = config.run
    return replace(
        run,
        seed=place.seed,
        model=model_of(place, run.model),
        demonstrations=replace(run.demonstrations, episodes_per_task=place.amount),
        learner=replace(run.learner, num_updates=updates, warmup_updates=min(run.learner.warmup_updates, updates // 5)),
        evaluation=replace(run.evaluation, controls=False, videos_per_task=0),
        save_every=(updates + 1) // 2,
    )


def acting_parameters(config: VLAConfig) -> int:
    """Active parameters per token of a model with that config."""
    with torch.device("meta"):
        model = VLA(config)
    table = model.backbone.decoder.get_input_embeddings().get_parameter("weight")
    idle = 1 - config.top_k_experts / config.num_experts
    experts = [p.numel() for n, p in model.action_head.named_parameters() if n.endswith((".gate_up", ".down"))]
    return round(sum(p.numel() for p in model.parameters()) - table.numel() - idle * sum(experts))


def seconds_per_update(place: Place, config: ScaleConfig, world_spec: WorldSpec) -> float:
    """Measured on this machine, with random samples."""
    shape = shape_of(model_of(place, config.run.model), world_spec)
    torch.manual_seed(0)
    model = VLA(shape).to(best_device())
    prepare(model, config.run.fine_tuning)
    learner = Learner(model, config.run.learner)
    batch = fake_batch(shape, config.run.learner.batch_size).to(learner.device)
    times = []
    for _ in range(TIMED_UPDATES + 1):
        began_s = time.perf_counter()
        learner.update(batch, lambda model, part: sft_loss(model, part, config.run.sft))
        times.append(time.perf_counter() - began_s)
    learner.close()
    return min(times[1:])


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Updates of every cell, and their duration."""

    updates: int
    seconds_per_update: dict[str, float]
    """By the name of each place."""

    @property
    def hours(self) -> float:
        """Of all updates."""
        return self.updates * sum(self.seconds_per_update.values()) / 3600


def budget_of(config: ScaleConfig, folder: RunFolder) -> Budget:
    """The budget in grid.json; measured now if it does not exist.

    Raises:
        UserError: as `measured_budget`, or grid.json is damaged.
    """
    file = _budget_file(folder)
    if not file.exists():
        return measured_budget(config)
    return Budget(**read_json(file, [f.name for f in fields(Budget)], "delete it, and the updates are timed again"))


def record_budget(budget: Budget, folder: RunFolder) -> None:
    """Write grid.json."""
    write_json(_budget_file(folder), asdict(budget))


def measured_budget(config: ScaleConfig) -> Budget:
    """By timing a few updates of every size on this machine.

    Raises:
        UserError: the hours are too few for a single update.
    """
    world_spec = world_spec_of(config.run.demonstrations.world)
    cells = all_places(config)
    sizes = {(place.width, place.experts): place for place in cells}
    by_size: dict[tuple[int, int], float] = {}
    with progress_bars() as progress:
        bar = progress.add_task("model sizes timed", total=len(sizes))
        for size, place in sizes.items():
            by_size[size] = seconds_per_update(place, config, world_spec)
            progress.advance(bar)
    seconds = {place.name: by_size[place.width, place.experts] for place in cells}
    updates = config.grid.updates or int(3600 * config.grid.hours / sum(seconds.values()))
    if updates < 1:
        raise UserError(
            f"{config.grid.hours} hours are too few: one update of every run takes {sum(seconds.values()):.1f} s; "
            "raise --hours"
        )
    return Budget(updates=updates, seconds_per_update=seconds)


def run_grid(
    config: ScaleConfig, folder: RunFolder, budget: Budget, command: Sequence[str]
) -> Iterator[tuple[Place, Cell]]:
    """Run every cell that has not run yet, held-out ones last, and yield each with its outcome."""
    cells = all_places(config)
    collect_amounts(config, folder, sorted({place.amount for place in cells}))
    for place in cells:
        yield place, run_cell(place, config, folder, budget, command)


def collect_amounts(config: ScaleConfig, folder: RunFolder, amounts: Sequence[int]) -> None:
    """Collect demonstrations of every amount, each including those of the next smaller one, and the held-out ones."""
    demonstrations = config.run.demonstrations
    held_out = replace(
        demonstrations,
        episodes_per_task=config.grid.held_out_episodes,
        first_seed=FIRST_HELD_OUT_SEED,
        noise_std=0.0,
    )
    _collect(held_out, _demonstrations(folder, "held_out"), config)
    below: Path | None = None
    for amount in amounts:
        root = _demonstrations(folder, amount)
        if below is not None and not root.exists():
            with fresh_folder(root) as fresh:
                shutil.copytree(below, fresh, dirs_exist_ok=True)
        _collect(replace(demonstrations, episodes_per_task=amount), root, config)
        below = root


def run_cell(place: Place, config: ScaleConfig, folder: RunFolder, budget: Budget, command: Sequence[str]) -> Cell:
    """The outcome of the run at that place, which is started or resumed unless it has ended."""
    root = folder.root / "cells" / place.name
    result = root / "cell.json"
    if result.exists():
        return Cell(**read_json(result, [f.name for f in fields(Cell)], "delete it, and the cell is evaluated again"))
    run_config = config_of(place, config, budget.updates)
    run = start_run(root, run_config, resume=RunFolder(root).record_file.exists())
    if not run.dataset.is_symlink():
        run.dataset.symlink_to(Path("..", "..", "demonstrations", str(place.amount)), target_is_directory=True)
    with run.session(command):
        evaluation, _ = train(run_config, run)
    assert evaluation is not None, "agent/commands/scale.py refuses a grid without"
    cell = _cell(place, run, evaluation, _demonstrations(folder, "held_out"), run_config.cache)
    write_json(result, asdict(cell))
    return cell


def _cell(place: Place, run: RunFolder, evaluation: Evaluation, held_out: Path, cache: str) -> Cell:
    error, shape = action_error(run, held_out, cache)
    return Cell(
        parameters=acting_parameters(shape),
        demonstrations=place.amount,
        experts=place.experts,
        error=error,
        successes=evaluation.success.successes,
        episodes=evaluation.success.episodes,
    )


def _collect(demonstrations: DemonstrationsConfig, root: Path, config: ScaleConfig) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    collect_demonstrations(demonstrations, root, config.run.rollout)


def _budget_file(folder: RunFolder) -> Path:
    return folder.root / "grid.json"


def _demonstrations(folder: RunFolder, which: int | str) -> Path:
    return folder.root / "demonstrations" / str(which)
