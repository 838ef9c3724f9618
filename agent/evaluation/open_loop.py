"""Error of a policy's actions on recorded episodes, which needs no simulator.

At every decision of an episode the policy sees the recorded observation and predicts the next n actions, as it would
when driving; they are compared with the recorded ones. The mean absolute error, per dimension and in its own unit,
stands beside those of two predictors that see nothing:

    last    repeats the action before the decision
    mean    the mean action of the policy's training data

The first decision of an episode is not counted, as no action came before it. A small error does not mean success:
errors add up when the policy's own actions decide what it sees next.

Shape letters: A action dims, T steps of an episode, n actions executed of each chunk, B episodes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agent.runs.messages import say
from agent.runs.progress import progress_bars
from envs.errors import UserError
from envs.types import Observation
from vla_model.files.folders import read_json, write_json
from vla_model.types import ActionChunk, Policy

if TYPE_CHECKING:
    from rollout.dataset.batches import TrainingData

PREDICTORS = ("policy", "last", "mean")
_AT_ONCE = 8
"""Episodes that the policy sees in one batch."""
_PLOTS_PER_TASK = 1
_PLOTS = 6


@dataclass
class Errors:
    """Sums of absolute errors."""

    sums: dict[str, NDArray[np.float64]]
    """{predictor: [A]}"""
    count: int = 0
    """Actions compared."""
    episodes: int = 0

    @classmethod
    def none(cls, num_actions: int) -> Errors:
        """Of no action."""
        return cls({name: np.zeros(num_actions) for name in PREDICTORS})

    def add(self, other: Errors) -> None:
        """Count the other's actions too."""
        for name in PREDICTORS:
            self.sums[name] = self.sums[name] + other.sums[name]
        self.count += other.count
        self.episodes += other.episodes

    def to_json(self) -> dict[str, Any]:
        """Mean absolute error of each predictor, [A]; None for no action."""
        means = {name: (total / self.count).tolist() if self.count else None for name, total in self.sums.items()}
        return {"episodes": self.episodes, "actions": self.count, "mean_absolute_error": means}


@dataclass(kw_only=True)
class OpenLoop:
    """Errors of a policy on a dataset, in the unit of each dimension."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    spread: NDArray[np.float64]
    """Standard deviation of the actions in training, [A], by which errors of dimensions are comparable."""
    n_action_steps: int
    per_task: dict[str, Errors] = field(default_factory=dict)
    plots: list[dict[str, Any]] = field(default_factory=list)
    """{"dataset", "episode", "task", "recorded": [T, A], "predicted": [T, A]} of some episodes."""

    @property
    def all(self) -> Errors:
        """Of all tasks together."""
        total = Errors.none(len(self.names))
        for errors in self.per_task.values():
            total.add(errors)
        return total

    def to_json(self) -> dict[str, Any]:
        """The content of action_error.json."""
        return {
            "names": list(self.names),
            "units": list(self.units),
            "spread": self.spread.tolist(),
            "n_action_steps": self.n_action_steps,
            "all": self.all.to_json(),
            "per_task": {task: errors.to_json() for task, errors in self.per_task.items()},
            "plots": self.plots,
        }


def open_loop(
    policy: Policy, data: TrainingData, steps: int, mean: NDArray[np.floating], std: NDArray[np.floating]
) -> OpenLoop:
    """Compare a policy's actions with those of recorded episodes.

    Args:
        policy: of the data's world.
        data: the episodes, read as the policy sees them.
        steps: actions of each chunk to compare.
        mean: of the actions that the policy was trained on, or else of the data, in [-1, 1], [A].
        std: their standard deviation, [A].

    Raises:
        UserError: every episode ends with its first decision, or the policy gives no action or too few.
    """
    scale, units = _units(data)
    found = OpenLoop(
        names=data.world_spec.action.names,
        units=units,
        spread=scale * np.where(std > 0, std, 1.0),
        n_action_steps=steps,
    )
    if all(len(data.rows_of(episode)) <= steps for episode in range(len(data.episodes))):
        raise UserError(
            f"every episode has at most {steps} actions, so it ends with the policy's first decision; execute fewer "
            "with --n-action-steps, or name longer episodes"
        )
    say("action error", f"predicts the actions of {len(data.episodes):,} recorded episodes, {steps} at a time")
    with progress_bars() as progress:
        bar = progress.add_task("action error", total=len(data.episodes))
        for first in range(0, len(data.episodes), _AT_ONCE):
            batch = range(first, min(first + _AT_ONCE, len(data.episodes)))
            for episode, recorded, predicted in _predict(policy, data, batch, steps):
                row = data.episodes[episode]
                task, trivial = row["tasks"][0], _trivial(recorded, mean, steps)
                errors = found.per_task.setdefault(task, Errors.none(len(found.names)))
                errors.add(_errors(recorded, {"policy": predicted, **trivial}, steps, scale))
                _keep_plot(found, row, data, recorded, predicted)
                progress.advance(bar)
    return found


def write_action_error(path: Path, found: OpenLoop) -> None:
    """Write action_error.json."""
    write_json(path, found.to_json(), indent=None)


def read_action_error(path: Path) -> dict[str, Any]:
    """The content of action_error.json.

    Raises:
        UserError: it is damaged.
    """
    keys = ("names", "units", "spread", "n_action_steps", "all", "per_task", "plots")
    return read_json(path, keys, "make it again with llamarm eval --data")


def _predict(
    policy: Policy, data: TrainingData, episodes: range, steps: int
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Episode, recorded and predicted actions, [T, A] each."""
    rows = {episode: data.rows_of(episode) for episode in episodes}
    worlds = {episode: world for world, episode in enumerate(episodes)}
    instructions = tuple(data.episodes[episode]["tasks"][0] for episode in episodes)
    policy.begin(list(worlds.values()), instructions, tuple(episodes))
    recorded: dict[int, list[NDArray[np.float32]]] = {episode: [] for episode in episodes}
    predicted: dict[int, list[NDArray[np.float32]]] = {episode: [] for episode in episodes}
    for step in range(0, max(map(len, rows.values())), steps):
        acting = [episode for episode in episodes if step < len(rows[episode])]
        batch = data.gather(np.array([rows[episode][step] for episode in acting]), steps)
        observation = Observation(
            frames=batch.frames,
            state=batch.state,
            instruction=tuple(data.episodes[episode]["tasks"][0] for episode in acting),
            step=np.full(len(acting), step),
        )
        actions = _actions(policy.act([worlds[episode] for episode in acting], observation), steps)
        for i, episode in enumerate(acting):
            left = len(rows[episode]) - step
            recorded[episode].append(batch.action[i, :left])
            predicted[episode].append(actions[i, :left])
    for episode in episodes:
        yield episode, np.concatenate(recorded[episode]), np.concatenate(predicted[episode])


