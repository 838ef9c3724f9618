"""Which datasets are refused, and that nothing is decoded of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edits import PROJECTION, actions_of, change_info
from fake_world import WORLD_SPEC, CountingPolicy, FakeWorld, fake_spec
from numpy.typing import NDArray
from test_batches import write

from envs.types import VectorSpec
from rollout.collect import collect
from rollout.dataset.batches import TrainingData
from rollout.dataset.write import DatasetWriter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec["action"].update(units=["0.10 m", "0.05 m", "1"]), "action units are .'0.10 m'"),
        (lambda spec: spec["state"].update(units=["mm", "1"]), "state units are .'mm'"),
        (lambda spec: spec["state"].update(low=[-9.0, -99.0]), "state low are .-9.0"),
        (lambda spec: spec["action"].update(high=[1.0, 1.0, 0.5]), "action high are .1.0, 1.0, 0.5"),
        (lambda spec: spec["localization"].update(units=["cm"] * 3), "localization units are .'cm'"),
        (lambda spec: spec.update(control_dt_s=0.051), "control_dt_s is 0.051, expected 0.05"),
    ],
)
@pytest.mark.parametrize("role", ["roots", "drives", "auxiliary"])
def test_worlds_that_differ_in_anything_are_not_mixed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str, role: str
) -> None:
    write(tmp_path / "a", [1])
    write(tmp_path / "b", [2])
    change_info(tmp_path / "b", lambda info: change(info["llamarm"]["world_spec"]))
    roots = {"roots": [tmp_path / "a"]}
    roots[role] = [*roots.get(role, []), tmp_path / "b"]
    with pytest.raises(ValueError, match=f"b is of another kind.*\n  {message}"):
        TrainingData(**roots)
    assert not list(tmp_path.glob("*.cache"))


def test_cameras_that_look_from_elsewhere_are_not_mixed_and_one_that_is_not_calibrated_is_no_difference(
    tmp_path: Path,
) -> None:
    front, wrist = WORLD_SPEC.cameras
    state = VectorSpec(names=("x", "y", "z"), units=("m",) * 3, low=(-9.0,) * 3, high=(9.0,) * 3, position=(0, 1, 2))
    for name, projection in (("a", PROJECTION), ("b", PROJECTION[::-1]), ("c", None)):
        seen = dataclasses.replace(front, projection=projection and tuple(projection))
        spec = dataclasses.replace(WORLD_SPEC, state=state, cameras=(seen, wrist))
        (t,) = collect(CountingPolicy(3), FakeWorld(1), [fake_spec(1)], all_frames=True)
        with DatasetWriter(tmp_path / name, spec, robot_type="fake") as writer:
            writer.append(dataclasses.replace(t, state=np.pad(t.state, ((0, 0), (0, 1)))))
    with pytest.raises(ValueError, match="camera 'front' has another pose"):
        TrainingData([tmp_path / "a", tmp_path / "b"])
    assert TrainingData([tmp_path / "a", tmp_path / "c"]).num_rows == 8


@pytest.mark.parametrize("role", ["roots", "drives", "auxiliary"])
def test_a_dataset_that_is_named_twice_is_refused(tmp_path: Path, role: str) -> None:
    write(tmp_path / "a", [1])
    roots = {"roots": [tmp_path / "a"]}
    roots[role] = [*roots.get(role, []), tmp_path / "b" / ".." / "a"]
    with pytest.raises(ValueError, match=r"/a is named twice, so its rows would count twice; name it once"):
        TrainingData(**roots)


def test_a_dataset_that_does_not_say_its_units_is_not_mixed_with_one_that_does(tmp_path: Path) -> None:
    write(tmp_path / "a", [1])
    write(tmp_path / "b", [2])
    change_info(tmp_path / "b", lambda info: info.pop("llamarm"))
    with pytest.raises(ValueError, match=r"b is of another kind.*\n  it is a recording of another program"):
        TrainingData([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match=r"a is of another kind.*\n  state units are"):
        TrainingData([tmp_path / "b", tmp_path / "a"])
    assert not list(tmp_path.glob("*.cache"))


def test_the_policy_s_world_counts_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path / "a", [1])
    action = dataclasses.replace(WORLD_SPEC.action, units=("0.10 m", "0.05 m", "1"))
    with pytest.raises(ValueError, match=r"differs from the policy's:\n  action units are .'0.05 m'"):
        TrainingData([tmp_path / "a"], world_spec=dataclasses.replace(WORLD_SPEC, action=action))
    fewer = dataclasses.replace(WORLD_SPEC, cameras=WORLD_SPEC.cameras[:1])
    assert TrainingData([tmp_path / "a"], world_spec=fewer).world_spec == fewer, "it may look through fewer cameras"


def test_actions_that_no_policy_sends_are_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    write(tmp_path / "a", [1, 2])  # 4 and 5 rows

    def spoil(actions: NDArray[Any]) -> None:
        actions[2, 1], actions[3, 1] = 1.5, -2.5

    actions_of(tmp_path / "a/data/chunk-000/file-001.parquet", spoil)
    message = r"outside \[-1, 1\].*'dy' in 22.22% of rows, up to 2.5 in episode 1, frame 3;"
    with pytest.raises(ValueError, match=message):
        TrainingData([tmp_path / "a"])
    assert not (tmp_path / "a.cache").exists()
    write(tmp_path / "b", [3])
    TrainingData([tmp_path / "b"], auxiliary=[tmp_path / "a"])
    with pytest.raises(ValueError, match=message):
        TrainingData([tmp_path / "a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path: Path, bad: float) -> None:
    write(tmp_path / "a", [1, 2])

    def spoil(actions: NDArray[Any]) -> None:
        actions[3, 2] = bad

    actions_of(tmp_path / "a/data/chunk-000/file-001.parquet", spoil)
    with pytest.raises(ValueError, match=r"not finite in 1 of 9 rows; the first is (nan|inf) in 'gripper', episode 1"):
        TrainingData([tmp_path / "a"])
    assert not (tmp_path / "a.cache").exists()
