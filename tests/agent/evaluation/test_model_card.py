"""README.md of a policy's folder, as the Hugging Face Hub parses it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from sides_policy import save_sides_policy
from sides_world import Reader, SidesWorld, evaluate_here

from agent.evaluation.eval_info import eval_info
from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.measure import EvaluationConfig, EvaluationSetup, measure
from agent.evaluation.model_card import write_results
from agent.runs.run_folder import RunFolder
from rollout.workers.workers import WorkersConfig
from vla_model.files.deployment import Deployment
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import save_policy

POLICIES = Path(__file__).parents[3] / "policies"
PUBLISHED = {
    "metaworld_mt50": (90.2, 86.1, 500),
    "metaworld_mt50_dagger": (92.6, 90.2, 1000),
    "metaworld_mt50_unlabelled": (87.6, 81.0, 500),
}
"""Mean over tasks, mean over splits and episodes: docs/results/metaworld.md, all three from bare copies."""


def test_every_saved_policy_has_a_card_with_the_hub_s_metadata(tmp_path: Path) -> None:
    folder = save_sides_policy(tmp_path / "policy")
    policy = VLAPolicy.from_pretrained(folder)
    policy.processor.deployment = Deployment(n_action_steps=1, world="tabletop", tasks=("lift", "stack"))
    save_policy(folder, policy.model, policy.processor)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag, card.data.datasets) == ("llamarm", "robotics", ["tabletop"])
    assert card.data.eval_results is None
    for line in (
        "| actions executed per decision | 1 of 2 |",
        "| world | tabletop: lift, stack |",
        "| control rate | 10 Hz |",
        "| camera `front` | 16 x 16 pixels, RGB |",
        "| action, each in [-1, 1] | dx (step) |",
    ):
        assert line in card.text
    assert "## Results" not in card.text


def test_a_robots_policy_names_no_dataset(tmp_path: Path) -> None:
    card = ModelCard.load(save_sides_policy(tmp_path / "policy") / "README.md")
    assert card.data.datasets is None
    assert "| world |" not in card.text


def test_an_evaluation_writes_its_results_into_the_card(tmp_path: Path) -> None:
    folder = save_sides_policy(tmp_path / "policy")
    setup = EvaluationSetup(SidesWorld(1), SidesWorld, lambda _: Reader(), WorkersConfig(workers=0), card=folder)
    config = EvaluationConfig(episodes_per_task=3, videos_per_task=0, n_action_steps=2, num_worlds=2)
    measure(setup, ("left", "right"), config, RunFolder(tmp_path))
    card = ModelCard.load(folder / "README.md")
    first = card.data.eval_results[0]
    assert (first.dataset_type, first.dataset_name, first.metric_value) == ("sides", "sides/train", 100.0)
    for line in (
        "| all episodes | 6 | 100.0 % | 61.0 to 100.0 % |",
        "| blind control: black frames | 6 | 0.0 % | 0.0 to 39.0 % |",
        "| blind control: shuffled instructions | 6 | 0.0 % | 0.0 to 39.0 % |",
        "| left | 3 | 100.0 % | 43.9 to 100.0 % |",
    ):
        assert line in card.text
    assert "seeds 1000000 to 1000002; 2 actions of each chunk executed" in card.text
    assert VLAPolicy.from_pretrained(folder).version == 0, "the folder is still a policy's"


def test_a_card_that_someone_wrote_is_kept(tmp_path: Path) -> None:
    folder = save_sides_policy(tmp_path / "policy")
    (folder / "README.md").write_text("Mine.\n")
    specs = evaluation_specs("sides", ("left",), 2)
    write_results(folder, eval_info(evaluate_here(Reader(), SidesWorld(1), specs), {}))
    assert (folder / "README.md").read_text() == "Mine.\n"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shipped_policies_have_cards_with_their_published_results(name: str) -> None:
    card = ModelCard.load(POLICIES / name / "README.md")
    assert dataclasses.asdict(card.data.eval_results[0])["dataset_name"] == "metaworld/train"
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    over_tasks, over_splits, episodes = PUBLISHED[name]
    assert values["success rate in %, mean over tasks"] == over_tasks
    assert values["success rate in %, mean over groups"] == over_splits
    assert f"| all episodes | {episodes} |" in card.text
