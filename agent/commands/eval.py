"""The command `llamarm eval`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from agent.commands.shared.acting import EXPERT, ActingConfig, Expert, Folder, acting, check_names, folder_for
from agent.commands.shared.options import limit_threads, parse_with
from agent.runs.checks import NumEpisodes
from agent.runs.messages import say, say_next
from agent.runs.policies import load_policy, steps_to_execute
from agent.runs.run_folder import ACTION_ERROR, RunFolder, policy_folder
from agent.runs.run_lock import locked
from agent.serve.foreign.config import AdapterConfig, ServerAccessConfig
from envs.errors import UserError
from rollout.dataset.foreign.features import name_of_camera
from rollout.dataset.foreign.reading import ReadingConfig, as_entries
from rollout.dataset.read import read_info
from rollout.workers.workers import WorkersConfig
from vla_model.files.folders import check_place

if TYPE_CHECKING:
    from agent.serve.foreign.sources import ForeignSource, PolicySource


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
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded datasets: measure the error of the policy's actions on their episodes instead of success in simulation;
    of datasets that its run was trained on, only on the held-out episodes."""
    cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=CAMERA ...")] = ()
    """With --data, new names of the datasets' cameras, as in `llamarm train`."""
    without_episodes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[DATASET:]N[..M] ...")] = ()
    """With --data, episodes to leave out, as in `llamarm train`; those that the policy's run left out are so anyway."""
    with_failed: bool = False
    """With --data, use failed episodes too, as in `llamarm train`."""
    cache: Annotated[str, tyro.conf.arg(metavar="DIR")] = ""
    """With --data, folder of the caches of decoded frames; beside each dataset if not given."""
    server: ServerAccessConfig = field(default_factory=ServerAccessConfig)
    """How a server is reached."""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    """What a server calls the parts of an observation, and what its answers mean."""

    def renamed(self) -> dict[str, str]:
        """The new names of cameras, by the names without LeRobot's prefix.

        Raises:
            UserError: an entry is malformed.
        """
        new = ReadingConfig(cameras=self.cameras).renamed()
        return {name_of_camera(camera): name for camera, name in new.items()}

    def check(self) -> None:
        """
        Raises:
            UserError: cameras or episodes are malformed, or an option needs --data.
        """
        self.renamed()
        if (self.cameras or self.cache or self.without_episodes or self.with_failed) and not self.data:
            raise UserError(
                "cameras, cache, without-episodes and with-failed are for recorded datasets: name them with --data"
            )
        ReadingConfig(without_episodes=self.without_episodes).check_left_out(self.data)


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Eval, "eval", args, acting=ActingConfig(), rollout=WorkersConfig(workers=0))
    from agent.serve.foreign.sources import foreign_source

    folder = RunFolder(folder_for(options.policy, options.out, ACTION_ERROR if options.data else "eval_info.json"))
    check_place("cache", options.cache)
    foreign = foreign_source(options.policy, options.adapter, options.server)
    command = ["llamarm", "eval", *args]
    if options.data:
        _measure(options, foreign, folder, command)
    else:
        _evaluate(options, foreign, folder, command)
    say_next("see it on one page", "report", folder.root)


def _evaluate(options: Any, foreign: ForeignSource | None, folder: RunFolder, command: list[str]) -> None:
    """Measure and print success in simulation."""
    source = foreign or _own_source(options)
    with (
        acting(options.policy, source, options.acting, options.rollout) as (measured, tasks, n_action_steps),
        locked(folder.root, command),
    ):
        from agent.evaluation.measure import measure
        from agent.report.success_tables import print_success

        config = options.acting.evaluation(n_action_steps, controls=options.controls, videos=options.videos)
        card = policy_folder(options.policy) if options.out is None else None
        replaces = f"; replaces the results in {folder.eval_info}" if folder.eval_info.exists() else ""
        say("eval", f"{config.ahead(tasks)}{replaces}")
        evaluation, controls = measure(replace(measured, card=card), tasks, config, folder)
    print_success(evaluation, controls)
    print(folder.eval_info)


def _measure(options: Any, foreign: ForeignSource | None, folder: RunFolder, command: list[str]) -> None:
    """Measure and print the action error on recorded datasets.

    Raises:
        UserError: the policy is the expert, which acts in simulation only; or a dataset does not fit or cannot be read.
    """
    from agent.evaluation.open_loop import read_action_error
    from agent.report.error_tables import print_action_error

    if options.policy == EXPERT:
        raise UserError("a scripted expert acts by a simulator's state, which recordings lack: name a policy")
    if foreign is None:
        policy_folder(options.policy)
    for root in options.data:
        read_info(Path(root))
    with locked(folder.root, command):
        if foreign is None:
            _measure_folder(options, folder)
        else:
            _measure_foreign(options, foreign, folder)
    print_action_error(read_action_error(folder.action_error))
    print(folder.action_error)


def _measure_folder(options: Any, folder: RunFolder) -> None:
    """A policy of ours: of its own data, on the held-out episodes."""
    from agent.training.held_out import measure_recordings, recordings_for, trained_on
    from rollout.dataset.segments import has_held_out

    policy = load_policy(options.policy, options.acting.dtype)
    if policy.processor.conversion is not None:
        policy.processor.conversion = policy.processor.conversion.with_cameras(options.renamed())
    steps = steps_to_execute(options.policy, policy, options.acting.n_action_steps)
    known, reading, seed = trained_on(options.policy)
    own = [root for root in options.data if Path(root).resolve() in known]
    left_out = [entry for root in own for entry in as_entries(reading.left_out(root), root)]
    reading = replace(
        reading,
        without_episodes=(*left_out, *options.without_episodes),
        with_failed=reading.with_failed or options.with_failed,
    )
    held_out = bool(own) and all(has_held_out(root, reading, seed) for root in own)
    if held_out and len(own) < len(options.data):
        raise UserError(f"name the datasets that the policy was trained on alone: {', '.join(own)}")
    part: Literal["held out", "all"] = "held out" if held_out else "all"
    data = recordings_for(policy, options.data, reading=reading, part=part, seed=seed, cache=options.cache)
    if own:
        only = "only their held-out episodes are used" if held_out else "no episode is held out, so all are used"
        say("eval", f"the policy was trained on {', '.join(own)}; {only}")
    measure_recordings(policy, data, folder, n_action_steps=steps)


def _measure_foreign(options: Any, source: ForeignSource, folder: RunFolder) -> None:
    """A server's or a function's policy; its training data are unknown, so the mean is that of the episodes."""
    from agent.evaluation.open_loop import open_loop, write_action_error
    from rollout.dataset.batches import TrainingData

    reading = ReadingConfig(
        cameras=options.cameras, without_episodes=options.without_episodes, with_failed=options.with_failed
    )
    data = TrainingData(options.data, reading=reading, cache=options.cache)
    with closing(source):
        steps = source.steps(options.acting.n_action_steps) or 1
        source.check(data, (), "")
        stats = data.stats["action"]
        found = open_loop(source.make_policy(data), data, steps, stats["mean"], stats["std"])
    write_action_error(folder.action_error, found)


def _own_source(options: Any) -> PolicySource:
    """The world's expert, or a folder of ours."""
    name, acts = options.policy, options.acting
    if name == EXPERT:
        return Expert()
    check_names(name, acts.world, acts.tasks, acts.variations)
    policy = load_policy(name, acts.dtype)
    limit_threads(policy)
    return Folder(name, policy)
