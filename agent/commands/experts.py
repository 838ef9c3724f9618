"""The command `llamarm experts`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from agent.commands.shared.acting import ActingConfig, Folder, acting, check_names, folder_for
from agent.commands.shared.options import limit_threads, parse_with
from agent.runs.messages import say_next
from agent.runs.policies import load_policy
from agent.runs.run_folder import RunFolder
from agent.runs.run_lock import locked
from rollout.workers.workers import WorkersConfig
from vla_model.files.folders import write_json, write_whole


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Usage of the mixture's experts by task and phase of the motion, and success without each."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint, or a policy's folder."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of experts.json, experts.md and experts.png; the run's own folder if POLICY is a run."""
    ablate: bool = True
    """Whether to repeat the episodes without each expert."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Experts, "experts", args, acting=ActingConfig(), rollout=WorkersConfig(workers=0))
    folder = folder_for(options.policy, options.out, "experts.json")
    check_names(options.policy, options.acting.named_world, options.acting.tasks, options.acting.variations)
    policy = load_policy(options.policy, options.acting.dtype)
    limit_threads(policy)

    from agent.studies.moe.study import study_experts, to_json
    from agent.studies.moe.tables import plot, tables

    source = Folder(options.policy, policy)
    with (
        acting(options.policy, source, options.acting, options.rollout) as (
            measured,
            tasks,
            n_action_steps,
        ),
        locked(folder, ["llamarm", "experts", *args]),
    ):
        config = options.acting.evaluation(n_action_steps)
        found = to_json(study_experts(policy, measured, tasks, config, ablate=options.ablate))
        write_json(RunFolder(folder).experts, found)
        lines = [f"# Experts of {Path(options.policy).resolve().name}", "", *tables(found)]
        write_whole(folder / "experts.md", "\n".join(lines) + "\n")
        plot(found, folder / "experts.png")
    print("\n".join(lines))
    for file in ("experts.json", "experts.md", "experts.png"):
        print(folder / file)
    if RunFolder(folder).eval_info.exists():
        say_next("see them on the policy's page", "report", folder)
