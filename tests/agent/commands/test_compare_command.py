"""`llamarm compare` on two small evaluations against a hand-written table."""

from __future__ import annotations

from pathlib import Path

import pytest
from next_commands import next_commands

from agent import cli
from agent.evaluation.eval_info import write_eval_info


def write(folder: Path, successes: dict[str, bool], n_action_steps: int = 2) -> Path:
    """An evaluation's folder, by the episodes' ids, which begin with suite, task and variation."""
    rows = []
    for id_, success in successes.items():
        suite, task, variation, _ = id_.split("/")
        rows.append({"id": id_, "task_group": f"{suite}/{variation}", "task": task, "success": success})
    info = {"per_episode": rows, "per_task": [], "overall": {}, "protocol": {"n_action_steps": n_action_steps}}
    write_eval_info(folder / "eval_info.json", info)
    return folder


def test_two_evaluations_are_compared_by_variation_and_by_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [
        f"toy/{task}/{variation}/{seed}"
        for task in ("lift", "push")
        for variation in ("train", "vision")
        for seed in (0, 1)
    ]
    before = write(tmp_path / "nano", dict.fromkeys(ids, False) | {"toy/push/train/0": True})
    after = write(tmp_path / "smol", {id_: id_.startswith("toy/lift") for id_ in ids}, n_action_steps=4)
    cli.main(["compare", str(before), str(after)])
    text, said = capsys.readouterr()
    assert next_commands(said) == [["report", str(after)]]
    assert text.startswith("# nano and smol\n")
    assert "nano executed 2 actions of each chunk, smol 4" in text
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    rows = {name: (first, second, change, won, p) for name, first, second, change, _, won, p in cells}
    assert rows["all 8"] == ("12.5", "50.0", "+37.5", "4, 1", "0.38")  # 2 * (1 + 5) / 32
    assert rows["toy/train"] == ("25.0", "50.0", "+25.0", "2, 1", "1")
    assert rows["toy/vision"] == ("0.0", "50.0", "+50.0", "2, 0", "1")  # 2 * 0.5
    assert rows["lift"] == ("0.0", "100.0", "+100.0", "4, 0", "0.25")  # 2 * 2 / 16
    assert rows["push"] == ("25.0", "0.0", "-25.0", "0, 1", "1")


def test_folders_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "one", {"toy/lift/train/0": True})
    other = write(tmp_path / "other", {"toy/lift/train/1": True})
    for folder, message in {
        tmp_path / "nothing": "nothing holds no eval_info.json",
        other: "the evaluations share 0 of 2 episodes",
    }.items():
        with pytest.raises(SystemExit) as exit_:
            cli.main(["compare", str(one), str(folder)])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
