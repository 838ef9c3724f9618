"""The report: one self-contained file that lists what is absent."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sides_world import Reader, SidesWorld, evaluate_here
from test_success_tables import LONG, WINS, evaluation
from torch.utils.tensorboard import SummaryWriter

from agent.evaluation.controls import BlackFrames, ShuffledInstructions
from agent.evaluation.eval_info import eval_info, write_eval_info
from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.videos import write_comparison
from agent.report import render as report
from agent.report.curves import MAX_POINTS, Curve, draw_curve, read_curves
from agent.report.render import write_report
from agent.runs.run_folder import RunFolder, start_run
from rollout.collect import collect
from vla_model.types import Policy

SECTIONS = [
    "Success by task",
    "Variations",
    "Blind controls",
    "Learning curves",
    "Videos",
    "Experts by task",
    "Auxiliary losses",
    "Time and memory",
    "Config",
    "Made with",
]


@dataclass(frozen=True, kw_only=True)
class Losses:
    localization_weight: float = 3.0
    weight_decay: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Config:
    note: str = "<script>alert(1)</script>"
    sft: Losses = field(default_factory=Losses)


class Page(HTMLParser):
    """Text by section, and everything that a browser would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: dict[str, str] = {"": ""}
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open = [tag]
        self.fetched += [v for k, v in attrs if k in ("src", "href", "poster", "srcset", "data", "action") and v]

    def handle_data(self, data: str) -> None:
        if self._open == ["style"]:
            return
        if self._open == ["h2"] and data.strip():
            self.text[data.strip()] = ""
        last = list(self.text)[-1]
        self.text[last] += " " + data.strip()
        self._open = []


def evaluated(root: Path, *, controls: bool = True, groups: dict[str, tuple[str, ...]] | None = None) -> RunFolder:
    """A run with every file: the policy succeeds in 8 of 8 episodes, its controls in none."""
    run = start_run(root, Config())
    world = SidesWorld(2)
    world.task_groups = groups or {}
    specs = (*evaluation_specs("sides", ["left", "right"], 2), *evaluation_specs("sides", ["left", "right"], 2, "dim"))
    with run.session(["llamarm", "train", "tiny", "--out", "my run"]):
        with run.phase("evaluate"):
            evaluation = evaluate_here(Reader(), world, specs, videos_per_task=1, videos_dir=run.videos)
        blind = {
            "shuffled instructions": ShuffledInstructions(Reader(), evaluation.instructions),
            "black frames": BlackFrames(Reader()),
        }
        results = {name: evaluate_here(policy, world, specs) for name, policy in blind.items()} if controls else {}
        write_eval_info(run.eval_info, eval_info(evaluation, results))
        with SummaryWriter(run.tensorboard) as log:
            for step in range(30):
                log.add_scalar("loss/total", 1 / (step + 1), step)
    return run


def test_the_report_of_a_complete_run_has_every_section(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "my_run")
    page = Page(write_report(run.root).read_text())
    assert list(page.text)[1:] == SECTIONS
    assert not any("Absent" in text for text in page.text.values())
    assert "my_run 100.0 % success, 95 % interval 51.0 to 100.0 %" in re.sub(r"\s+", " ", page.text[""])
    assert "4 held-out episodes of 2 tasks" in re.sub(r"\s+", " ", page.text[""])
    assert "all 100.0 0.0 0.0" in re.sub(r"\s+", " ", page.text["Blind controls"])
    assert "sft.localization_weight 3.0" in re.sub(r"\s+", " ", page.text["Auxiliary losses"])
    assert "weight_decay" not in page.text["Auxiliary losses"]
    assert re.search(r"evaluate \d+\.\d s", re.sub(r"\s+", " ", page.text["Time and memory"]))
    assert "100 0 0" in re.sub(r"\s+", " ", page.text["Experts by task"])
    assert "llamarm train tiny --out 'my run'" in page.text["Made with"]
    assert page.tags.count("video") == 4
    assert page.tags.count("svg") == 1


