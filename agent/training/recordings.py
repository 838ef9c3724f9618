"""The datasets that a run trains on: checks before it starts, and a message when they change.

A run's normalisation is computed once, from its initial data, and kept in checkpoints. So data may grow while a run is
interrupted; that is reported and recorded in run.json, as the batches differ from then on. Data of another world than
the checkpoint's (cameras, units, rates) are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import closing

from agent.runs.checks import check_episodes
from agent.runs.messages import say
from agent.runs.run_folder import RunFolder
from agent.training.config import RunConfig
from agent.training.demonstrations import check_demonstrations
from envs.errors import UserError
from envs.make import make_world
from envs.types import WorldSpec
from rollout.dataset.batches import TrainingData
from rollout.dataset.check import check_worlds
from rollout.dataset.foreign.outcomes import unused_episodes
from rollout.dataset.foreign.reading import as_entries
from rollout.dataset.frame_cache import check_pending
from rollout.dataset.segments import check_successes
from vla_model.inputs.processor import Processor


def check_recordings(config: RunConfig, kept: Processor | None = None) -> WorldSpec:
    """The spec of the policy's world: that of the recorded datasets, or the one that demonstrations are collected in.

    Nothing is written.

    Args:
        kept: of the policy whose training continues, if any.

    Raises:
        UserError: a folder holds no dataset, datasets or the evaluated world differ, no recorded episode succeeded,
            recorded values are not finite, the world lacks a task, a variation or an expert, or it is not that of the
            policy whose training continues.
    """
    demonstrations, evaluation = config.demonstrations, config.evaluation
    variations = evaluation.variations if config.is_simulated else ()
    world_spec, conversion = None, None
    if config.data:
        world_spec, conversion = check_worlds(
            config.data,
            (*config.drives, *config.auxiliary),
            expected=None if kept is None else kept.world_spec,
            conversion=None if kept is None else kept.conversion,
            reading=config.reading,
        )
        check_successes(config.data, config.reading)
    if world_spec is None or variations:
        with closing(make_world(demonstrations.world)) as world:
            check_episodes(world, demonstrations.tasks, variations)
            if world_spec is None:
                check_demonstrations(demonstrations, world)
                world_spec = world.world_spec
                if kept is not None:
                    kept.check(world_spec)
                if config.drives or config.auxiliary:
                    check_worlds((*config.drives, *config.auxiliary), expected=world_spec, reading=config.reading)
            elif lines := world_spec.differences(world.world_spec, labels=False):
                raise UserError(
                    f"a policy of these recordings cannot be evaluated in {demonstrations.world}, as it is made for "
                    "another world:\n  " + "\n  ".join(lines) + "\nname their own with --demonstrations.world"
                )
    for root in (*config.data, *config.drives, *config.auxiliary):
        cloned = root not in config.auxiliary
        check_pending(
            root,
            config.cache,
            cloned=cloned,
            left_out=unused_episodes(root, config.reading),
            world_spec=world_spec,
            conversion=conversion,
        )
    return world_spec


def training_data(config: RunConfig, run: RunFolder, processor: Processor | None = None) -> TrainingData:
    """The data of a run, without the held-out episodes.

    Args:
        run: its dataset is used where the config names no recorded ones.
        processor: of the policy whose training continues, if any.

    Raises:
        UserError: as TrainingData.
    """
    return TrainingData(
        config.data or [run.dataset],
        drives=config.drives,
        auxiliary=config.auxiliary,
        failed="auxiliary",
        world_spec=None if processor is None else processor.world_spec,
        conversion=None if processor is None else processor.conversion,
        reading=config.reading,
        part="trained on",
        seed=config.seed,
        cache=config.cache,
    )


def say_left_out(config: RunConfig) -> None:
    """Print to standard error which episodes are left out."""
    for root in (*config.data, *config.drives, *config.auxiliary):
        named = config.reading.left_out(root)
        if named:
            _say([f"left out of {root}: episodes {' '.join(as_entries(named))}"])
        if failed := unused_episodes(root, config.reading) - named:
            _say([f"left out of {root}, because they failed: episodes {' '.join(as_entries(failed))} (--with-failed)"])


def say_inferred(data: TrainingData) -> None:
    """Print to standard error what was inferred of recordings of other programs, and what is not used of them; the
    policy's processor keeps it.
    """
    conversion, world = data.conversion, data.world_spec
    if conversion is None:
        return
    cameras = ", ".join(f"{camera.name} {camera.width}x{camera.height}" for camera in world.cameras)
    state = zip(world.state.names, world.state.low, world.state.high, strict=True)
    action = zip(world.action.names, conversion.action_low, conversion.action_high, strict=True)
    lines = [f"inferred from the recordings: cameras {cameras} ({conversion.fit}), {1 / world.control_dt_s:g} Hz"]
    lines += [
        f"inferred ranges of the {vector}: " + (", ".join(f"{name} {a:g} to {b:g}" for name, a, b in ranges) or "none")
        for vector, ranges in (("state", state), ("action", action))
    ]
    if switches := [world.action.names[i] for i in world.action.grippers]:
        lines.append(f"actions of two values: {', '.join(switches)}")
    lines += [f"{share:.2%} of the rows have {name} outside its range: clipped" for name, share in data.clipped.items()]
    _say(lines + data.not_used)


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        say("train", line)


def say_changes(run: RunFolder, data: Sequence[TrainingData]) -> None:
    """Record a run's data in run.json, and print to standard error what changed since it was interrupted."""
    changes = run.note_data([entry for one in data for entry in one.fingerprint])
    if changes:
        print(
            f"The data changed: {'; '.join(changes)}. The run resumes with its initial normalisation; its batches "
            "differ from those of an uninterrupted run.",
            file=sys.stderr,
        )
