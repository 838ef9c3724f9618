"""Phases of a motion, told apart by hand and on the experts' own episodes."""

from __future__ import annotations

import numpy as np

from envs.tabletop.episodes.phases import PHASES, motion_phases
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import EpisodeSpec


def test_a_hand_made_motion_passes_all_phases_in_order() -> None:
    target = np.zeros((5, 3), np.float32)
    target[2:, 2] = 0.1
    tcp = np.array([[0.0, 0.0, 0.3], [0.0, 0.0, 0.01], [0.0, 0.0, 0.11], [0.0, 0.0, 0.15], [0.0, 0.0, 0.2]], np.float32)
    assert motion_phases(tcp, target).tolist() == ["approach", "contact", "move", "move", "leave"]


def test_the_experts_lift_goes_through_approach_contact_and_move() -> None:
    world = TabletopWorld(1, TabletopConfig(cameras=()))
    world.reset_to([EpisodeSpec(suite="tabletop", task="lift", seed=3)], [0])
    states, labels = [], []
    for _ in range(80):
        result = world.step_chunk(world.expert_action()[:, None])
        states.append(result.states[0, 0])
        labels.append(result.localization[0, 0])
        if result.done[0]:
            break
    found = world.motion_phases(np.stack(states), np.stack(labels)).tolist()
    world.close()
    assert result.success[0]
    assert list(dict.fromkeys(found)) == ["approach", "contact", "move"]
    assert found == sorted(found, key=PHASES.index)
