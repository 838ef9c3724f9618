"""Expert usage against hand-computed numbers, and ablations against direct evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sides_policy import sides_model, sides_processor
from sides_world import SidesWorld, evaluate_here

from agent.evaluation.config import EvaluationConfig
from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.expert_usage import UsageByPhase
from agent.evaluation.measure import EvaluationSetup
from agent.studies.moe.study import ExpertStudy, study_experts, to_json
from agent.studies.moe.tables import plot, tables
from rollout.workers.workers import WorkersConfig
from vla_model.policy import VLAPolicy

TASKS = ("left", "right")


def policy() -> VLAPolicy:
    """Untrained. Every decision goes to expert 0 of both layers, or without it to expert 1; in the last layer expert 1
    says the opposite of expert 0, loud enough to be what is done.
    """
    model = sides_model(num_experts=3, top_k_experts=1, moe_layers=2, balancing_rate=0.1)
    with torch.no_grad():
        for layer in model.action_head.layers:
            layer.get_buffer("router.bias").copy_(torch.tensor([2.0, 1.0, 0.0]))
        last = model.action_head.layers[-1]
        gate_up, down = last.get_parameter("gate_up"), last.get_parameter("down")
        gate_up[1], down[1] = gate_up[0], -down[0]
        down.mul_(1000.0)
        model.action_head.to_parameters.weight.mul_(20.0)
        model.action_head.to_parameters.bias.zero_()
    return VLAPolicy(model, sides_processor(), version=4, dtype="float32")


def study(**changes: Any) -> ExpertStudy:
    measured = EvaluationSetup(SidesWorld(1), SidesWorld, _whole, WorkersConfig(workers=0))
    config = EvaluationConfig(episodes_per_task=4, n_action_steps=1, num_worlds=4)
    return study_experts(policy(), measured, TASKS, config, **changes)


def _whole(_: object) -> VLAPolicy:
    return policy()


def test_each_ablation_equals_a_direct_evaluation_without_that_expert() -> None:
    found = study()
    specs = evaluation_specs("sides", TASKS, 4)
    assert [(a.layer, a.expert) for a in found.ablations] == [(i, e) for i in range(2) for e in range(3)]
    whole = {r.spec.id: r.success for r in found.evaluation.results}
    differ = []
    for ablation in found.ablations:
        without = policy().without_expert(ablation.layer, ablation.expert)
        alone = evaluate_here(without, SidesWorld(4), specs, n_action_steps=1)
        success = {r.spec.id: r.success for r in alone.results}
        assert set(ablation.overall.won) == {id_ for id_ in whole if success[id_] > whole[id_]}
        assert set(ablation.overall.lost) == {id_ for id_ in whole if success[id_] < whole[id_]}
        assert {task: c.num_episodes for task, c in ablation.per_task.items()} == dict.fromkeys(TASKS, 4)
        if ablation.overall.won or ablation.overall.lost:
            differ.append((ablation.layer, ablation.expert))
    assert differ == [(1, 0)], "only the expert that all decisions go to matters"


def test_usage_is_that_of_all_decisions_of_the_whole_policy() -> None:
    found = study(ablate=False)
    assert found.ablations == ()
    assert sum(found.usage.decisions.values()) == sum(r.num_decisions for r in found.evaluation.results)
    for task, usage in found.usage.by_task().items():
        np.testing.assert_allclose(usage, found.evaluation.expert_usage[task])
        np.testing.assert_allclose(usage.sum(-1), 1.0)


def test_the_default_phases_are_thirds_of_an_episode() -> None:
    world = SidesWorld(1)
    found = world.motion_phases(np.zeros((7, 1), np.float32), np.zeros((7, 1), np.float32))
    assert found.tolist() == ["first third"] * 3 + ["second third"] * 2 + ["last third"] * 2


def test_usage_and_mutual_information_by_hand() -> None:
    usage = UsageByPhase(phases=("early", "late", "never"))
    always, turns = [[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]  # [layers, E]
    usage.add("a", np.array(["early", "early", "late"]), np.array([always, always, always], np.float32))
    usage.add("b", np.array(["early", "late"]), np.array([always, turns], np.float32))
    usage.add("b", np.array(["late"]), np.array([turns], np.float32))
    assert usage.by_task()["a"].tolist() == always
    np.testing.assert_allclose(usage.by_task()["b"][0], [1 / 3, 2 / 3])
    assert list(usage.by_phase()) == ["early", "late"]
    np.testing.assert_allclose(usage.by_phase()["late"][0], [1 / 3, 2 / 3])
    assert usage.by_phase("b")["late"].tolist() == turns
    # Half of the decisions are a's and choose expert 0; b's choose it in a third of the cases.
    mixed, of_b = (
        -(2 / 3) * np.log2(2 / 3) - (1 / 3) * np.log2(1 / 3),
        -(1 / 3) * np.log2(1 / 3) - (2 / 3) * np.log2(2 / 3),
    )
    np.testing.assert_allclose(usage.task_information(), [mixed - 0.5 * of_b, 0.0], atol=1e-12)
    # Within b the phase decides which expert acts; within a nothing does.
    np.testing.assert_allclose(usage.phase_information(), [0.5 * of_b, 0.0], atol=1e-12)


def test_results_are_written_as_tables_and_a_picture(tmp_path: Path) -> None:
    found = json.loads(json.dumps(to_json(study()), allow_nan=False))
    lines = list(tables(found))
    head = next(line for line in lines if line.startswith("| without |"))
    assert head.endswith("| left | right |")
    rows = [line for line in lines if line.startswith(("| 1.", "| 2."))]
    assert [line[2:5] for line in rows] == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]
    assert all(line.count("|") == head.count("|") for line in rows)
    plot(found, tmp_path / "experts.png")
    assert (tmp_path / "experts.png").read_bytes()[:4] == b"\x89PNG"


def test_a_policy_that_needs_all_its_experts_is_refused() -> None:
    needs_all = VLAPolicy(sides_model(num_experts=2, top_k_experts=2), sides_processor(), dtype="float32")
    measured = EvaluationSetup(SidesWorld(1), SidesWorld, _whole, WorkersConfig(workers=0))
    with pytest.raises(ValueError, match="all 2 experts"):
        study_experts(needs_all, measured, TASKS, EvaluationConfig(episodes_per_task=1))


def test_every_number_is_in_its_experts_column_and_its_tasks_row() -> None:
    def comparison(won: int, lost: int, p_value: float) -> dict[str, Any]:
        return {
            "pc_success": 50.0 + 25.0 * (won - lost),
            "difference": 25.0 * (won - lost),
            "difference_interval": [-60.0, 10.0],
            "won": won,
            "lost": lost,
            "p_value": p_value,
            "p_value_holm": 2 * p_value,
        }

    usage = {"left": [[0.25, 0.75], [1.0, 0.0]], "right": [[0.5, 0.5], [0.1, 0.9]]}
    found = {
        "tasks": ["left", "right"],
        "success": {
            "all": {"pc_success": 50.0, "n_episodes": 4},
            "left": {"pc_success": 100.0},
            "right": {"pc_success": 0.0},
        },
        "usage": {
            "by_task": usage,
            "by_phase": {"move": [[0.3, 0.7], [0.6, 0.4]]},
            "by_task_and_phase": {task: {"move": shares} for task, shares in usage.items()},
        },
        "bits": {"task": [0.05, 0.5], "phase_given_task": [0.0, 0.125]},
        "ablations": [
            {
                "layer": 2,
                "expert": 1,
                "all": comparison(0, 1, 0.02),
                "per_task": {"left": comparison(0, 2, 0.04), "right": comparison(1, 0, 0.06)},
            }
        ],
    }
    rows = [line.strip("| ").split(" | ") for line in tables(found) if line.startswith("| ")]
    heads = ["1.1", "1.2", "2.1", "2.2"]
    assert rows == [
        ["task", *heads],
        ["left", "25", "75", "100", "0"],
        ["right", "50", "50", "10", "90"],
        ["phase", *heads],
        ["move", "30", "70", "60", "40"],
        ["about", "layer 1", "layer 2"],
        ["the task", "0.050", "0.500"],
        ["the phase, given the task", "0.000", "0.125"],
        ["without", "success %", "change", "interval", "won, lost", "p", "left", "right"],
        ["none", "50.0 of 4", "|", "|", "100 %", "0 %"],
        ["2.1", "25.0", "-25.0", "-60.0 to +10.0", "0, 1", "0.04", "-50*", "+25"],
        ["task and phase", *heads],
        ["left, move", "25", "75", "100", "0"],
        ["right, move", "50", "50", "10", "90"],
    ]
