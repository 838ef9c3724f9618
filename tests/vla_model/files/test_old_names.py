"""What was written with the names of before is read as it was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import tiny_config

from vla_model.config import VLAConfig
from vla_model.files.deployment import Deployment
from vla_model.files.old_names import option_by_new_name, with_new_names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--evaluation.execute-steps", "--evaluation.n-action-steps"),
        ("--evaluation.execute_steps=2", "--evaluation.n-action-steps=2"),
        ("--films=execute-steps", "--videos=execute-steps"),
        ("--model.chunk-length", "--model.chunk-size"),
        ("--evaluation.films-per-task", "--evaluation.videos-per-task"),
        ("--algorithm.surrogate.anchor-weight", "--algorithm.surrogate.reference-kl-weight"),
        ("--algorithm.renewal.keep", "--algorithm.shrink-perturb.keep"),
        ("--seen", "--auxiliary"),
        ("--algorithm.no-see-failures", "--algorithm.no-auxiliary-failures"),
        ("--out", "--out"),
        ("films", "films"),
    ],
)
def test_an_old_option_is_the_new_one(old: str, new: str) -> None:
    assert option_by_new_name(old) == new


def test_keys_are_renamed_at_every_depth_and_values_never() -> None:
    old = {"evaluation": {"execute_steps": 2, "films_per_task": 1}, "rows": [{"film": "films/a.mp4"}]}
    new = {"evaluation": {"n_action_steps": 2, "videos_per_task": 1}, "rows": [{"video": "films/a.mp4"}]}
    assert with_new_names(old) == new


def test_an_older_policy_has_its_chunk_size_and_deployment(tmp_path: Path) -> None:
    tiny_config(chunk_size=5).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    content["chunk_length"] = content.pop("chunk_size")
    file.write_text(json.dumps(content))
    assert VLAConfig.from_pretrained(tmp_path).chunk_size == 5
    assert Deployment.of({"execute_steps": 3, "world": None, "tasks": []}) == Deployment(n_action_steps=3)
