"""A policy on disk: nothing lost on the way, nothing half-written, nothing broken read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import observe, tiny_processor, tiny_vla

from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.weights.checkpoint import load_policy, save_policy

PARTS = ("config.json", "model.safetensors", "processor.json", "tokenizer.json")


@pytest.fixture(name="folder")
def make_folder(tmp_path: Path) -> Path:
    save_policy(tmp_path / "deep" / "policy", tiny_vla(), tiny_processor())
    return tmp_path / "deep" / "policy"


def test_a_saved_policy_gives_the_same_actions(folder: Path) -> None:
    observation, actions = observe(3), []
    for policy in (
        VLAPolicy(tiny_vla(), tiny_processor(), dtype="float32"),
        VLAPolicy.from_pretrained(folder, version=4, dtype="float32"),
    ):
        policy.begin(range(3), observation["instruction"], (0, 1, 2))
        actions.append(policy.act(range(3), observation).actions)
    np.testing.assert_array_equal(*actions)
    assert policy.version == 4


def test_weights_and_config_round_trip_bit_for_bit(folder: Path) -> None:
    ours, (theirs, _) = tiny_vla(), load_policy(folder)
    assert theirs.config.to_dict() == ours.config.to_dict()
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor), name


def test_the_folder_holds_its_parts_and_nothing_is_left_beside_it(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted((*PARTS, "README.md"))
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(ValueError, match=rf"is not a saved policy: it lacks {part}"):
        load_policy(folder)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_part_is_named(folder: Path, part: str, kept: float) -> None:
    content = (folder / part).read_bytes()
    (folder / part).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=rf"{part}.* is (broken|damaged)"):
        load_policy(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_experts"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model.safetensors does not fit config.json"):
        load_policy(folder)


def test_parts_of_two_policies_are_refused(folder: Path) -> None:
    tiny_processor(instruction_length=48).save(folder)
    with pytest.raises(ValueError, match=r"of two policies: instruction_length is 24 and 48"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("field", "value"), [("chunk_size", "8"), ("backbone", None), ("backbone", {"model_type": "x"})]
)
def test_a_config_of_something_else_is_rejected(folder: Path, field: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ValueError, match=r"config.json in .* is not of a policy"):
        load_policy(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere is not a saved policy"):
        load_policy(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists, is not a saved policy"):
        save_policy(tmp_path, tiny_vla(), tiny_processor())
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def shifted_vla() -> tuple[VLA, torch.Tensor]:
    model = tiny_vla()
    with torch.no_grad():
        model.queries.add_(1.0)
    return model, model.queries.detach()


def test_saving_again_replaces_the_policy(folder: Path) -> None:
    model, queries = shifted_vla()
    save_policy(folder, model, tiny_processor())
    assert torch.equal(load_policy(folder)[0].queries, queries)
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


@pytest.mark.parametrize("stage", ["save_tensors", "os.fsync", "Path.rename"])
def test_a_save_that_is_killed_leaves_the_old_policy(folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while writing, before all is on the disk, and between the two renames."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if stage == "Path.rename":
        rename = Path.replace
        monkeypatch.setattr(Path, "rename", lambda self, to: die() if ".policy.new" in self.name else rename(self, to))
    else:
        monkeypatch.setattr(stage if "." in stage else f"vla_model.weights.checkpoint.{stage}", die)
    model, queries = shifted_vla()
    with pytest.raises(KeyboardInterrupt):
        save_policy(folder, model, tiny_processor())
    monkeypatch.undo()
    assert torch.equal(load_policy(folder)[0].queries, tiny_vla().queries)
    save_policy(folder, model, tiny_processor())
    assert torch.equal(load_policy(folder)[0].queries, queries)
    assert [path.name for path in folder.parent.iterdir()] == ["policy"]


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("pickle.load", "pickle.loads", "torch.load", "pickle.Unpickler"):
        monkeypatch.setattr(name, refuse)
    load_policy(folder)


def test_a_value_head_is_added_reproducibly_without_changing_actions(folder: Path) -> None:
    (first, _), (second, _) = (load_policy(folder, value_head=True) for _ in range(2))
    plain = tiny_vla().state_dict()
    assert first.config.value_head
    added = {name for name in first.state_dict() if name not in plain}
    assert added and all(name.startswith("value_head.") for name in added)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
        assert name in added or torch.equal(tensor, plain[name])


def test_a_saved_value_head_is_loaded(folder: Path) -> None:
    model, processor = load_policy(folder, value_head=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5)
    save_policy(folder, model, processor)
    for again in (load_policy(folder)[0], load_policy(folder, value_head=True)[0]):
        assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_only_a_value_head_may_be_missing(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["queries"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit[\s\S]*queries"):
        load_policy(folder, value_head=True)
