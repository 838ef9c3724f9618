"""Settings of an evaluation; importing this loads neither torch nor scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval, MinLen

from agent.runs.checks import NumEpisodes, NumWorlds
from agent.runs.worlds import count_episodes
from envs.types import EpisodeSpec


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Settings of an evaluation."""

    episodes_per_task: NumEpisodes = 20
    """And per variation; 0, in sft recipes, skips the evaluation."""
    variations: Annotated[tuple[str, ...], MinLen(1)] = ("train",)
    """Each is evaluated on the same seeds."""
    controls: bool = True
    """Also run blind controls of the first variation: shuffled instructions (with two tasks or more), black frames."""
    videos_per_task: NumEpisodes = 1
    """And per variation."""
    n_action_steps: Annotated[int, Interval(ge=1, le=1_000)] | None = 2
    """Actions executed of each chunk; None for the whole chunk."""
    num_worlds: NumWorlds = 8
    """Parallel worlds in each process."""

    def count(self, num_tasks: int) -> int:
        """Episodes of that many tasks, blind ones too."""
        return num_tasks * self.episodes_per_task * (len(self.variations) + (2 if self.controls else 0))

    def ahead(self, num_tasks: int | None) -> str:
        """What an evaluation does, as part of a sentence; the number of tasks may be unknown."""
        seen = count_episodes(self.episodes_per_task * len(self.variations), num_tasks)
        blind = "" if num_tasks is None else f" {2 * self.episodes_per_task * num_tasks:,}"
        return f"evaluates {seen}" + (f", then{blind} blind controls" if self.controls else "")

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
