"""Usage and ablation of a policy's experts: when each is used, and success without it.

    usage      of every decision of an evaluation, by task, by phase of the motion (World.motion_phases), by layer
    ablation   the same episodes again for each expert of each layer, with its router choosing among the others

An ablation is compared with the evaluation episode by episode (compare.py), over all tasks and for each. There are as
many tests over all tasks as experts, so their p-values are adjusted by Holm's method; those of single tasks are not
adjusted, and are exploratory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from agent.evaluation.compare import Comparison, compare_episodes
from agent.evaluation.evaluate import Evaluation
from agent.evaluation.expert_usage import UsageByPhase
from agent.evaluation.measure import EvaluationConfig, EvaluationSetup, run_specs
from agent.evaluation.statistics import holm
from agent.runs.messages import say
from envs.types import EpisodeSpec
from envs.world import World
from rollout.types import Trajectory
from vla_model.policy import VLAPolicy, on_best_device


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Comparison of the policy with and without one expert."""

    layer: int
    """Of the action head, counted from 0."""
    expert: int
    """Counted from 0."""
    overall: Comparison
    p_value: float
    """Of `overall`, adjusted for as many tests as there are ablations."""
    per_task: dict[str, Comparison]


@dataclass(frozen=True, kw_only=True)
class ExpertStudy:
    """Result of the study."""

    usage: UsageByPhase
    evaluation: Evaluation
    """Of the whole policy."""
    ablations: tuple[Ablation, ...]
    """Layer by layer."""


def study_experts(
    policy: VLAPolicy, setup: EvaluationSetup, tasks: Sequence[str], config: EvaluationConfig, *, ablate: bool = True
) -> ExpertStudy:
    """Evaluate the policy, and again without each of its experts.

    Args:
        policy: whose experts are studied; `setup.make_policy` is not used.
        config: which episodes, and how; no controls and no videos are made.

    Raises:
        UserError: the policy routes every token to all experts, so none can be left out; or as `evaluate` does.
    """
    shape = policy.model.config
    pairs = [(layer, expert) for layer in range(shape.moe_layers) for expert in range(shape.num_experts)]
    without = [policy.without_expert(*pair) for pair in pairs] if ablate else []
    specs = config.specs(setup.example.suite, tasks)
    usage = UsageByPhase(phases=setup.example.phases)
    say("experts", config.ahead(tasks) + (f", and again without each of {len(without)} experts" if without else ""))

    def run(name: str, policy: VLAPolicy, on_trajectory: Callable[[Trajectory], None] | None = None) -> Evaluation:
        acting = replace(setup, make_policy=partial(on_best_device, policy))
        with acting.pool(config.num_worlds) as workers:
            return run_specs(workers, setup.example, config, name, specs, on_trajectory=on_trajectory)

    evaluation = run("whole policy", policy, partial(_note, usage, setup.example))
    found = [
        run(f"without expert {expert + 1} of layer {layer + 1}", ablated)
        for (layer, expert), ablated in zip(pairs, without, strict=False)
    ]
    comparisons = [_compare(evaluation, other) for other in found]
    adjusted = holm([overall.p_value for overall, _ in comparisons])
    return ExpertStudy(
        usage=usage,
        evaluation=evaluation,
        ablations=tuple(
            Ablation(layer=layer, expert=expert, overall=overall, p_value=p_value, per_task=per_task)
            for (layer, expert), (overall, per_task), p_value in zip(pairs, comparisons, adjusted, strict=False)
        ),
    )


def to_json(study: ExpertStudy) -> dict[str, Any]:
    """Content of experts.json; layers and experts counted from 1, success in percent."""
    usage, evaluation = study.usage, study.evaluation
    return {
        "tasks": usage.tasks,
        "phases": [phase for phase in usage.phases if phase in usage.by_phase()],
        "success": {task: _success(p.successes, p.episodes) for task, p in evaluation.per_task.items()}
        | {"all": _success(evaluation.success.successes, evaluation.success.episodes)},
        "usage": {
            "by_task": _lists(usage.by_task()),
            "by_phase": _lists(usage.by_phase()),
            "by_task_and_phase": {task: _lists(usage.by_phase(task)) for task in usage.tasks},
            "decisions": {task: {p: n for (of, p), n in usage.decisions.items() if of == task} for task in usage.tasks},
        },
        "bits": {"task": usage.task_information().tolist(), "phase_given_task": usage.phase_information().tolist()},
        "ablations": [
            {
                "layer": ablation.layer + 1,
                "expert": ablation.expert + 1,
                "all": _comparison(ablation.overall) | {"p_value_holm": ablation.p_value},
                "per_task": {task: _comparison(c) for task, c in ablation.per_task.items()},
            }
            for ablation in study.ablations
        ],
        "n_action_steps": evaluation.n_action_steps,
        "seeds": sorted({result.spec.seed for result in evaluation.results}),
        "variations": sorted({result.spec.variation for result in evaluation.results}),
        "policy_versions": sorted({result.policy_version for result in evaluation.results}),
    }


def _note(usage: UsageByPhase, world: World, trajectory: Trajectory) -> None:
    assert trajectory.expert_usage is not None, "a VLA reports its experts"
    phases = world.motion_phases(trajectory.state, trajectory.localization)
    usage.add(trajectory.spec.task, phases[trajectory.decision_step], trajectory.expert_usage)


def _compare(whole: Evaluation, other: Evaluation) -> tuple[Comparison, dict[str, Comparison]]:
    first, second = ({r.spec: r.success for r in evaluation.results} for evaluation in (whole, other))

    def of(specs: Sequence[EpisodeSpec]) -> Comparison:
        return compare_episodes({s.id: first[s] for s in specs}, {s.id: second[s] for s in specs})

    return of(list(first)), {task: of([r.spec for r in rows]) for task, rows in whole.by(lambda r: r.spec.task).items()}


def _success(successes: int, episodes: int) -> dict[str, float]:
    return {"pc_success": 100 * successes / episodes, "n_episodes": episodes}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "pc_success": comparison.pc_success[1],
        "difference": comparison.difference,
        "difference_interval": list(comparison.difference_interval),
        "won": len(comparison.won),
        "lost": len(comparison.lost),
        "n_episodes": comparison.num_episodes,
        "p_value": comparison.p_value,
    }


def _lists(shares: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {name: values.tolist() for name, values in shares.items()}
