"""The commands that need a world, on the real one."""

from __future__ import annotations

import json
from pathlib import Path

from agent import cli


def test_eval_of_the_expert_writes_results_controls_and_a_film(tmp_path: Path) -> None:
    args = ["--tasks", "reach", "press_button", "--episodes", "2", "--controls", "--num-worlds", "2"]
    cli.main(["eval", "expert", "--out", str(tmp_path), *args])
    info = json.loads((tmp_path / "eval_info.json").read_text())
    assert info["overall"]["n_episodes"] == 4
    assert info["overall"]["pc_success"] == 100.0
    assert set(info["controls"]) == {"shuffled instructions", "black frames"}
    assert info["controls"]["black frames"]["pc_success"] == 100.0, "this expert reads the simulator"
    assert sorted(path.name for path in (tmp_path / "films").iterdir()) == [
        "press_button-train-1000000-success.mp4",
        "reach-train-1000000-success.mp4",
    ]
