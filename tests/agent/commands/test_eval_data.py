"""`llamarm eval POLICY --data DIR`, with a policy of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from so101 import NAMES, TASKS, Layout, action_of, write_recording

from agent.cli import main

POLICY = """
import numpy as np
from llamarm import WorldSpec
from vla_model.types import ActionChunk

class Middle:
    version = -1

    def __init__(self, world_spec: WorldSpec) -> None:
        self.size = world_spec.action.size

    def begin(self, worlds, instructions, seeds):
        self.instructions = instructions

    def act(self, worlds, observation):
        return ActionChunk(actions=np.zeros((len(worlds), 3, self.size), np.float32))

    def forget(self, worlds):
        pass
"""


def test_a_policy_of_the_users_is_measured_on_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "middle.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    lengths = (7, 5, 9)
    root, out = write_recording(tmp_path / "data", Layout(lengths=lengths)), tmp_path / "out"
    main(["eval", "middle:Middle", "--data", str(root), "--out", str(out), "--n-action-steps", "3"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(out / "action_error.json")
    assert any(line.split()[1:2] == ["gripper.pos"] for line in printed)
    found = json.loads((out / "action_error.json").read_text())
    assert (found["names"], found["n_action_steps"], list(found["per_task"])) == (list(NAMES), 3, list(TASKS))
    recorded = np.concatenate([[action_of(e, t) for t in range(3, n)] for e, n in enumerate(lengths)])
    middle = np.array(found["plots"][0]["predicted"][0])
    error = np.abs(recorded - middle).mean(0)
    np.testing.assert_allclose(found["all"]["mean_absolute_error"]["policy"], error, rtol=1e-3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["expert"], "a scripted expert acts by a simulator's state, which recordings lack"),
        (["middle:Middle", "--n-action-steps", "4"], "a chunk of the policy has 3 actions, but 4 are to be compared"),
        (["nowhere"], "nowhere is neither a policy"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    message: str,
) -> None:
    (tmp_path / "middle.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    root = write_recording(tmp_path / "data", Layout(lengths=(7, 5)))
    with pytest.raises(SystemExit) as ended:
        main(["eval", *args, "--data", str(root), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/action_error.json").exists()