def _actions(chunk: ActionChunk, steps: int) -> NDArray[np.float32]:
    """The first actions of a chunk, [B, n, A].

    Raises:
        UserError: a world has no action, or the chunk fewer.
    """
    if chunk.failed:
        raise UserError(f"the policy gave no action: {next(iter(chunk.failed.values()))}")
    actions = np.asarray(chunk.actions, np.float32)
    if actions.shape[1] < steps:
        raise UserError(
            f"a chunk of the policy has {actions.shape[1]} actions, but {steps} are to be compared: give "
            f"--n-action-steps {actions.shape[1]} or fewer"
        )
    return actions[:, :steps]


def _trivial(recorded: NDArray[np.float32], mean: NDArray[np.floating], steps: int) -> dict[str, NDArray[np.float32]]:
    """The predictions of the two predictors that see nothing, [T, A] each."""
    decision = np.arange(len(recorded)) // steps * steps
    return {"last": recorded[np.maximum(decision - 1, 0)], "mean": np.broadcast_to(mean, recorded.shape)}


def _errors(
    recorded: NDArray[np.float32], predicted: dict[str, NDArray[np.float32]], steps: int, scale: NDArray[np.float64]
) -> Errors:
    counted = recorded[steps:]
    sums = {name: (scale * np.abs(predicted[name][steps:] - counted)).sum(0) for name in PREDICTORS}
    return Errors(sums, count=len(counted), episodes=1)


def _units(data: TrainingData) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The size of an action of 1 in the dimension's own unit, [A], and these units."""
    spec, conversion = data.world_spec.action, data.conversion
    if conversion is None:
        return np.ones(spec.size), spec.units
    return (np.array(conversion.action_high) - np.array(conversion.action_low)) / 2, ("as recorded",) * spec.size


def _keep_plot(
    found: OpenLoop,
    row: dict[str, Any],
    data: TrainingData,
    recorded: NDArray[np.float32],
    predicted: NDArray[np.float32],
) -> None:
    of_task = [plot for plot in found.plots if plot["task"] == row["tasks"][0]]
    if len(found.plots) >= _PLOTS or len(of_task) >= _PLOTS_PER_TASK:
        return
    conversion = data.conversion

    def rounded(actions: NDArray[np.float32]) -> Sequence[Any]:
        own = actions if conversion is None else conversion.recorded(actions)
        return [[float(f"{value:.5g}") for value in step] for step in own.tolist()]

    found.plots.append(
        {
            "dataset": row["dataset"],
            "episode": row["episode_index"],
            "task": row["tasks"][0],
            "recorded": rounded(recorded),
            "predicted": rounded(predicted),
        }
    )
