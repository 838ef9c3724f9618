"""eval_info.json keeps LeRobot's keys and can be paired episode by episode."""

from __future__ import annotations

from pathlib import Path

import pytest
from sides_world import Reader, SidesWorld, evaluate_here

from agent.evaluation.controls import BlackFrames, ShuffledInstructions
from agent.evaluation.eval_info import eval_info, read_eval_info, write_eval_info
from agent.evaluation.evaluate import evaluation_specs


def test_eval_info_has_lerobots_keys_with_success_in_percent(tmp_path: Path) -> None:
    specs = (*evaluation_specs("sides", ["left", "right"], 2), *evaluation_specs("sides", ["left"], 1, "dim"))
    evaluation = evaluate_here(
        BlackFrames(Reader()), SidesWorld(2), specs[:1], videos_per_task=1, videos_dir=tmp_path / "videos"
    )
    info = eval_info(evaluation, {})
    assert info["overall"]["video_paths"] == ["videos/left-train-1000000-failed-step-limit.mp4"]
    assert (tmp_path / info["overall"]["video_paths"][0]).exists()

    info = eval_info(evaluate_here(Reader(), SidesWorld(2), specs), {})
    lerobot = {"avg_sum_reward", "avg_max_reward", "pc_success", "n_episodes", "eval_s", "eval_ep_s", "video_paths"}
    assert lerobot <= set(info["overall"])
    assert info["overall"]["pc_success"] == 100.0 and info["overall"]["n_episodes"] == 5
    assert info["overall"]["eval_ep_s"] == pytest.approx(info["overall"]["eval_s"] / 5)
    assert [(t["task_group"], t["task_id"], t["task"]) for t in info["per_task"]] == [
        ("sides/dim", 0, "left"),
        ("sides/train", 0, "left"),
        ("sides/train", 1, "right"),
    ]
    assert info["per_task"][1]["metrics"]["successes"] == [True, True]
    assert info["per_group"]["sides/dim"]["n_episodes"] == 1


def test_a_written_file_has_episodes_by_id_and_the_controls(tmp_path: Path) -> None:
    specs = evaluation_specs("sides", ["left", "right"], 2)
    evaluation = evaluate_here(Reader(), SidesWorld(2), specs)
    shuffled = evaluate_here(ShuffledInstructions(Reader(), evaluation.instructions), SidesWorld(2), specs)
    info = eval_info(evaluation, {"shuffled instructions": shuffled})
    write_eval_info(tmp_path / "run" / "eval_info.json", info)
    read = read_eval_info(tmp_path / "run" / "eval_info.json")
    assert read == info
    assert [e["id"] for e in read["per_episode"]] == [spec.id for spec in specs]
    assert {e["task_group"] for e in read["per_episode"]} == {"sides/train"}
    control = read["controls"]["shuffled instructions"]
    assert control["pc_success"] == 0.0 and control["per_task"]["left"]["n_episodes"] == 2
    low, high = control["pc_success_interval"]
    assert low == pytest.approx(0.0, abs=1e-9) and 45 < high < 55
    assert read["expert_usage"] == {"left": [[1.0, 0.0, 0.0]], "right": [[0.0, 1.0, 0.0]]}


def test_averages_over_task_groups_are_written_for_the_policy_and_its_controls() -> None:
    world = SidesWorld(2)
    world.task_groups = {"easy": ("left", "either"), "hard": ("right",)}
    specs = evaluation_specs("sides", ["left", "right"], 2)
    evaluation = evaluate_here(Reader(), world, specs)
    info = eval_info(evaluation, {"black frames": evaluate_here(BlackFrames(Reader()), world, specs)})
    means = ["easy", "hard", "mean over groups", "mean over tasks"]
    for averages, expected in (
        (info["per_group"]["sides/train"]["averages"], 100.0),
        (info["overall"]["averages"], 100.0),
        (info["controls"]["black frames"]["averages"], 0.0),
        (info["controls"]["black frames"]["policy"]["averages"], 100.0),
    ):
        assert {name: average["pc_success"] for name, average in averages.items()} == dict.fromkeys(means, expected)
    assert info["protocol"]["task_groups"] == {"easy": ["left", "either"], "hard": ["right"]}
    alone = eval_info(evaluate_here(Reader(), SidesWorld(2), specs), {})
    assert list(alone["overall"]["averages"]) == ["mean over tasks"]
