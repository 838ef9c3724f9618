"""The mean of two policies, examples/average_policies.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_model import STATISTICS, WORLD_SPEC, tiny_processor, tiny_vla

from envs.errors import UserError
from examples.average_policies import average
from vla_model.inputs.processor import Processor
from vla_model.weights.checkpoint import load_policy, save_policy


def test_the_mean_lies_between_two_policies_and_at_the_ends_is_one_of_them(tmp_path: Path) -> None:
    before, after = tiny_vla(), tiny_vla()
    with torch.no_grad():
        for weight in after.parameters():
            weight.add_(1.0)
    save_policy(tmp_path / "before", before, tiny_processor())
    save_policy(tmp_path / "after", after, tiny_processor())
    for share in (0.0, 0.25, 1.0):
        average(tmp_path / "before", tmp_path / "after", tmp_path / f"{share}", share)
        mean = dict(load_policy(tmp_path / f"{share}")[0].named_parameters())
        for name, weight in before.named_parameters():
            torch.testing.assert_close(mean[name], weight + share, atol=1e-6, rtol=0)


def test_policies_of_other_shapes_a_share_out_of_range_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    save_policy(tmp_path / "one", tiny_vla(), tiny_processor())
    save_policy(tmp_path / "other", tiny_vla(chunk_size=7), tiny_processor())
    action = {"mean": [0.0, 0.1, 0.1], "std": [0.5, 0.25, 1.0]}
    moved = Processor.from_statistics(WORLD_SPEC, STATISTICS | {"action": action}, 24)
    save_policy(tmp_path / "elsewhere", tiny_vla(), moved)
    with pytest.raises(UserError, match="action is normalised otherwise in"):
        average(tmp_path / "one", tmp_path / "elsewhere", tmp_path / "out", 0.5)
    with pytest.raises(UserError, match=r"has shape .* expected policies of one shape"):
        average(tmp_path / "one", tmp_path / "other", tmp_path / "out", 0.5)
    with pytest.raises(UserError, match=r"--share is 1\.5, expected 0 to 1"):
        average(tmp_path / "one", tmp_path / "one", tmp_path / "out", 1.5)
    with pytest.raises(UserError, match="exists; name a new folder"):
        average(tmp_path / "one", tmp_path / "one", tmp_path / "other", 0.5)
    assert not (tmp_path / "out").exists()
