"""eval_info.json: an evaluation in LeRobot's format, with additions.

LeRobot's part (lerobot_eval.py): per_task [{task_group, task_id, metrics}], per_group and overall, success in percent.
Here a group is a variation of a suite ("tabletop/train"). Added: 95 % intervals in percent, averages over tasks and
over the suite's own groups of tasks, the protocol, failures by reason, blind controls, expert usage, and every episode
by its id, so two files can be paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.evaluation.evaluate import EpisodeResult, Evaluation
from agent.evaluation.statistics import Average, Proportion, averages
from agent.runs.run_folder import VIDEOS
from envs.errors import UserError
from vla_model.files.folders import read_json, write_json
from vla_model.files.old_names import with_new_names


def eval_info(evaluation: Evaluation, controls: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The dict to write.

    Args:
        evaluation: the policy itself.
        controls: blind controls over the same specs or some of them, by name; empty if none were run.
    """
    groups = evaluation.by(_group)
    episodes = len(evaluation.results)
    timing = {"eval_s": evaluation.eval_s, "eval_ep_s": evaluation.eval_s / episodes}
    speed = {"steps_per_s": evaluation.steps_per_s, "frames_per_s": evaluation.frames_per_s}
    latency = {"decision_ms": _quantiles_ms(evaluation)}
    return {
        "per_task": _per_task(evaluation),
        "per_group": {group: _aggregate(evaluation.only(rows)) for group, rows in groups.items()},
        "overall": _aggregate(evaluation) | timing | speed | latency,
        "protocol": _protocol(evaluation),
        "failures": evaluation.failures,
        "controls": {name: _control(control, evaluation) for name, control in controls.items()},
        "expert_usage": {task: usage.tolist() for task, usage in evaluation.expert_usage.items()},
        "per_episode": [_episode(r) for r in evaluation.results],
    }


def write_eval_info(path: Path, info: Mapping[str, Any]) -> None:
    """Write `eval_info`; infinities and NaN are refused, for JSON has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, info)


def read_eval_info(path: Path) -> dict[str, Any]:
    """What `write_eval_info` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"{path.parent} holds no {path.name}: nothing was evaluated there; llamarm eval writes it")
    content = read_json(path, ("per_task", "overall", "per_episode"), "measure again with llamarm eval")
    return with_new_names(content)


def _per_task(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One entry per group and task, task_id counting a group's tasks by name, as LeRobot's flat list has it."""
    entries = []
    for group, rows in evaluation.by(_group).items():
        for task_id, (task, of_task) in enumerate(evaluation.only(rows).by(lambda r: r.spec.task).items()):
            metrics = {
                "sum_rewards": [r.sum_reward for r in of_task],
                "max_rewards": [r.max_reward for r in of_task],
                "successes": [r.success for r in of_task],
                "video_paths": _videos(of_task),
            }
            steps = {
                "median_steps": _median([r.num_steps for r in of_task if not r.lost]),
                "median_steps_to_success": _median([r.num_steps for r in of_task if r.success]),
            }
            named = {"task_group": group, "task_id": task_id, "task": task, "metrics": metrics}
            entries.append(named | _success(Proportion.of(metrics["successes"])) | steps)
    return entries


def _aggregate(evaluation: Evaluation) -> dict[str, Any]:
    rows = evaluation.results
    return {
        "avg_sum_reward": float(np.mean([r.sum_reward for r in rows])),
        "avg_max_reward": float(np.mean([r.max_reward for r in rows])),
        **_success(evaluation.success),
        **_averages(evaluation),
        "video_paths": _videos(rows),
    }


def _success(proportion: Proportion) -> dict[str, Any]:
    return _percent(proportion) | {"n_episodes": proportion.episodes}


def _averages(evaluation: Evaluation) -> dict[str, Any]:
    found = averages(evaluation.per_task, evaluation.task_groups)
    return {"averages": {name: _percent(average) for name, average in found.items()}}


def _percent(rate: Proportion | Average) -> dict[str, Any]:
    return {"pc_success": 100 * rate.rate, "pc_success_interval": [100 * bound for bound in rate.interval]}


def _control(control: Evaluation, evaluation: Evaluation) -> dict[str, Any]:
    """A control's success, and under "policy" the policy's own in the same episodes."""
    ran = {r.spec for r in control.results}
    own = evaluation.only(r for r in evaluation.results if r.spec in ran)
    variations = sorted({spec.variation for spec in ran})
    return _by_task(control) | {"failures": control.failures, "variations": variations, "policy": _by_task(own)}


def _by_task(evaluation: Evaluation) -> dict[str, Any]:
    per_task = {task: _success(proportion) for task, proportion in evaluation.per_task.items()}
    return _success(evaluation.success) | {"per_task": per_task} | _averages(evaluation)


def _protocol(evaluation: Evaluation) -> dict[str, Any]:
    specs = [r.spec for r in evaluation.results]
    return {
        "suites": sorted({spec.suite for spec in specs}),
        "tasks": sorted({spec.task for spec in specs}),
        "variations": sorted({spec.variation for spec in specs}),
        "seeds": [min(spec.seed for spec in specs), max(spec.seed for spec in specs)],
        "n_action_steps": evaluation.n_action_steps,
        "policy_versions": sorted({r.policy_version for r in evaluation.results if not r.lost}),
        "interval": "95 % Wilson score interval over episodes",
        "interval_of_averages": "95 %, from the tasks' Wilson intervals by the square-and-add rule",
        "task_groups": {name: list(tasks) for name, tasks in evaluation.task_groups.items()},
        "success": "decided by the world",
        **({"notes": dict(evaluation.notes)} if evaluation.notes else {}),
    }


def _episode(result: EpisodeResult) -> dict[str, Any]:
    return {
        "id": result.spec.id,
        "task_group": _group(result),
        "task": result.spec.task,
        "instruction": result.instruction,
        "success": result.success,
        "failure": result.failure,
        "num_steps": result.num_steps,
        "num_decisions": result.num_decisions,
        "video_path": None if result.video is None else f"{VIDEOS}/{result.video}",
    }


def _group(result: EpisodeResult) -> str:
    return f"{result.spec.suite}/{result.spec.variation}"


def _videos(rows: Sequence[EpisodeResult]) -> list[str]:
    return [f"{VIDEOS}/{r.video}" for r in rows if r.video is not None]


def _quantiles_ms(evaluation: Evaluation) -> dict[str, float] | None:
    """Latency of a decision in milliseconds: the call of the policy, for all worlds of a process together."""
    if not len(evaluation.decision_s):
        return None
    names = {"median": 50, "p95": 95, "p99": 99, "max": 100}
    values = 1000.0 * np.percentile(evaluation.decision_s, list(names.values()))
    return dict(zip(names, values.tolist(), strict=True)) | {"decisions": len(evaluation.decision_s)}


def _median(values: Sequence[int]) -> float | None:
    return float(np.median(values)) if values else None
