"""LIBERO's scripted expert: its geometry on hand-made points, and each of its skills in the suite itself.

The second part is skipped where `make libero` has not built the suite's interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import pytest
from libero_interpreter import needs_libero, run_in_libero
from numpy.testing import assert_allclose

from envs.suites.libero.expert.goals import ordered
from envs.suites.libero.expert.grasps import Grasp, grasp_candidates, intervals, lean_over, ranked, twins
from envs.suites.libero.expert.hinges import ridge
from envs.suites.libero.expert.motion import DOWN, hand_frame, hand_frames, level, rotation_vector, turned
from envs.suites.libero.expert.placement import (
    clearance,
    fitted,
    free_room,
    highest_on_the_way,
    slots,
    support_height,
)
from envs.suites.libero.expert.reach import Reach, crowding, way_out
from envs.suites.libero.expert.view import box_surface

HAND = np.column_stack([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], DOWN])
"""Pointing down, closing along y."""
NOTHING = np.zeros((0, 3))


def box(centre: Sequence[float], size: Sequence[float]) -> np.ndarray:
    return box_surface(np.array(size) / 2) + np.array(centre)


def grasps(thing: np.ndarray, others: np.ndarray = NOTHING) -> list[Grasp]:
    return grasp_candidates(thing, others, thing.mean(0), HAND)


def test_a_box_s_points_lie_on_its_surface_and_8_mm_apart() -> None:
    points = box_surface(np.array([0.02, 0.004, 0.004]))
    assert len(points) == 6 * 2 * 2  # 40 mm take 5 intervals of 8 mm, 8 mm one
    assert np.abs(points).max(0).tolist() == [0.02, 0.004, 0.004]
    assert len(box_surface(np.array([0.008, 0.008, 0.008]))) == 3**3 - 1


def test_a_box_is_grasped_across_its_narrow_side_in_the_middle() -> None:
    best = grasps(box([0.1, 0.2, 0.06], [0.04, 0.10, 0.12]))[0]
    assert_allclose(best.point, [0.1, 0.2, 0.12 - 0.035], atol=1e-9)
    assert_allclose(np.abs(best.closing), [1, 0, 0], atol=1e-9)
    assert_allclose(best.axes[:, 2], DOWN)
    assert best.width == pytest.approx(0.04)


def test_a_flat_box_is_grasped_no_lower_than_the_fingers_reach() -> None:
    assert grasps(box([0, 0, 0.009], [0.04, 0.06, 0.018]))[0].point[2] == pytest.approx(0.012)


def test_what_is_wider_than_the_open_fingers_has_no_grasp() -> None:
    assert grasps(box([0, 0, 0.05], [0.09, 0.09, 0.1])) == []


def test_a_bowl_is_grasped_by_its_wall() -> None:
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    bowl = np.concatenate([box([0.06 * np.cos(a), 0.06 * np.sin(a), 0.025], [0.008, 0.008, 0.05]) for a in angles])
    best = grasps(bowl)[0]
    assert np.linalg.norm(best.point[:2]) == pytest.approx(0.06, abs=0.004)
    assert best.width < 0.02
    assert abs(best.closing @ (best.point * [1, 1, 0] / 0.06)) > 0.9, "across the wall, not along it"


def test_neighbours_leave_only_the_grasp_that_has_room() -> None:
    thing = box([0, 0, 0.05], [0.04, 0.04, 0.1])
    beside = np.concatenate([box([x, 0, 0.05], [0.04, 0.3, 0.1]) for x in (-0.06, 0.06)])
    found = grasps(thing, beside)
    assert found
    assert all(abs(grasp.closing[1]) > 0.9 for grasp in found)
    over = box([0, 0, 0.2], [0.3, 0.3, 0.02])  # the hand does not fit below
    assert grasps(thing, over) == []


def test_under_a_roof_there_are_only_grasps_for_a_leaning_hand() -> None:
    thing = box([0, 0, 0.05], [0.04, 0.04, 0.1])
    roof = box([0.06, 0, 0.2], [0.2, 0.3, 0.02])
    assert grasps(thing, roof) == []
    covered = grasp_candidates(thing, roof, thing.mean(0), HAND, covered=True)
    upright = covered[0]
    leaning = lean_over(upright, np.array([0.8, 0.0, 0.0]), 0.5)  # the tip toward +x, so the palm toward -x
    assert_allclose(leaning.axes[:, 2], [np.sin(0.8), 0, -np.cos(0.8)])
    assert leaning.cost == upright.cost + 0.5
    assert crowding(roof, 0.0, [upright.point], upright.axes) > 0.01
    assert crowding(roof, 0.0, [leaning.point], leaning.axes) == 0.0


def test_the_hand_is_as_deep_in_a_thing_or_a_table_as_the_thing_in_the_hand() -> None:
    at = np.array([0.5, 0.2, 0.3])
    below_palm = at + np.array([0.1, 0.0, 0.04])  # HAND closes along y, so 0.1 along x is beside it
    assert crowding(below_palm[None], 0.0, [at], HAND) == 0.0
    in_palm = at + np.array([0.0, 0.1, 0.045 + 0.002])
    assert crowding(in_palm[None], 0.0, [at], HAND) == pytest.approx(0.002)
    assert crowding(in_palm[None], 0.0, [at], HAND, 0.01) == pytest.approx(0.012)
    assert crowding(NOTHING, 0.295, [at], HAND) == pytest.approx(0.005)  # fingertips 10 mm below the grip site


def test_a_thing_under_an_edge_is_taken_out_the_shortest_way() -> None:
    thing = box([0.003, 0.003, 0.03], [0.1, 0.1, 0.06])
    wall = box([0.066, 0.0, 0.05], [0.004, 0.2, 0.1])
    assert way_out(thing, wall).tolist() == [0, 0], "beside it, not above"
    way = way_out(thing, box([0.0, 0.125, 0.1], [0.3, 0.2, 0.02]))  # begins at y = 0.025, and the thing ends at 0.053
    assert 0.028 <= -way[1] <= 0.05
    assert np.linalg.norm(way) <= 0.05


def test_of_grasps_the_best_with_all_costs_comes_first_and_hopeless_ones_are_not_examined() -> None:
    found = [Grasp(np.zeros(3), HAND, 0.02, cost) for cost in (3.0, 0.0, 1.0, 9.0)]
    examined: list[float] = []

    def extra(grasp: Grasp) -> float:
        examined.append(grasp.cost)
        return {0.0: 5.0, 1.0: 1.0}.get(grasp.cost, 0.0)

    order = ranked(found, extra)
    assert next(order).cost == 2.0
    assert examined == [0.0, 1.0]
    assert [grasp.cost for grasp in order] == [3.0, 5.0, 9.0]


def test_the_same_grasp_with_the_fingers_exchanged_costs_the_further_turn() -> None:
    near, far = twins(Grasp(np.zeros(3), HAND, 0.02, 1.0), HAND)
    assert_allclose(near.axes, HAND, atol=1e-12)
    assert_allclose(far.axes, HAND * [-1, -1, 1], atol=1e-12)
    assert (near.cost, far.cost) == (1.0, pytest.approx(1.0 + 0.35 * np.pi))


ONE_JOINT = """<mujoco><worldbody><body><joint name="j" axis="0 0 1" limited="true" range="{}"/>
<geom size="0.01" mass="1"/><site name="hand" pos="0.5 0 0"/></body></worldbody></mujoco>"""


@pytest.mark.parametrize(("limit_rad", "short_rad"), [(2.0, 0.0), (0.7, 0.4)])
def test_an_arm_misses_what_a_joint_s_limit_less_0_1_rad_keeps_it_from(limit_rad: float, short_rad: float) -> None:
    model = mujoco.MjModel.from_xml_string(ONE_JOINT.format(f"{np.degrees(-limit_rad)} {np.degrees(limit_rad)}"))
    reach = Reach(model, model.site("hand").id, [0], np.zeros(1))
    target = 0.5 * np.array([np.cos(1.0), np.sin(1.0), 0.0]), turned(np.eye(3), np.array([0.0, 0.0, 1.0]))
    miss = reach.miss(np.zeros(1), [target])
    assert miss == pytest.approx(0.1 * short_rad, abs=0.005)  # 0.1 m per rad
    home = np.array([0.5, 0.0, 0.0]), np.eye(3)
    assert reach.miss(np.zeros(1), [target, home]) == pytest.approx(miss), "the worst of all poses"


def test_intervals_end_at_gaps_wider_than_22_mm() -> None:
    assert list(intervals(np.array([0.0, 0.02, 0.04, 0.07, 0.08]))) == [(0.0, 0.04), (0.07, 0.08)]
    assert list(intervals(np.zeros(0))) == []


def test_only_what_is_near_the_way_is_flown_over() -> None:
    points = np.array([[0.5, 0.05, 0.3], [0.5, 0.2, 0.9], [1.2, 0.0, 0.8]])
    assert highest_on_the_way(points, np.zeros(3), np.array([1.0, 0.0, 0.0])) == 0.3
    assert highest_on_the_way(NOTHING, np.zeros(3), np.ones(3)) == 0.0


def test_the_support_is_the_highest_point_under_the_place() -> None:
    points = np.array([[0, 0, 0.02], [0.01, 0, 0.05], [0.2, 0, 0.4]])
    assert support_height(points, np.zeros(2)) == 0.05
    assert support_height(points, np.ones(2)) is None


def test_a_footprint_is_moved_off_the_walls_or_to_the_middle() -> None:
    low, high = np.array([-0.1, -0.1]), np.array([0.1, 0.1])
    small = np.array([-0.02, -0.03]), np.array([0.04, 0.03])
    assert_allclose(fitted(np.array([0.0, 0.2]), low, high, small), [0.0, 0.1 - 0.03 - 0.006])
    assert_allclose(fitted(np.array([0.1, 0.0]), low, high, small), [0.1 - 0.04 - 0.006, 0.0])
    wide = np.array([-0.2, -0.02]), np.array([0.1, 0.02])
    assert_allclose(fitted(np.array([0.0, 0.0]), low, high, wide), [0.05, 0.0])


def test_free_room_ends_at_the_walls_beside_the_middle() -> None:
    walls = np.concatenate([box([x, 0, 0.05], [0.01, 0.2, 0.1]) for x in (-0.06, 0.1)])
    low, high = free_room(walls, np.array([0.0, 0.0]), np.array([0.03, 0.03]))
    assert_allclose([low[0], high[0]], [-0.055, 0.095])
    assert np.isinf([low[1], high[1]]).all()


def test_clearance_is_from_the_footprint_s_edge() -> None:
    footprint = np.array([-0.05, -0.05]), np.array([0.05, 0.05])
    places = np.array([[0.0, 0.0], [0.3, 0.4], [0.9, 0.0]])
    points = np.array([[1.0, 0.0, 0.5]])
    assert_allclose(clearance(places, footprint, points), [0.95, np.hypot(0.65, 0.35), 0.05])
    assert np.isinf(clearance(places, footprint, NOTHING)).all()


def test_two_things_in_a_region_stand_along_the_axis_that_holds_more_of_them() -> None:
    half = np.array([0.075, 0.075])
    assert slots(half, np.array([0.1, 0.2]), 1).tolist() == [[0, 0]]
    assert_allclose(slots(half, np.array([0.1, 0.2]), 2), [[-0.06, 0], [0.06, 0]])
    assert_allclose(slots(half, np.array([0.2, 0.1]), 3), [[0, -0.06], [0, 0], [0, 0.06]], atol=1e-12)


def test_goals_come_in_an_order_in_which_they_can_be_reached() -> None:
    assert ordered([("on", "pot_1", "stove_1_cook_region"), ("turnon", "stove_1")])[0] == ("turnon", "stove_1")
    into = ("in", "bowl_1", "cabinet_1_bottom_region")
    close = ("close", "cabinet_1_bottom_region")
    assert ordered([close, into]) == [into, close]
    assert ordered([("open", "cabinet_1_top_region"), close]) == [close, ("open", "cabinet_1_top_region")]
    door = ("close", "microwave_1")
    heat = ("in", "mug_1", "microwave_1_heating_region")
    assert ordered([door, heat]) == [heat, door]
    on, below = ("on", "bowl_1", "bowl_2"), ("in", "bowl_2", "tray_1_contain_region")
    assert ordered([on, below]) == [below, on]


def test_the_hand_takes_the_nearer_of_two_alike_orientations() -> None:
    axes, angle = hand_frame(np.array([0.0, -1.0, 0.0]), DOWN, HAND)
    assert_allclose(axes, HAND, atol=1e-12)
    assert angle == pytest.approx(0.0, abs=1e-9)
    axes, angle = hand_frame(np.array([1.0, 0.0, 0.5]), DOWN, HAND)
    assert_allclose(np.abs(axes[:, 0]), [1, 0, 0], atol=1e-12)
    assert angle == pytest.approx(np.pi / 2)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    one, other = hand_frames(np.array([0.0, 1.0, 0.0]), DOWN)
    assert_allclose(one, other * [-1, -1, 1])


def test_a_tilted_hand_is_levelled_the_shortest_way() -> None:
    tilted = turned(HAND, np.array([0.3, 0.0, 0.0]))
    assert_allclose(rotation_vector(HAND, tilted), [0.3, 0, 0], atol=1e-12)
    assert_allclose(level(tilted), HAND, atol=1e-12)


def test_a_knob_s_ridge_is_its_longer_side() -> None:
    knob = np.concatenate([box([0, 0, 0.01], [0.06, 0.06, 0.02]), box([0, 0, 0.05], [0.01, 0.05, 0.03])])
    assert_allclose(np.abs(ridge(knob)), [0, 1, 0], atol=1e-9)


PLAY = """
import json, sys
import numpy as np
from envs.suites.libero.expert import Expert
from envs.suites.libero.simulation import Simulation
from envs.suites.libero.tasks import HORIZONS, suite_of
task, variation, disturb = sys.argv[1], sys.argv[2], int(sys.argv[3])
simulation = Simulation(task, variation)
expert = Expert(simulation)
rng = np.random.default_rng(0)
simulation.begin(1_000_000)
expert.begin()
hand_m, closed = [], []
while simulation.num_steps < HORIZONS[suite_of(task)] and not simulation.success and not expert.gave_up:
    action = expert.action()
    assert action.shape == (7,) and (np.abs(action) <= 1).all()
    hand_m.append(simulation.hand_pos_m.tolist())
    closed.append(bool(action[6] > 0))
    if simulation.num_steps == disturb:
        for _ in range(12):
            simulation.step(rng.uniform(-1, 1, 7))
    else:
        simulation.step(action)
