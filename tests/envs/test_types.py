"""The language of the worlds: where a calibrated camera shows a point, and a world's spec through JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from envs.seeds import seed_of
from envs.types import OUTSIDE, CameraSpec, EpisodeSpec, VectorSpec, WorldSpec, why_failed

# At (0, 0, 2) it looks down, x to the right and y up; its frame ends 1 m to each side of what lies 1 m ahead.
OVERHEAD = CameraSpec(
    name="overhead", height=8, width=8, projection=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 2.0)
)


def test_points_appear_where_the_projection_puts_them() -> None:
    points_m = np.array([(0.0, 0.0, 0.0), (1.0, 0.5, 0.0), (0.5, -0.5, 1.0), (9.0, 0.0, 0.0), (0.0, 0.0, 3.0)])
    expected = [(0.0, 0.0), (0.5, -0.25), (0.5, 0.5), (OUTSIDE, 0.0), (OUTSIDE, OUTSIDE)]  # far off; behind the camera
    places = OVERHEAD.project(points_m)
    assert places.dtype == np.float32
    np.testing.assert_allclose(places, expected)
    np.testing.assert_array_equal(OVERHEAD.project(points_m[None]), places[None])


def test_projecting_without_a_projection_and_incomplete_projections_are_rejected() -> None:
    with pytest.raises(ValueError, match="'overhead' has no projection"):
        dataclasses.replace(OVERHEAD, projection=None).project(np.zeros(3))
    with pytest.raises(ValueError, match=r"projection of camera 'overhead' must be 3 x 4 numbers, got \(1.0, 2.0\)"):
        dataclasses.replace(OVERHEAD, projection=(1.0, 2.0))


def test_a_world_spec_round_trips_through_json_and_older_cameras_have_no_projection() -> None:
    hand = VectorSpec(names=tuple("xyz"), units=("m",) * 3, low=(-1.0,) * 3, high=(1.0,) * 3, position=(0, 1, 2))
    plain = CameraSpec(name="wrist", height=4, width=4)
    spec = WorldSpec(cameras=(OVERHEAD, plain), state=hand, action=hand, localization=hand, control_dt_s=0.1)
    content = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert WorldSpec.of(content) == spec
    for camera in content["cameras"]:
        del camera["projection"]
    assert WorldSpec.of(content).cameras == (dataclasses.replace(OVERHEAD, projection=None), plain)


def test_grippers_and_hand_position_are_explicit_and_not_inferred_from_names() -> None:
    names, one = ("gripper_dx", "gripper_dy", "gripper_dz", "gripper"), (1.0,) * 4

    def spec(**said: Any) -> VectorSpec:
        return VectorSpec(names=names, units=("m",) * 4, low=(-1.0,) * 4, high=one, **said)

    assert (spec().grippers, spec().position) == ((), ())
    assert not spec().is_gripper.any()
    said = spec(grippers=(3,), position=(0, 1, 2))
    assert (said.grippers, said.position) == ((3,), (0, 1, 2))
    assert said.is_gripper.tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match="must be elements 0 to 3"):
        spec(grippers=(4,))
    with pytest.raises(ValueError, match=r"three elements, x, y and z, got \(1, 2\)"):
        spec(position=(1, 2))


def test_grippers_and_hand_position_of_older_specs_are_inferred_from_names_and_units() -> None:
    def of_before(names: tuple[str, ...], *units: str) -> WorldSpec:
        size = len(units)
        some = VectorSpec(names=names, units=units, low=(-1.0,) * size, high=(1.0,) * size)
        spec = WorldSpec(cameras=(), state=some, action=some, localization=some, control_dt_s=0.1)
        content = json.loads(json.dumps(dataclasses.asdict(spec)))
        for vector in ("state", "action", "localization"):
            del content[vector]["grippers"], content[vector]["position"], content[vector]["places"]
        return WorldSpec.of(content)

    read = of_before(("a", "b", "c", "gripper", "e", "f", "left_gripper"), "rad", "m", "m", "1", "m", "m", "m")
    assert (read.state.position, read.action.grippers) == ((4, 5, 6), (3, 6))
    assert (read.action.position, read.state.grippers, read.localization.position) == ((), (), ())
    assert of_before(("x", "y", "z"), "m", "m", "rad").state.position == ()
    unsaid = dataclasses.replace(read, action=dataclasses.replace(read.action, grippers=()))
    assert read.differences(unsaid) == []  # a policy of before acts where nobody says so


def labels_of_before(names: tuple[str, ...], *cameras: str) -> tuple[tuple[str, int, int], ...]:
    """The places of labels that a file of before names so."""
    none = VectorSpec(names=(), units=(), low=(), high=())
    size = len(names)
    labels = VectorSpec(names=names, units=("1",) * size, low=(-1.0,) * size, high=(1.0,) * size)
    views = tuple(CameraSpec(name=name, height=8, width=8) for name in cameras)
    spec = WorldSpec(cameras=views, state=none, action=none, localization=labels, control_dt_s=0.1)
    content = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert WorldSpec.of(content).localization.places == (), "a file that says places means what it says"
    del content["localization"]["places"]
    return WorldSpec.of(content).localization.places


def test_image_coordinates_of_older_specs_are_inferred_from_label_names() -> None:
    names = ("x", "cup_front_u", "cup_front_v", "lid_front_u", "lid_front_v")
    assert labels_of_before(names, "front", "wrist") == (("front", 1, 2), ("front", 3, 4))
    names = ("cup_image_u", "cup_image_v", "cup_wrist_image_u", "cup_wrist_image_v")
    expected = (("image", 0, 1), ("wrist_image", 2, 3))
    assert labels_of_before(names, "image", "wrist_image") == expected, "of the camera with the longest name"
    with pytest.raises(ValueError, match="'cup_front_u' is a place in a frame, but there is no 'cup_front_v'"):
        labels_of_before(("cup_front_u", "x"), "front")


def test_image_coordinates_round_trip_through_json_and_are_pairs_of_labels() -> None:
    none = VectorSpec(names=(), units=(), low=(), high=())
    labels = VectorSpec(names=("a", "b"), units=("1",) * 2, low=(-1.0,) * 2, high=(1.0,) * 2, places=(("front", 1, 0),))
    spec = WorldSpec(cameras=(), state=none, action=none, localization=labels, control_dt_s=0.1)
    content = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert WorldSpec.of(content) == spec
    with pytest.raises(ValueError, match=r"places \(\('front', 1, 2\),\) .*must be elements 0 to 1 of a, b"):
        dataclasses.replace(labels, places=(("front", 1, 2),))
    with pytest.raises(ValueError, match=r"a place is \(camera, u, v\), got \(\('front', 1\),\)"):
        dataclasses.replace(labels, places=(("front", 1),))
    content["localization"]["places"][0][0] = 3
    with pytest.raises(ValueError, match="3 is a name, a unit or a camera of the localization"):
        WorldSpec.of(content)


def test_a_calibrated_camera_needs_a_state_with_the_hand_position() -> None:
    x = VectorSpec(names=("x",), units=("m",), low=(-1.0,), high=(1.0,))
    with pytest.raises(
        ValueError, match=r"'overhead' has a projection.*does not give the elements of the hand's position: x"
    ):
        WorldSpec(cameras=(OVERHEAD,), state=x, action=x, localization=x, control_dt_s=0.1)


def test_a_policy_seed_is_the_same_in_every_process_and_different_for_every_spec() -> None:
    spec = EpisodeSpec(suite="tabletop", task="pick_place", seed=7)
    assert spec.policy_seed == seed_of("tabletop", "pick_place", "train", 7, 0) == 1730829779847505154
    others = [dataclasses.replace(spec, **{name: "other"}) for name in ("suite", "task", "variation")]
    others += [dataclasses.replace(spec, seed=seed, repeat=repeat) for seed in range(50) for repeat in range(2)]
    assert len({other.policy_seed for other in others}) == len(others)
    assert all(0 <= other.policy_seed < 2**63 for other in others)
    assert dataclasses.replace(spec, seed=np.int64(7)).policy_seed == spec.policy_seed


def test_seeds_of_differently_split_parts_differ() -> None:
    assert len({seed_of("a", 12), seed_of("a1", 2), seed_of("a", "12"), seed_of("a", 1, 2), seed_of(12, "a")}) == 5


@pytest.mark.parametrize("seed", [-1, 1.0, float("nan"), "7", True, None])
def test_the_seed_of_an_episode_must_be_a_whole_number(seed: object) -> None:
    for name in ("seed", "repeat"):
        fields: dict[str, Any] = {"suite": "s", "task": "t", "seed": 0, name: seed}
        with pytest.raises(ValueError, match=f"the {name} of an episode is a whole number of at least 0, got "):
            EpisodeSpec(**fields)


def test_the_outcome_of_an_episode_is_text() -> None:
    assert why_failed(success=True, failure=None, truncated=True) is None
    assert why_failed(success=False, failure="dropped", truncated=True) == "dropped"
    assert why_failed(success=False, failure=None, truncated=True) == "step limit"
    assert why_failed(success=False, failure=None, truncated=False) == "ended by the task"
