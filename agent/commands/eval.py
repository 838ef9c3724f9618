"""The command `llamarm eval`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from agent.commands.shared.acting import EXPERT, ActingConfig, Expert, Folder, acting, folder_for
from agent.commands.shared.options import parse_with
from agent.evaluation.measure import measure
from agent.report.success_tables import print_success
from agent.runs.checks import NumEpisodes
from agent.runs.policies import load_policy
from agent.runs.run_folder import RunFolder
from agent.runs.run_lock import locked
from agent.serve.foreign.config import AdapterConfig, ServerAccessConfig
from agent.serve.foreign.sources import PolicySource, foreign_source
from rollout.workers.workers import WorkersConfig


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Success on held-out episodes, with intervals, blind controls and videos."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint, a policy's folder, "expert" for the world's
    scripted expert, ws://HOST:PORT for a server of openpi's protocol, vla-eval+ws://HOST:PORT for one of vla-eval's, or
    MODULE:FUNCTION of your own (docs/others.md)."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of eval_info.json and videos/; the run's own folder if POLICY is a run."""
    controls: bool = False
    """Also run the blind controls: shuffled instructions and black frames."""
    videos: NumEpisodes = 1
    """Episodes to record as videos, per task and variation."""
    server: ServerAccessConfig = field(default_factory=ServerAccessConfig)
    """How a server is reached."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """What a server calls the parts of an observation, and what its answers mean."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Eval, "eval", args, acting=ActingConfig(), rollout=WorkersConfig(workers=0))
    folder = RunFolder(folder_for(options.policy, options.out, "eval_info.json"))
    source = foreign_source(options.policy, options.adapter, options.server) or _own_source(options)
    with (
        acting(options.policy, source, options.acting, options.rollout) as (measured, tasks, n_action_steps),
        locked(folder.root, ["llamarm", "eval", *args]),
    ):
        config = options.acting.evaluation(n_action_steps, controls=options.controls, videos=options.videos)
        evaluation, controls = measure(measured, tasks, config, folder)
    print_success(evaluation, controls)
    print(folder.eval_info)


def _own_source(options: Any) -> PolicySource:
    """The world's expert, or a folder of ours."""
    name = options.policy
    return Expert() if name == EXPERT else Folder(name, load_policy(name, options.acting.dtype))