print(json.dumps({"success": simulation.success, "num_steps": simulation.num_steps, "log": expert.log,
                  "qpos": simulation.data.qpos.tolist(), "hand_m": hand_m, "closed": closed}))
"""


def play(task: str, disturb: int = -1, variation: str = "train") -> dict[str, Any]:
    """An episode from the first official state; at step `disturb` somebody else acts 12 times at random."""
    return run_in_libero(PLAY, task, variation, str(disturb))


SKILLS = {
    "transfer": "pick_up_the_butter_and_place_it_in_the_basket",
    "open_drawer": "open_the_middle_drawer_of_the_cabinet",
    "open_door": "KITCHEN_SCENE7_open_the_microwave",
    "turn_knob": "turn_on_the_stove",
    "drag": "push_the_plate_to_the_front_of_the_stove",
    "close_drawer": "KITCHEN_SCENE4_put_the_black_bowl_in_the_bottom_drawer_of_the_cabinet_and_close_it",
    "insert and close_door": "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
}


@needs_libero
@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_solves_a_task_of_the_suite(skill: str) -> None:
    ended = play(SKILLS[skill])
    assert ended["success"], ended["log"]


@needs_libero
def test_a_mug_that_fills_the_microwave_s_height_is_taken_in_between_floor_and_ceiling() -> None:
    ended = play(SKILLS["insert and close_door"], variation="object")
    assert ended["success"], ended["log"]


OPEN_DOOR = """
import json, sys
import mujoco
from envs.suites.libero.expert import Expert
from envs.suites.libero.simulation import Simulation
simulation = Simulation(sys.argv[1])
expert = Expert(simulation)
simulation.begin(1_000_000)
door = simulation.scene.fixtures["microwave_1"].joint_ids[0]
simulation.data.qpos[simulation.model.jnt_qposadr[door]] = 0.0
mujoco.mj_forward(simulation.model, simulation.data)
simulation.scene.goal = (("open", "microwave_1"),)
simulation.scene.suite_env.parsed_problem["goal_state"] = [list(predicate) for predicate in simulation.scene.goal]
assert not simulation.scene.succeeded()
expert.begin()
while simulation.num_steps < 300 and not simulation.success:
    simulation.step(expert.action())
