"""How a policy is meant to be used travels with it, and what differs is put into words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import tiny_processor, tiny_vla

from vla_model.files.deployment import Deployment
from vla_model.inputs.processor import PROCESSOR_FILE, Processor
from vla_model.policy import VLAPolicy
from vla_model.weights.adapters import load_adapted, save_adapter
from vla_model.weights.checkpoint import load_policy, save_policy
from vla_model.weights.config import FineTuning
from vla_model.weights.finetune import prepare

MADE_FOR = Deployment(n_action_steps=3, world="tabletop", tasks=("lift", "stack"))


def processor_of(deployment: Deployment | None) -> Processor:
    processor = tiny_processor()
    processor.deployment = deployment
    return processor


def test_a_deployment_is_saved_and_loaded_with_the_policy(tmp_path: Path) -> None:
    for number, deployment in enumerate((MADE_FOR, Deployment(n_action_steps=1), None)):
        folder = tmp_path / str(number)
        save_policy(folder, tiny_vla(), processor_of(deployment))
        assert load_policy(folder)[1].deployment == deployment
        save_policy(tmp_path / f"again{number}", *load_policy(folder))
        assert load_policy(tmp_path / f"again{number}")[1].deployment == deployment


def test_a_policy_has_its_deployments_n_action_steps() -> None:
    assert VLAPolicy(tiny_vla(), processor_of(MADE_FOR)).n_action_steps == 3
    assert VLAPolicy(tiny_vla(), processor_of(None)).n_action_steps == 4, "nobody said, so the whole chunk"
    assert VLAPolicy(tiny_vla(), processor_of(MADE_FOR), n_action_steps=2).n_action_steps == 2
    assert VLAPolicy(tiny_vla(), processor_of(MADE_FOR)).without_expert(0, 0).n_action_steps == 3


def test_a_policy_with_loaded_adapters_has_the_deployment_of_its_base(tmp_path: Path) -> None:
    model, fine_tuning = tiny_vla(), FineTuning(mode="lora")
    save_policy(tmp_path / "base", model, processor_of(MADE_FOR))
    prepare(model, fine_tuning)
    save_adapter(tmp_path / "adapter", model, fine_tuning)
    assert load_adapted(tmp_path / "base", tmp_path / "adapter")[1].deployment == MADE_FOR


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a deployment is None, expected a map of n_action_steps, world and tasks"),
        ({"tasks": []}, "n_action_steps is None, expected a whole number of at least 1"),
        ({"n_action_steps": 0, "tasks": []}, "n_action_steps is 0, expected a whole number of at least 1"),
        ({"n_action_steps": 2.0, "tasks": []}, r"n_action_steps is 2\.0, expected a whole number"),
        ({"n_action_steps": True, "tasks": []}, "n_action_steps is True, expected a whole number"),
        ({"n_action_steps": 5, "tasks": []}, r"n_action_steps must be within 1\.\.4, the chunk's length, got 5"),
        ({"n_action_steps": 2, "tasks": [], "world": 7}, "world is 7, expected a name"),
        ({"n_action_steps": 2, "tasks": "lift"}, "tasks are 'lift', expected a list of names"),
        ({"n_action_steps": 2, "tasks": [1]}, r"tasks are \[1\], expected a list of names"),
    ],
)
def test_an_invalid_deployment_is_rejected_when_the_policy_is_loaded(
    tmp_path: Path, content: Any, message: str
) -> None:
    folder = tmp_path / "policy"
    save_policy(folder, tiny_vla(), processor_of(MADE_FOR))
    file = folder / PROCESSOR_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"deployment": content}))
    with pytest.raises(ValueError, match=message):
        load_policy(folder)


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (MADE_FOR, []),
        (Deployment(n_action_steps=3, world="tabletop", tasks=("stack",)), []),
        (
            Deployment(n_action_steps=4, world="tabletop", tasks=("lift",)),
            ["4 actions of each chunk are executed; the policy was made for 3"],
        ),
        (
            Deployment(n_action_steps=3, world="metaworld-mt10", tasks=("reach-v3",)),
            ["it acts in metaworld-mt10; the policy was made for tabletop"],
        ),
        (
            Deployment(n_action_steps=3, world="tabletop", tasks=("lift", "sort")),
            ["it does sort; the policy was made for lift, stack"],
        ),
        (Deployment(n_action_steps=3, world="tabletop"), ["it does all tasks; the policy was made for lift, stack"]),
    ],
)
def test_differences_of_deployments_are_described(used: Deployment, expected: list[str]) -> None:
    assert MADE_FOR.differences(used) == expected


@pytest.mark.parametrize("name", ["metaworld_mt50", "metaworld_mt50_dagger", "metaworld_mt50_unlabelled"])
def test_the_shipped_policies_have_the_deployment_of_their_published_results(name: str) -> None:
    """docs/results/metaworld.md: 4 of 8 actions executed per decision, all 50 tasks."""
    _, processor = load_policy(Path(__file__).parents[3] / "policies" / name)
    assert processor.deployment == Deployment(n_action_steps=4, world="metaworld-mt50", tasks=())
