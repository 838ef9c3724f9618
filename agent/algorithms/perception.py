"""The perception phase: what the rewards of a few hundred episodes cannot teach a policy in time, seeing.

A policy of few demonstrations fails above all by not telling where things are, and a binary outcome per episode says
little about that. Its own episodes are full of frames, and in simulation each of them has labels. So, as in phasic
policy gradients (Cobbe et al. 2021, section 2: an auxiliary phase between policy phases, with an optimiser of its own),
an iteration may end with `updates` of

    L = L_action(demonstrations) + w_loc L_loc(both) + w_point L_point(both) + the router's terms(demonstrations)

(algorithms/sft.py) over batches of which half are rows of demonstrations and half are own frames; "both" are means over
either half.
Nothing that the policy did is imitated. The demonstrations keep what is made of keypoints where it was while the
keypoints improve; the paper holds the whole policy by a KL term, which here would hold it to what it did unseeing.

The labels are privileged, as in cloning; `iterations = 0` does without. The optimiser begins anew in each phase, so an
iteration that is done again after a crash is the same.

Shape letters: D decisions of a rollout, K chunk length, A action dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval
from numpy.typing import NDArray

from agent.algorithms.decisions import looked_back, seen_at
from agent.algorithms.sft import SFTConfig, SFTEncoder, sft_loss
from agent.learning.learner import Learner, LearnerConfig
from envs.seeds import seed_of
from rollout.dataset.batches import Batch, TrainingData
from rollout.types import Trajectory
from vla_model.inputs.processor import Processor
from vla_model.model import VLA


@dataclass(frozen=True, kw_only=True)
class PerceptionConfig:
    """Settings of the phase."""

    iterations: Annotated[int, Interval(ge=0, le=100_000)] = 0
    """The first so many of a run end with it; all where there are no more."""
    demonstrations: str = ""
    """Folder of a dataset; if not given, that of the run that init names."""
    updates: Annotated[int, Interval(ge=1, le=1_000_000)] = 100
    batch_size: Annotated[int, Interval(ge=2, le=100_000)] = 128
    """Half of it own frames."""
    learning_rate: Annotated[float, Interval(gt=0, le=1)] = 5.0e-4
    sft: SFTConfig = field(default_factory=SFTConfig)


class Perception:
    """The phase, for the iterations that have it."""

    def __init__(
        self, config: PerceptionConfig, processor: Processor, demonstrations: Path, *, seed: int, cache: str = ""
    ) -> None:
        """
        Args:
            config: of the phase.
            processor: of the model.
            demonstrations: where the config names none.
            seed: of batches and augmentation.
            cache: as TrainingData takes it.

        Raises:
            UserError: there are no demonstrations, or they were not recorded in the policy's world.
        """
        self._config = config
        self._processor = processor
        self._seed = seed
        root = config.demonstrations or demonstrations
        self.data = TrainingData([root], world_spec=processor.world_spec, cache=cache)
        """The demonstrations."""

    def learn(self, learner: Learner[VLA], trajectories: Sequence[Trajectory], iteration: int) -> dict[str, float]:
        """Returns the means over the updates of "perception/..."."""
        config, seed = self._config, seed_of("perception", self._seed, iteration)
        instructions = [*self.data.instructions, *(t.instruction for t in trajectories)]
        model = learner.model.config
        seen = _decisions(trajectories, len(self.data.instructions), model.chunk_length, model.history)
        encode = SFTEncoder(self._processor, instructions, model, seed=seed)
        loss = partial(sft_loss, config=config.sft)
        half, told = config.batch_size // 2, list[dict[str, float]]()
        order = np.random.default_rng(seed)
        with (
            closing(_learner(config, learner)) as own,
            self.data.batches(
                half,
                model.chunk_length,
                seed=self._seed,
                start_step=iteration * config.updates,
                history=model.history,
            ) as demonstrated,
        ):
            for update in range(config.updates):
                rows = _drawn_rows(seen.episode, half, order)
                batch = encode(_joined(next(demonstrated), _rows(seen, rows)), update)
                told.append(own.update(batch.to(learner.device), loss))
        names = told[0].keys() & {"loss/action", "loss/localization", "loss/pointing"}
        return {name.replace("loss", "perception"): float(np.mean([m[name] for m in told])) for name in sorted(names)}


def _learner(config: PerceptionConfig, learner: Learner[VLA]) -> Learner[VLA]:
    """Of the same weights, which it does not average."""
    settings = LearnerConfig(
        batch_size=config.batch_size,
        num_updates=config.updates,
        learning_rate=config.learning_rate,
        warmup_updates=max(1, config.updates // 10),
        ema_decay=0.0,
        num_parts=learner.config.num_parts,
    )
    return Learner(learner.model, settings, learner.average)


def _decisions(
    trajectories: Sequence[Trajectory], first_instruction: int, chunk_length: int, history: tuple[int, int]
) -> Batch:
    """What was seen at every decision, with nothing to imitate: [D, ...]."""
    frames, state = seen_at(trajectories, [t.decision_step for t in trajectories])
    counts = [len(t.decision_step) for t in trajectories]
    episode = np.repeat(np.arange(len(trajectories)), counts)
    past_frames, past_state = looked_back(trajectories, history) if history[0] else (None, None)
    return Batch(
        frames=frames,
        state=state,
        instruction_id=first_instruction + episode,
        action=np.zeros((len(episode), chunk_length, trajectories[0].action.shape[1]), np.float32),
        mask=np.zeros((len(episode), chunk_length), bool),
        localization=np.concatenate([t.localization[t.decision_step] for t in trajectories]),
        episode=episode,
        past_frames=past_frames,
        past_state=past_state,
    )


def _drawn_rows(episode: NDArray[np.int64], size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Every episode as likely as any other, however long it is, and within it every decision; episode: sorted, [D]."""
    count = np.bincount(episode)
    drawn = generator.integers(len(count), size=size)
    first = np.cumsum(count) - count
    return first[drawn] + (generator.random(size) * count[drawn]).astype(np.int64)


def _rows(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    return _combined(lambda arrays: arrays[0][rows], batch)


def _joined(first: Batch, second: Batch) -> Batch:
    return _combined(np.concatenate, first, second)


def _combined(combine: Callable[[list[NDArray[Any]]], NDArray[Any]], *batches: Batch) -> Batch:
    """The batch that `combine` makes of every array that they all have."""

    def of(parts: list[Any]) -> Any:
        if isinstance(parts[0], dict):
            return {camera: combine([part[camera] for part in parts]) for camera in parts[0]}
        return None if parts[0] is None else combine(parts)

    return Batch(**{column.name: of([getattr(batch, column.name) for batch in batches]) for column in fields(Batch)})