print(json.dumps([simulation.success, simulation.num_steps, expert.log]))
"""


@needs_libero
def test_a_door_seen_at_an_angle_is_pulled_at_its_handle() -> None:
    success, num_steps, log = run_in_libero(OPEN_DOOR, SKILLS["insert and close_door"])
    assert success, (num_steps, log)


@needs_libero
def test_a_plate_under_a_bowl_s_rim_is_dragged_past_it() -> None:
    ended = play(SKILLS["drag"], variation="swap")
    assert ended["success"], ended["log"]


@needs_libero
def test_the_expert_goes_on_from_where_somebody_else_left_the_arm_and_repeats_exactly() -> None:
    task = "pick_up_the_milk_and_place_it_in_the_basket"
    ended = play(task, disturb=60)
    assert ended["success"], ended["log"]
    assert play(task, disturb=60) == ended


@needs_libero
def test_a_thing_that_rests_is_let_go_at_once() -> None:
    ended = play("STUDY_SCENE1_pick_up_the_book_and_place_it_in_the_back_compartment_of_the_caddy")
    assert ended["success"], ended["log"]
    opened = ended["closed"].index(False, ended["closed"].index(True))
    moved_m = np.linalg.norm(np.diff(ended["hand_m"][: opened + 1], axis=0), axis=1)
    assert moved_m[-1] < 0.0015, "the book stops at the floor of its compartment"
    assert moved_m[-8:].max() > 0.0015, "for eight steps nothing that the policy sees changes"


@needs_libero
def test_a_hand_around_a_can_lifts_it_as_soon_as_the_fingers_have_stopped() -> None:
    ended = play("pick_up_the_alphabet_soup_and_place_it_in_the_basket")
    assert ended["success"], ended["log"]
    closed = ended["closed"].index(True)
    height_m = np.array(ended["hand_m"])[closed:, 2]
    assert np.argmax(height_m > height_m[0] + 0.003) <= 8


TABLE = """
import json, sys
from envs.suites.libero.expert.view import View
from envs.suites.libero.simulation import Simulation
heights = []
for task in sys.argv[1:]:
    simulation = Simulation(task)
    simulation.begin(1_000_000)
    view = View(simulation)
    thing = next(name for name in view.scene.objects if "plate" in name)
    heights.append([view.table_height(view.position(thing)), float(view.points(thing)[:, 2].min())])
print(json.dumps(heights))
"""


@needs_libero
def test_a_table_is_as_high_as_what_stands_on_it_also_where_its_top_is_a_box_laid_on_its_side() -> None:
    tasks = (
        "put_the_bowl_on_the_plate",
        "LIVING_ROOM_SCENE6_put_the_white_mug_on_the_plate_and_put_the_chocolate_pudding_to_the_right_of_the_plate",
    )
    for table_m, bottom_m in run_in_libero(TABLE, *tasks):
        assert table_m == pytest.approx(bottom_m, abs=0.01)
