"""The command `llamarm experts`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agent.experts.page import draw, tables
from agent.experts.study import study_experts, to_json
from agent.measure import EvaluationConfig, Measured
from agent.names import check_name
from agent.options import load_policy, parse_with, recorded_config, steps_to_execute, where_to_act
from agent.run_folder import RunFolder
from envs.make import make_world
from rollout.workers import WorkersConfig
from vla_model.dtypes import DtypeName


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Which experts a policy uses in which task and phase of the motion, and what it loses without each."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its last checkpoint), a checkpoint, or a policy's folder."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of experts.json, experts.md and experts.png; the run's own folder if POLICY is a run."""
    world: str | None = None
    """Suite of worlds, or MODULE:FUNCTION of your own; if not given, the run's, or tabletop if POLICY is not a run."""
    device: Literal["cpu", "warp", "cuda"] = "cpu"
    """What the worlds run on."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK ...")] = ()
    """If none is named, those that the run was trained on, or all of the world if POLICY is not a run."""
    variations: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("train",)
    """Of the world's episodes."""
    episodes: int = 20
    """Per task and variation, for the whole policy and without each expert."""
    ablate: bool = True
    """Run the episodes again without each expert."""
    execute_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Actions to execute of each chunk; if not given, as the run does, or the whole chunk if POLICY is not a run."""
    dtype: DtypeName = "auto"
    """What is computed in."""
    num_worlds: int = 8
    """Worlds side by side in each process."""


def experts(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Experts, "experts", args, rollout=WorkersConfig(workers=0))
    if options.out is None and recorded_config(options.policy) is None:
        raise ValueError(f"{options.policy} is not a run's folder, so --out must say where experts.json goes")
    folder = options.out or Path(options.policy)
    name, named = where_to_act(options.policy, options.world, options.tasks)
    config = EvaluationConfig(
        episodes_per_task=options.episodes,
        variations=options.variations,
        execute_steps=steps_to_execute(options.policy, options.execute_steps),
        num_worlds=options.num_worlds,
    )
    policy = load_policy(options.policy, options.dtype)
    with closing(make_world(name)) as world:
        tasks = [check_name("task", task, world.tasks) for task in named] or world.tasks
        policy.processor.check(world.world_spec)
        worlds = partial(make_world, name, device=options.device)
        measured = Measured(world, worlds, lambda _: policy, options.rollout)
        study = study_experts(policy, measured, tasks, config, ablate=options.ablate)
    found = to_json(study)
    folder.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).experts.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    lines = [f"# Experts of {Path(options.policy).resolve().name}", "", *tables(found)]
    (folder / "experts.md").write_text("\n".join(lines) + "\n")
    draw(found, folder / "experts.png")
    print("\n".join(lines))
    for file in ("experts.json", "experts.md", "experts.png"):
        print(folder / file)
