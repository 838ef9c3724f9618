"""What a chunk launches, counted on Warp's CPU device: the same kernels and operations as on a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import warp as wp

from benchmarks.gpu import decisions, worlds
from benchmarks.gpu.__main__ import STEPS, Options, main
from benchmarks.gpu.launches import counted


@wp.kernel
def _add_one(values: wp.array[float]) -> None:
    values[wp.tid()] = values[wp.tid()] + 1.0


def test_kernels_are_counted_one_by_one_and_in_graphs_and_torch_by_what_it_computes() -> None:
    values = wp.zeros(3)
    with counted() as recording:
        wp.launch(_add_one, 3, [values])
        with wp.ScopedCapture(device="cpu") as capture:
            for _ in range(5):
                wp.launch(_add_one, 3, [values])
    with counted() as counts:
        for _ in range(2):
            wp.capture_launch(capture.graph)
        tensor = torch.ones(4, 2)  # a kernel
        tensor.view(8)[2:].unsqueeze(0).contiguous()  # views
        (tensor + 1.0).t().contiguous()  # a sum and a copy
    assert (recording.kernels, recording.graphs) == ({"_add_one": 1}, 0)
    assert (counts.kernels, counts.graphs, counts.simulator) == ({"_add_one": 10}, 2, 0)
    assert counts.torch == {"aten.ones.default": 1, "aten.add.Tensor": 1, "aten.clone.default": 1}
    assert counts.own == 13
    assert values.numpy().tolist() == [11.0] * 3


def test_a_chunk_of_every_task_launches_at_most_40_kernels_besides_the_simulators() -> None:
    counts = worlds.counts_of_chunk("warp")
    assert counts.own <= 40, counts
    assert counts.graphs == 2, "a chunk, and the kinematics of its frames"
    assert counts.simulator > 1000


@pytest.mark.parametrize(("sample", "most"), [(False, 10), (True, 40)])
def test_a_decision_launches_little_besides_its_graph(sample: bool, most: int) -> None:
    whole, within = decisions.counts_of_decision(sample=sample)
    assert 0 < whole.own - within.own <= most, whole.torch - within.torch


def test_a_step_runs_once_and_one_that_fails_is_named_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("in the way of the run's folder")
    page = tmp_path / "page.md"
    page.write_text("# Old\n\n## Measured earlier\n\nby someone\n")
    options = Options(out=tmp_path, small=True, steps=("learner", "demo"), page=page)
    with pytest.raises(SystemExit):
        main(options)
    text = page.read_text()
    assert "## An update of nano" in text and "- demo: failed" in text
    assert text.endswith("## Measured earlier\n\nby someone\n") and "# Old" not in text

    result = tmp_path / "learner.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"graph_s": 5.0}))
    main(replace(options, steps=("learner",)))
    assert "captured 5000.0 ms" in page.read_text(), "its file is there, so it was not run again"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_small_form_is_offered(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no NVIDIA GPU; --small runs the same steps"):
        main(Options(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_the_small_form_measures_every_step(tmp_path: Path) -> None:
    main(Options(out=tmp_path, small=True))
    assert {path.stem for path in tmp_path.glob("*.json")} == set(STEPS)
    text = (tmp_path / "gpu.md").read_text()
    assert "Missing" not in text
    for heading in ("launched", "Worlds on MuJoCo Warp", "A decision", "An update", "command line", "Agreement"):
        assert heading in text, heading
