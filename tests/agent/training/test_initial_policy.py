"""Cloning that begins with a trained policy's weights and normalisation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import assert_refused_before_collection, small

from agent.runs.run_folder import PRETRAINED, RunFolder, start_run
from agent.training.loop import learn, train
from rollout.distributed import Process
from vla_model.inputs.processor import Processor


def weights_of(run: RunFolder, updates: int) -> dict[str, torch.Tensor]:
    return load_file(run.checkpoint(updates) / PRETRAINED / "model.safetensors")


@pytest.fixture(scope="module", name="first")
def make_first(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = start_run(tmp_path_factory.mktemp("first") / "run", small())
    train(small(), run)
    return run


@pytest.fixture(scope="module", name="other_data")
def make_other_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Demonstrations of other seeds, so with other statistics."""
    config = small()
    config = replace(config, demonstrations=replace(config.demonstrations, first_seed=500))
    run = start_run(tmp_path_factory.mktemp("other") / "run", config)
    train(config, run)
    return str(run.dataset)


def test_the_policys_weights_and_normalisation_go_on_with_other_data(
    first: RunFolder, other_data: str, tmp_path: Path
) -> None:
    config = small(init=str(first.root), data=(other_data,))
    config = replace(
        config,
        model=replace(config.model, instruction_length=30),
        learner=replace(config.learner, learning_rate=1.0e-9, weight_decay=0.0),
    )
    run = start_run(tmp_path / "run", config)
    train(config, run)
    before, after = weights_of(first, 4), weights_of(run, 4)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0.0, atol=1e-6)
    old, new = (Processor.load(r.checkpoint(4) / PRETRAINED) for r in (first, run))
    assert new.instruction_length == 30
    for name, normalisation in old.normalisations.items():
        assert (new.normalisations[name].mean == normalisation.mean).all()
        assert (new.normalisations[name].std == normalisation.std).all()


def test_an_interrupted_run_goes_on_without_its_initial_policy(
    first: RunFolder, other_data: str, tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    shutil.copytree(first.checkpoint(4) / PRETRAINED, policy)
    config = small(init=str(policy), data=(other_data,))
    runs = [start_run(tmp_path / name, config) for name in ("straight", "resumed")]
    learn(config, runs[0], Process(interrupted=lambda: False, report=lambda **_: None))
    stops = iter([False, True])
    with pytest.raises(KeyboardInterrupt):
        learn(config, runs[1], Process(interrupted=lambda: next(stops), report=lambda **_: None))
    shutil.rmtree(policy)
    learn(config, runs[1], Process(interrupted=lambda: False, report=lambda **_: None))
    straight, resumed = (weights_of(run, 4) for run in runs)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_the_weights_differ_from_those_of_a_run_without_it(first: RunFolder, other_data: str, tmp_path: Path) -> None:
    runs = []
    for name, init in (("random", ""), ("continued", str(first.root))):
        config = small(init=init, data=(other_data,))
        runs.append(start_run(tmp_path / name, config))
        learn(config, runs[-1], Process(interrupted=lambda: False, report=lambda **_: None))
    random, continued = (weights_of(run, 4) for run in runs)
    assert any(not torch.equal(random[name], continued[name]) for name in random)


def test_a_policy_of_another_model_is_refused_before_anything_is_collected(first: RunFolder, tmp_path: Path) -> None:
    config = small(init=str(first.root))
    config = replace(config, model=replace(config.model, chunk_size=5))
    assert_refused_before_collection(config, tmp_path / "run", "chunk_size: 8 there, 5 in this recipe")


def test_a_policy_of_another_world_is_refused_before_anything_is_collected(first: RunFolder, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    shutil.copytree(first.checkpoint(4) / PRETRAINED, policy)
    content = json.loads((policy / "processor.json").read_text())
    content["world_spec"]["control_dt_s"] = 0.25
    (policy / "processor.json").write_text(json.dumps(content))
    config = small(init=str(policy))
    assert_refused_before_collection(config, tmp_path / "run", "the policy was made for another world")


def test_a_folder_without_a_policy_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere is neither a policy"):
        small(init=str(tmp_path / "nowhere")).check_names(RunFolder(tmp_path / "run"))
