"""Settings of an evaluation; importing this loads neither torch nor scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, MinLen

from agent.runs.checks import NumEpisodes, NumWorlds
from agent.runs.worlds import amount_of
from envs.types import EpisodeSpec


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation."""

    episodes_per_task: NumEpisodes = 20
    """And per variation; 0, in sft recipes, skips the evaluation."""
    variations: Annotated[tuple[str, ...], MinLen(1)] = ("train",)
    """Each is evaluated on the same seeds."""
    controls: bool = True
    """Whether to run blind controls of the first variation: shuffled instructions (with two tasks or more), black
    frames."""
    videos_per_task: NumEpisodes = 1
    """And per variation."""
    n_action_steps: Annotated[int, Interval(ge=1, le=1_000)] | None = 2
    """Actions executed of each chunk; None for the whole chunk."""
    num_worlds: NumWorlds = 8
    """Parallel worlds in each process."""

    def ahead(self, tasks: Sequence[str]) -> str:
        """What an evaluation will do, for its user; without tasks, it is on all of the world."""
        seen = f"evaluates {amount_of('episode', self.episodes_per_task * len(self.variations), tasks)}"
        blind = f", then {amount_of('episode', self.episodes_per_task, tasks)} with each blind control"
        return seen + (blind if self.controls else "")

    def specs(self, suite: str, tasks: Sequence[str]) -> list[EpisodeSpec]:
        """The episodes, variation by variation.

        Raises:
            UserError: as `evaluation_specs` does.
        """
        from agent.evaluation.evaluate import evaluation_specs

        return [
            spec
            for variation in self.variations
            for spec in evaluation_specs(suite, tasks, self.episodes_per_task, variation)
        ]