def test_every_number_is_beside_its_name(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    blind = evaluation({key: won for key, won in WINS.items() if key[1] == "train"} | {(LONG, "train"): (False,) * 4})
    write_eval_info(run.eval_info, eval_info(evaluation(WINS), {"shuffled instructions": blind}))
    text = {name: " ".join(shown.split()) for name, shown in Page(write_report(run.root).read_text()).text.items()}
    for row in (
        f"{LONG} 100.0 51.0 to 100.0 4",
        "stack 25.0 4.6 to 69.9 4",
        "all 62.5 30.6 to 86.3 8",
        "easy 100.0 51.0 to 100.0 0.0",
        "very [hard] 25.0 4.6 to 69.9 25.0",
        "mean over groups 62.5 36.0 to 85.0 12.5",
        "step limit 9 of 16",
    ):
        assert row in text["Success by task"]
    for row in (
        f"{LONG} 100.0 50.0",
        "stack 25.0 0.0",
        "toy/train 62.5 30.6 to 86.3 8",
        "toy/everything_held_out 25.0 7.1 to 59.1 8",
    ):
        assert row in text["Variations"]
    for row in (f"{LONG} 100.0 0.0", "stack 25.0 25.0", "all 62.5 12.5"):
        assert row in text["Blind controls"]
    assert "The same episodes, those of train, with the instruction of another task" in text["Blind controls"]


def test_groups_of_tasks_are_shown_with_their_means_and_the_controls(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", groups={"easy": ("left",), "hard": ("right",)})
    page = Page(write_report(run.root).read_text())
    text = re.sub(r"\s+", " ", page.text["Success by task"])
    assert "By group of tasks" in text
    assert "hard 100.0 34.2 to 100.0 0.0 0.0" in text
    assert "mean over groups 100.0" in text and "mean over tasks 100.0" in text
    assert "Mean over groups 100.0 %" in page.text[""]
    alone = Page(write_report(evaluated(tmp_path / "alone").root).read_text())
    assert "By group of tasks" not in alone.text["Success by task"]
    assert "Mean over tasks 100.0 %" in alone.text[""]


def test_ablations_are_shown_if_they_exist(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run")
    lost = {"difference": -12.5, "difference_interval": [-20.0, -5.0], "p_value_holm": 0.004}
    run.experts.write_text(json.dumps({"ablations": [{"layer": 1, "expert": 3, "all": lost}]}))
    text = re.sub(r"\s+", " ", Page(write_report(run.root).read_text()).text["Experts by task"])
    assert "1, 3 -12.5 -20.0 to -5.0 0.004" in text


def begun_with(run: RunFolder, policy: Policy) -> RunFolder:
    """The run as one that fine-tuned that policy, with a video of a fixed episode."""
    specs = [
        spec for variation in ("train", "dim") for spec in evaluation_specs("sides", ["left", "right"], 2, variation)
    ]
    write_eval_info(run.before.eval_info, eval_info(evaluate_here(policy, SidesWorld(2), specs), {}))
    (before,), (after,) = (collect(p, SidesWorld(1), specs[:1], all_frames=True) for p in (policy, Reader()))
    write_comparison(run.videos / "fixed.mp4", before, after, failures=("step limit", None), control_dt_s=0.1)
    run.changes.write_text(json.dumps({"fixed": {"id": specs[0].id, "video": "videos/fixed.mp4"}}))
    return run


def test_a_fine_tuning_run_shows_the_comparison_with_the_initial_policy(tmp_path: Path) -> None:
    page = Page(write_report(begun_with(evaluated(tmp_path / "run"), BlackFrames(Reader())).root).read_text())
    text = re.sub(r"\s+", " ", page.text["Before and after"])
    assert "0.0 % -> 100.0 % of 8 episodes: 8 won, 0 lost, p = 0.0078" in text
    assert "left 0.0 100.0 4 0" in text
    assert "left · fixed sides/left/train/1000000" in text
    assert page.tags.count("video") == 5
    assert len(page.fetched) == 10


def test_evaluations_of_different_episodes_are_reported_as_not_comparable(tmp_path: Path) -> None:
    run = begun_with(evaluated(tmp_path / "run"), Reader())
    specs = evaluation_specs("sides", ["left"], 3)
    write_eval_info(run.eval_info, eval_info(evaluate_here(Reader(), SidesWorld(2), specs), {}))
    page = Page(write_report(run.root).read_text())
    assert "of different episodes: the evaluations share 2 of 9 episodes" in page.text["Before and after"]
    assert page.tags.count("video") == 0


def test_the_report_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = write_report(evaluated(tmp_path / "run").root).read_text()
    page = Page(html)
    assert len(page.fetched) == 8, "four videos and their posters"
    assert all(value.startswith("data:") for value in page.fetched)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)


def test_text_of_a_run_is_escaped(tmp_path: Path) -> None:
    html = write_report(evaluated(tmp_path / "run").root).read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_the_report_of_a_new_run_lists_everything_absent(tmp_path: Path) -> None:
    run = start_run(tmp_path / "run", Config())
    page = Page(write_report(run.root).read_text())
    assert list(page.text)[1:] == SECTIONS
    absent = [section for section in SECTIONS if "Absent" in page.text[section]]
    assert absent == [s for s in SECTIONS if s not in ("Auxiliary losses", "Config")]


def test_the_report_of_a_mere_evaluation_lists_the_missing_parts(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "run", controls=False)
    run.record_file.unlink()
    page = Page(write_report(run.root).read_text())
    assert "llamarm eval --controls" in page.text["Blind controls"]
    assert "run.json does not exist" in page.text["Config"]
    assert "100.0" in page.text["Success by task"]


def test_a_folder_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither a run \(run.json\) nor an evaluation \(eval_info.json\)"):
        write_report(tmp_path)


def test_omitted_and_missing_videos_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluated(tmp_path / "run")
    left = run.videos / "left-train-1000000-success.mp4"
    (run.videos / "right-dim-1000000-success.mp4").unlink()
    monkeypatch.setattr(report, "VIDEO_LIMIT_MB", left.stat().st_size * 1.5 / 1e6)
    page = Page(write_report(run.root).read_text())
    assert page.tags.count("video") == 1
    text = page.text["Videos"]
    assert "videos/right-train-1000000-success.mp4, videos/left-dim-1000000-success.mp4" in text
    assert "not on disk: videos/right-dim-1000000-success.mp4" in text


def test_of_a_repeated_step_the_later_value_counts(tmp_path: Path) -> None:
    for first, value in ((0, 1.0), (2, 2.0)):
        with SummaryWriter(tmp_path) as log:
            for step in range(first, first + 4):
                log.add_scalar("loss/total", value, step)
    (curve,) = read_curves(tmp_path)
    assert curve == Curve(tag="loss/total", steps=(0, 1, 2, 3, 4, 5), values=(1.0, 1.0, 2.0, 2.0, 2.0, 2.0))


def test_a_long_curve_is_subsampled_with_its_ends() -> None:
    steps = tuple(range(100_000))
    svg = draw_curve(Curve(tag="a<b", steps=steps, values=tuple(float(s) for s in steps)))
    assert svg.count("\nL ") < 2 * MAX_POINTS
    assert 'aria-label="a&lt;b"' in svg
    assert "var(--accent)" in svg
    assert "#0102" not in svg
