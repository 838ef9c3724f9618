"""An episode is decided by its spec and its actions: not by its world's index, its batch-mates or its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables import BLIND, begin, busy_actions, every_task, fingerprint, spec

from envs.tabletop.episodes.variations import VARIATIONS
from envs.tabletop.tasks import TASKS
from envs.tabletop.world import TabletopWorld

ROOT = Path(__file__).parents[3]


def test_a_spec_gives_the_same_episode_at_any_index_in_any_batch_and_after_any_episode() -> None:
    specs = [spec(task, 5, VARIATIONS[i % len(VARIATIONS)]) for i, task in enumerate(TASKS)]
    crowd = TabletopWorld(len(specs))
    expected = [fingerprint(begin(crowd, specs), row) for row in range(len(specs))]
    assert len(set(expected)) == len(specs)
    crowd.step_chunk(busy_actions(len(specs), 4))
    moved = begin(crowd, specs[::-1])
    assert [fingerprint(moved, row) for row in range(len(specs))] == expected[::-1]
    alone = TabletopWorld(1)
    assert [fingerprint(begin(alone, [s]), 0) for s in specs] == expected


def test_a_spec_gives_the_same_first_observation_in_another_process() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests/envs')\n"
        "from tables import begin, every_task, fingerprint\n"
        "from envs.tabletop.world import TabletopWorld\n"
        "world = TabletopWorld(12); seen = begin(world, every_task(seed=3))\n"
        "print(*(fingerprint(seen, row) for row in range(12)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    world = TabletopWorld(12)
    here = begin(world, every_task(seed=3))
    assert done.stdout.split() == [fingerprint(here, row) for row in range(12)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_the_same_actions_give_the_same_states_in_any_batch(num_threads: int) -> None:
    specs, actions = every_task(seed=8), busy_actions(12, 12)
    crowd = TabletopWorld(12, type(BLIND)(cameras=(), num_threads=num_threads))
    begin(crowd, specs)
    together = crowd.step_chunk(actions)
    experts = crowd.expert_action()
    for row, one in enumerate(specs):
        alone = TabletopWorld(1, BLIND)
        begin(alone, [one])
        lonely = alone.step_chunk(actions[row : row + 1])
        np.testing.assert_array_equal(lonely.states[0], together.states[row], err_msg=one.task)
        np.testing.assert_array_equal(lonely.localization[0], together.localization[row], err_msg=one.task)
        np.testing.assert_array_equal(lonely.reward_terms["reach"][0], together.reward_terms["reach"][row])
        np.testing.assert_array_equal(alone.expert_action()[0], experts[row], err_msg=one.task)
        assert lonely.failure[0] == together.failure[row]
        np.testing.assert_array_equal(alone.sim.batch.state[0], crowd.sim.batch.state[row], err_msg=one.task)


def test_a_chunk_equals_its_single_steps_rendered_once_at_the_end() -> None:
    specs, actions = every_task(seed=2), busy_actions(12, 6)
    actions[7] = 0.0
    chunked, stepped = TabletopWorld(12), TabletopWorld(12)
    begin(chunked, specs)
    begin(stepped, specs)
    whole = chunked.step_chunk(actions, all_frames=True)
    parts = [stepped.step_chunk(actions[:, i : i + 1]) for i in range(6)]
    for name in ("states", "localization", "reward"):
        joined = np.concatenate([getattr(p, name) for p in parts], axis=1)
        np.testing.assert_array_equal(getattr(whole, name), joined, err_msg=name)
    for term, values in whole.reward_terms.items():
        np.testing.assert_array_equal(values, np.concatenate([p.reward_terms[term] for p in parts], axis=1))
    np.testing.assert_array_equal(whole.num_steps, sum(p.num_steps for p in parts))
    for name in ("terminated", "truncated", "success"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts[-1], name), err_msg=name)
    assert whole.failure == parts[-1].failure
    assert whole.all_frames is not None
    for camera, frames in whole.observation["frames"].items():
        np.testing.assert_array_equal(frames, parts[-1].observation["frames"][camera])
        each = np.stack([p.observation["frames"][camera] for p in parts], axis=1)
        np.testing.assert_array_equal(whole.all_frames[camera], each)
        assert (each[0, 0] != each[0, -1]).any(), "the arm moved, so the frames differ"


def test_rendering_does_not_change_the_physics() -> None:
    specs, actions = every_task(seed=4), busy_actions(12, 4)
    seeing, blind = TabletopWorld(12), TabletopWorld(12, BLIND)
    begin(seeing, specs)
    begin(blind, specs)
    seen = seeing.step_chunk(actions, all_frames=True)
    np.testing.assert_array_equal(seen.states, blind.step_chunk(actions).states)
