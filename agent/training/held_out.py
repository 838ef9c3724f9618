"""The action error of a run's policy on recorded episodes that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.evaluation.open_loop import OpenLoop, open_loop, write_action_error
from agent.runs.run_folder import PRETRAINED, RunFolder, run_of
from rollout.dataset.batches import TrainingData
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.dataset.segments import has_held_out
from vla_model.policy import VLAPolicy, on_best_device

if TYPE_CHECKING:
    from agent.training.config import RunConfig


def held_out_roots(config: RunConfig) -> list[str]:
    """The recorded datasets of which episodes are held out."""
    return [root for root in config.data if has_held_out(root, config.reading, config.seed)]


def measure_held_out(config: RunConfig, run: RunFolder) -> OpenLoop:
    """Measure the last checkpoint on the held-out episodes, and write action_error.json."""
    last = run.last_checkpoint()
    assert last is not None, "update leaves a checkpoint"
    policy = VLAPolicy.from_pretrained(last / PRETRAINED, version=int(last.name))
    roots, reading, cache = held_out_roots(config), config.reading, config.cache
    data = recordings_for(policy, roots, reading=reading, part="held out", seed=config.seed, cache=cache)
    return measure_recordings(policy, data, run)


def recordings_for(
    policy: VLAPolicy,
    roots: Sequence[str],
    *,
    reading: ReadingConfig | None = None,
    part: Literal["held out", "all"] = "all",
    seed: int = 0,
    cache: str = "",
) -> TrainingData:
    """Datasets, read as a policy sees them.

    Args:
        policy: of ours.
        roots: folders of datasets.
        reading: with the share of held-out episodes.
        part: whether to use only these.
        seed: of the choice of these.
        cache: folder of the caches of decoded frames; beside each dataset if not given.

    Raises:
        UserError: a dataset does not fit the policy, or cannot be read.
    """
    processor = policy.processor
    return TrainingData(
        roots,
        world_spec=processor.world_spec,
        conversion=processor.conversion,
        reading=reading,
        part=part,
        seed=seed,
        cache=cache,
    )


def measure_recordings(
    policy: VLAPolicy, data: TrainingData, folder: RunFolder, *, n_action_steps: int | None = None
) -> OpenLoop:
    """Measure a policy on recordings, and write action_error.json into a folder.

    Args:
        policy: of ours.
        data: see `recordings_for`.
        folder: of the run or the evaluation.
        n_action_steps: actions of each chunk to compare; None for the policy's.

    Raises:
        UserError: every episode ends with its first decision.
    """
    action, steps = policy.processor.normalisations["action"], n_action_steps or policy.n_action_steps
    found = open_loop(on_best_device(policy, None), data, steps, action.mean, action.std)
    write_action_error(folder.action_error, found)
    return found


def trained_on(policy: str) -> tuple[set[Path], ReadingConfig, int]:
    """The recorded datasets that a policy's run was trained on, how they were read, and the run's seed."""
    run = run_of(policy)
    config = {} if run is None else run.record["config"]
    reading = config.get("reading", {})
    lists = {name: tuple(reading.get(name, ())) for name in ("cameras", "without_episodes")}
    known = ReadingConfig(**(reading | lists))
    return {Path(root).resolve() for root in config.get("data", ())}, known, config.get("seed", 0)
