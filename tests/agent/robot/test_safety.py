"""The safety filter against hand-computed limits, and with random actions."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from line_arm import WORLD_SPEC
from numpy.typing import NDArray

from agent.robot.robots.tabletop import axes_of, watched_of
from agent.robot.safety import SafetyFilter
from agent.robot.types import Axis, Limits, Reading, RobotSpec, Watch
from envs.tabletop.arm.control import CONTROL_DT_S, action_spec
from envs.tabletop.arm.panda import PANDA
from envs.tabletop.episodes.reading import state_spec
from envs.types import VectorSpec, WorldSpec

DT_S = 0.1


def spec_of(*axes: Axis, watched: tuple[Watch, ...] = ()) -> RobotSpec:
    """A robot whose state is the positions of its axes."""
    names = tuple(axis.state or f"blind_{i}" for i, axis in enumerate(axes))
    size = len(names)
    vector = VectorSpec(names=names, units=("unit",) * size, low=(-99.0,) * size, high=(99.0,) * size)
    return RobotSpec(name="test", world=replace(WORLD_SPEC, state=vector, action=vector), axes=axes, watched=watched)


def array(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def limited(filter_: SafetyFilter, action: float, state: float) -> tuple[Any, set[str]]:
    """An action of one axis after the limits, and the limits that changed it; it is then sent."""
    sent, changes = filter_.limited(array(action), array(state))
    filter_.was_sent(sent, array(state), resting=False)
    return pytest.approx(float(sent[0]), abs=1e-6), set(changes)


def relative(**limits: float) -> SafetyFilter:
    return SafetyFilter(spec_of(Axis(state="x", relative=True, scale=0.5, limits=Limits(**limits))))


def absolute(**limits: float) -> SafetyFilter:
    """Action 1 is position 30, -1 is 10."""
    return SafetyFilter(spec_of(Axis(state="x", relative=False, scale=10.0, offset=20.0, limits=Limits(**limits))))


def test_actions_within_every_limit_are_unchanged() -> None:
    for filter_ in (relative(low=-9, high=9, max_velocity=9, max_acceleration=99, max_change=9), absolute()):
        assert limited(filter_, 0.3, 1.0)[0] == 0.3
        assert limited(filter_, -0.2, 1.0) == (-0.2, set())


def test_a_displacement_ends_at_the_workspace_bound() -> None:
    """0.5 units per step, 0.2 left: 0.4 of the action."""
    assert limited(relative(high=2.0), 1.0, 1.8) == (0.4, {"position"})
    assert limited(relative(low=1.7), -1.0, 1.8) == (-0.2, {"position"})


def test_outside_the_workspace_an_axis_may_only_rest_or_return() -> None:
    assert limited(relative(high=2.0), 0.5, 2.3) == (0.0, {"position"})
    assert limited(relative(high=2.0), 0.0, 2.3) == (0.0, set())
    assert limited(relative(high=2.0), -0.5, 2.3) == (-0.5, set())


def test_a_target_stays_within_its_joints_range_and_velocity() -> None:
    assert limited(absolute(high=28.0), 1.0, 27.0) == (0.8, {"position"})
    assert limited(absolute(max_velocity=20.0), 1.0, 20.0) == (0.2, {"velocity"}), "2 units in 0.1 s: target 22"


def test_acceleration_is_limited_from_rest_and_from_the_last_action() -> None:
    """10 unit/s^2 are 1 unit/s more in each 0.1 s: 0.1 units, 0.2 of the action."""
    filter_ = relative(max_acceleration=10.0)
    assert [limited(filter_, 1.0, 0.0) for _ in range(6)] == [
        (0.2, {"acceleration"}),
        (0.4, {"acceleration"}),
        (0.6, {"acceleration"}),
        (0.8, {"acceleration"}),
        (1.0, set()),
        (1.0, set()),
    ]
    assert limited(filter_, -1.0, 0.0) == (0.8, {"acceleration"})
    filter_.was_sent(array(0.0), array(0.0), resting=True)
    assert limited(filter_, 1.0, 0.0) == (0.2, {"acceleration"}), "a hold is rest"


def test_the_change_between_two_actions_is_limited() -> None:
    filter_ = relative(max_change=0.25)
    assert limited(filter_, 0.9, 0.0) == (0.9, set()), "the first has none before it"
    assert limited(filter_, -1.0, 0.0) == (0.65, {"change"})


def test_an_axis_without_a_state_can_have_no_limit_that_needs_one() -> None:
    spec_of(Axis(relative=True, limits=Limits(max_velocity=1.0, max_acceleration=1.0, max_change=1.0)))
    for axis in (
        Axis(relative=True, limits=Limits(high=1.0)),
        Axis(relative=False, limits=Limits(max_velocity=1.0)),
    ):
        with pytest.raises(ValueError, match="limits that need a state"):
            spec_of(axis)


def test_rest_is_zero_displacement_and_the_last_target() -> None:
    filter_ = SafetyFilter(
        spec_of(
            Axis(state="x", relative=True),
            Axis(state="elbow", relative=False, scale=90.0),
            Axis(relative=False),
        )
    )
    state = array(3.0, 45.0, 7.0)
    filter_.begin(state)
    assert filter_.rest().tolist() == [0.0, 0.5, 0.0], "before anything was sent, a target is where the axis is"
    filter_.was_sent(array(0.7, -0.25, 0.9), state, resting=False)
    assert filter_.rest().tolist() == pytest.approx([0.0, -0.25, 0.9])


def test_after_rest_acceleration_is_limited_from_zero_velocity() -> None:
    """5 units/s2 and 0.1 s allow 0.5 more in a period: 1.0 after 0.5, and 0.5 again after a rest."""
    filter_ = relative(max_acceleration=5.0)
    assert [limited(filter_, 1.0, 0.0)[0] for _ in range(2)] == [0.1, 0.2]
    filter_.came_to_rest()
    assert limited(filter_, 1.0, 0.0) == (0.1, {"acceleration"})


@pytest.mark.parametrize("max_acceleration", [3.0, 20.0, inf])
@pytest.mark.parametrize("is_relative", [True, False])
def test_an_arm_that_follows_its_commands_never_exceeds_a_limit(is_relative: bool, max_acceleration: float) -> None:
    """Random actions with all limits at once; the arm brakes in time for the bounds, so acceleration is limited too."""
    limits = Limits(low=-1.5, high=2.0, max_velocity=4.0, max_acceleration=max_acceleration)
    axis = Axis(state="x", relative=is_relative, scale=1.0 if is_relative else 5.0, limits=limits)
    filter_, rng = SafetyFilter(spec_of(axis)), np.random.default_rng(0)
    x, velocity, extremes = 0.0, 0.0, []
    for _ in range(2000):
        wanted = array(np.clip(rng.normal(rng.choice([-1.0, 1.0]) * 0.7, 0.5), -1, 1))
        sent, _ = filter_.limited(wanted, array(x))
        filter_.was_sent(sent, array(x), resting=False)
        target = axis.scale * float(sent[0]) + (x if is_relative else axis.offset)
        before, velocity, x = velocity, (target - x) / DT_S, target
        assert -1.5 - 1e-5 <= x <= 2.0 + 1e-5
        assert abs(velocity) <= 4.0 + 1e-4
        assert abs(velocity - before) <= max_acceleration * DT_S + 1e-4
        extremes.append(x)
    assert min(extremes) < -1.0 and max(extremes) > 1.5, "the limits were met"


def test_an_axis_outside_the_action_range_rests_or_returns_within_its_limits() -> None:
    """Action 1 is 100; the axis stands at 120. 10 units/s are one unit in a period: an action 0.01 smaller."""
    filter_ = SafetyFilter(spec_of(Axis(state="x", relative=False, scale=100.0, limits=Limits(max_velocity=10.0))))
    filter_.begin(array(120.0))
    assert filter_.rest().tolist() == pytest.approx([1.2])
    assert limited(filter_, 1.0, 120.0) == (1.19, {"velocity"})
    assert limited(filter_, 1.5, 119.0) == (1.19, {"range"}), "nothing goes further out"
    assert limited(filter_, -1.0, 100.5) == (0.995, {"velocity"})
    assert limited(filter_, -1.0, 99.5) == (0.985, {"velocity"})


def test_the_action_range_is_braked_for_like_a_joint_limit() -> None:
    """One unit before the last target, coming at 50 units/s: v = 2 d / (dt + sqrt(dt^2 + 2 d / a)), at a = 500.

    sqrt(0.01 + 0.004) = 0.11832, v = 2 / 0.21832 = 9.1609, which ends at 99.91609.
    """
    filter_ = SafetyFilter(spec_of(Axis(state="x", relative=False, scale=100.0, limits=Limits(max_acceleration=500.0))))
    filter_.was_sent(array(0.99), array(94.0), resting=False)
    assert limited(filter_, 1.0, 99.0) == (pytest.approx(0.9991609, abs=1e-6), {"position"})


def test_holding_returns_a_displaced_axis_to_its_target_within_its_velocity_limit() -> None:
    filter_ = absolute(max_velocity=20.0)
    filter_.was_sent(array(0.0), array(20.0), resting=False)
    assert filter_.trouble_with(reading(26.0, 0.0), 0.0, 1.0) is None
    assert filter_.rest().tolist() == pytest.approx([0.4]), "from 26 to 24, the target being 20"
    filter_.was_sent(filter_.rest(), array(26.0), resting=True)
    assert filter_.trouble_with(reading(21.0, 0.1), 0.1, 1.0) is None
    assert filter_.rest().tolist() == [0.0], "the target is the same as before"


def random_axis(rng: np.random.Generator, number: int) -> Axis:
    """With any of the limits, none of them, or all."""

    def perhaps(low: float, high: float) -> float:
        return float(rng.uniform(low, high)) if rng.random() < 0.6 else inf

    scale, offset = float(rng.choice([-1, 1]) * rng.uniform(0.05, 5.0)), float(rng.uniform(-2, 2))
    limits = Limits(
        low=-perhaps(0.0, 3.0) if abs(offset) < abs(scale) else -inf,
        high=perhaps(2.0, 5.0),
        max_velocity=perhaps(0.1, 20.0),
        max_acceleration=perhaps(1.0, 300.0),
        max_change=perhaps(0.02, 1.0),
    )
    return Axis(state=f"x{number}", relative=bool(rng.random() < 0.5), scale=scale, offset=offset, limits=limits)


def bounds_of(axis: Axis, x: float, last_velocity: float, last_action: float | None) -> list[tuple[float, float]]:
    """The interval of the velocity by each limit, the most important first."""
    limits, reach = axis.limits, abs(axis.scale)
    low, high = limits.low, limits.high
    if not axis.relative:
        low, high = max(low, axis.offset - reach), min(high, axis.offset + reach)

    def braking(room: float) -> float:
        room = min(max(room, 0.0), 1e9)
        return 2 * room / (DT_S + np.sqrt(DT_S**2 + 2 * room / limits.max_acceleration))

    fastest = min(limits.max_velocity, reach / DT_S) if axis.relative else limits.max_velocity
    gain = limits.max_acceleration * DT_S
    bounds = [(-braking(x - low), braking(high - x)), (-fastest, fastest), (last_velocity - gain, last_velocity + gain)]
    if last_action is not None:
        start = 0.0 if axis.relative else axis.offset - x
        ends = [(start + axis.scale * (last_action + side * limits.max_change)) / DT_S for side in (-1, 1)]
        bounds.append((min(ends), max(ends)))
    return bounds


def common(bounds: list[tuple[float, float]]) -> tuple[float, float]:
    """The intersection; for an interval disjoint from it, its nearest point."""
    low, high = bounds[0]
    for lower, upper in bounds[1:]:
        low, high = float(np.clip(lower, low, high)), float(np.clip(upper, low, high))
    return low, high


@pytest.mark.parametrize("seed", range(40))
def test_random_commands_to_random_robots_stay_within_all_limits(seed: int) -> None:
    """The bounds are computed here axis by axis and limit by limit, as intervals of the velocity."""
    rng = np.random.default_rng(seed)
    axes = tuple(random_axis(rng, number) for number in range(3))
    filter_ = SafetyFilter(spec_of(*axes))
    scale = np.array([axis.scale for axis in axes])
    x = rng.uniform(-4, 6, 3)
    filter_.begin(x.astype(np.float32))
    last_action: NDArray[np.float64] | None = None
    last_velocity = np.zeros(3)
    for _ in range(200):
        state = x.astype(np.float32)
        resting = rng.random() < 0.2
        if resting:
            seen = Reading(frames={"front": np.zeros((4, 6, 3), np.uint8)}, state=state, time_s=0.0)
            assert filter_.trouble_with(seen, 0.0, 1.0) is None
            sent = filter_.rest()
        else:
            sent, _ = filter_.limited(rng.uniform(-3, 3, 3).astype(np.float32), state)
        filter_.was_sent(sent, state, resting=resting)
        start = np.array([0.0 if axis.relative else axis.offset - at for axis, at in zip(axes, state, strict=True)])
        velocity = (start + scale * sent) / DT_S
        for i, axis in enumerate(axes):
            assert abs(velocity[i]) <= axis.limits.max_velocity + 1e-3
            if not resting:
                before = None if last_action is None else float(last_action[i])
                low, high = common(bounds_of(axis, float(state[i]), float(last_velocity[i]), before))
                assert low - 1e-3 <= velocity[i] <= high + 1e-3
        last_action, last_velocity = sent.astype(np.float64), np.zeros(3) if resting else velocity
        x = rng.uniform(-4, 6, 3) if rng.random() < 0.1 else x + velocity * DT_S  # now and then somebody moves it


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"low": 2.0, "high": 1.0}, "low is 2.0 and high is 1.0"),
        ({"low": nan}, "low is nan"),
        ({"high": nan}, "high is nan"),
        ({"max_velocity": 0.0}, "max_velocity is 0.0, expected a number above 0"),
        ({"max_velocity": -1.0}, "max_velocity is -1.0"),
        ({"max_acceleration": nan}, "max_acceleration is nan"),
        ({"max_change": 0.0}, "max_change is 0.0"),
    ],
)
def test_invalid_limits_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limits(**wrong)


def test_invalid_axes_and_rates_are_refused_by_robot_spec() -> None:
    for axis, words in (
        (Axis(relative=True, scale=0.0), "scale 0"),
        (Axis(relative=True, scale=nan), "scale nan and offset 0.0, expected finite"),
        (Axis(relative=False, offset=inf), "offset inf"),
        (
            Axis(state="x", relative=False, scale=10.0, limits=Limits(low=20.0, high=30.0)),
            "limited to 20 .. 30, and its actions command -10 .. 10",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            spec_of(axis)
    with pytest.raises(ValueError, match="watched state 'x': low is nan"):
        Watch(state="x", low=nan)
    sound = spec_of(Axis(state="x", relative=True))
    for dt_s in (0.0, -0.1, nan, inf):
        with pytest.raises(ValueError, match="control_dt_s"):
            replace(sound, world=replace(sound.world, control_dt_s=dt_s))


def test_a_watched_joint_outside_its_range_or_too_fast_holds_the_arm() -> None:
    watch = Watch(state="x", low=0.0, high=1.0, max_velocity=2.0)
    filter_ = SafetyFilter(spec_of(Axis(state="x", relative=True), watched=(watch,)))

    def trouble(x: float, time_s: float) -> str | None:
        found = filter_.trouble_with(reading(x, time_s), time_s, 1.0)
        return found and found[1]

    assert trouble(0.5, 0.0) is None
    assert trouble(0.7, 0.1) is None
    assert trouble(0.95, 0.2) == "x moves at 2.5/s, allowed 2/s"
    assert trouble(1.05, 0.3) == "x is 1.05, allowed 0 to 1"
    assert trouble(0.65, 0.5) is None, "0.4 in two periods"


def reading(x: float, time_s: float) -> Reading:
    return Reading(frames={"front": np.zeros((4, 6, 3), np.uint8)}, state=array(x), time_s=time_s)


def test_the_tabletop_arms_axes_use_its_state_names() -> None:
    shown = state_spec(PANDA)
    world = WorldSpec(
        cameras=(),
        state=shown,
        action=action_spec(PANDA),
        localization=WORLD_SPEC.localization,
        control_dt_s=CONTROL_DT_S,
    )
    spec = RobotSpec(name="tabletop", world=world, axes=axes_of(PANDA), watched=watched_of(PANDA))
    state = np.zeros(shown.size, np.float32)
    state[shown.names.index("gripper_opening")] = 0.06
    filter_ = SafetyFilter(spec)
    filter_.begin(state)
    rest = filter_.rest()
    assert rest.tolist() == pytest.approx([0, 0, 0, 0, 0, 0, -0.5]), "three quarters open"
    with pytest.raises(ValueError, match="has no state 'tcp_w'; states: joint1_pos"):
        replace(spec, watched=(Watch(state="tcp_w"),))
