"""The loop of collection, against a world whose numbers are known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from fake_world import CountingPolicy, FakeWorld, episode_length, fake_spec, succeeds
from numpy.typing import NDArray

from envs.types import EpisodeSpec, Observation
from rollout.collect import collect
from rollout.expert import ExpertPolicy
from rollout.types import Trajectory
from vla_model.types import ActionChunk


def gather(
    num_worlds: int,
    seeds: Iterable[int],
    chunk_size: int = 2,
    *,
    n_action_steps: int | None = None,
    all_frames: bool = False,
) -> dict[int, Trajectory]:
    policy, specs = CountingPolicy(chunk_size), [fake_spec(s) for s in seeds]
    found = collect(policy, FakeWorld(num_worlds), specs, n_action_steps=n_action_steps, all_frames=all_frames)
    return {t.spec.seed: t for t in found}


def assert_same(a: Trajectory, b: Trajectory) -> None:
    for name in ("state", "action", "label", "localization", "reward", "frame_step", "decision_step"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.frames.keys() == b.frames.keys()
    for camera in a.frames:
        np.testing.assert_array_equal(a.frames[camera], b.frames[camera])
    assert (a.spec, a.instruction, a.success, a.failure) == (b.spec, b.instruction, b.success, b.failure)


def test_every_spec_yields_one_trajectory_with_rows_counted_by_hand() -> None:
    found = gather(3, range(11))
    assert sorted(found) == list(range(11))
    for seed, t in found.items():
        length = episode_length(seed)
        assert t.num_steps == length
        np.testing.assert_array_equal(t.state[:, 0], np.arange(length))
        np.testing.assert_array_equal(t.reward, np.arange(1, length + 1))
        np.testing.assert_allclose(t.localization[:, 1], 0.01 * np.arange(length), rtol=1e-6)
        np.testing.assert_allclose(t.reward_terms["steps"] + t.reward_terms["alive"], t.reward)
        assert t.success == t.terminated == succeeds(seed)
        assert t.truncated == (not succeeds(seed))
        assert t.failure == (None if succeeds(seed) else "wrong colour")
        assert t.instruction == f"count to {length}"


@pytest.mark.parametrize("all_frames", [False, True])
def test_a_trajectory_depends_on_its_spec_alone(all_frames: bool) -> None:
    alone = {s: gather(1, range(s, s + 1), all_frames=all_frames)[s] for s in range(9)}
    for num_worlds, order in ((2, range(9)), (4, range(8, -1, -1)), (20, range(9))):
        together = gather(num_worlds, order, all_frames=all_frames)
        assert len(together) == 9
        for seed, t in alone.items():
            assert_same(t, together[seed])


def test_only_decision_frames_are_recorded_unless_all_frames_is_set() -> None:
    few, every = gather(2, range(5), 3)[4], gather(2, range(5), 3, all_frames=True)[4]
    assert episode_length(4) == 7
    np.testing.assert_array_equal(few.frame_step, [0, 3, 6])
    np.testing.assert_array_equal(few.decision_step, [0, 3, 6])
    np.testing.assert_array_equal(every.frame_step, np.arange(7))
    np.testing.assert_array_equal(every.decision_step, [0, 3, 6])
    np.testing.assert_array_equal(every.frames["front"][:, -1, -1, 1], np.arange(7))
    np.testing.assert_array_equal(few.frames["front"], every.frames["front"][[0, 3, 6]])
    np.testing.assert_array_equal(few.action, every.action)


@pytest.mark.parametrize("n_action_steps", [1, 3, 4])
def test_the_final_frames_show_what_the_last_action_led_to(n_action_steps: int) -> None:
    few, every = (gather(2, range(5), n_action_steps, all_frames=all_frames) for all_frames in (False, True))
    for seed, trajectory in every.items():
        assert few[seed].final_frames is None
        assert trajectory.final_frames is not None
        assert trajectory.final_frames.keys() == trajectory.frames.keys()
        assert trajectory.final_frames["front"].shape == (16, 24, 3)
        assert trajectory.final_frames["front"][-1, -1, 1] == episode_length(seed)


def test_n_action_steps_shortens_the_executed_part_of_a_chunk() -> None:
    t = gather(2, range(3), 4, n_action_steps=1)[2]
    np.testing.assert_array_equal(t.decision_step, np.arange(episode_length(2)))
    np.testing.assert_allclose(t.action[:, 1], 0.1 * np.arange(episode_length(2)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"within 1\.\.4.*got 5"):
        gather(2, range(3), 4, n_action_steps=5)


def test_a_world_begins_the_next_spec_as_soon_as_its_episode_ends() -> None:
    world = FakeWorld(2)
    lengths = [episode_length(s) for s in (0, 4, 5, 6)]
    assert lengths == [3, 7, 3, 4]
    order = [t.spec.seed for t in collect(CountingPolicy(1), world, [fake_spec(s) for s in (0, 4, 5, 6)])]
    assert world.begun == [(0, 0), (1, 4), (0, 5), (0, 6)]
    assert order == [0, 5, 4, 6]


class RowsPolicy(CountingPolicy):
    """Notes in which worlds it decides."""

    def __init__(self, chunk_size: int) -> None:
        super().__init__(chunk_size)
        self.asked: list[list[int]] = []

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        self.asked.append(list(worlds))
        assert len(observation["state"]) == len(observation["instruction"]) == len(worlds)
        return super().act(worlds, observation)


def test_the_policy_acts_only_in_worlds_whose_episode_runs() -> None:
    seeds = (0, 4, 5, 6)
    assert [episode_length(seed) for seed in seeds] == [3, 7, 3, 4]
    policy = RowsPolicy(1)
    found = {t.spec.seed: t for t in collect(policy, FakeWorld(4), [fake_spec(s) for s in seeds])}
    assert policy.asked == [[0, 1, 2, 3]] * 3 + [[1, 3]] + [[1]] * 3
    # 3 + 7 + 3 + 4 decisions; one in each of 4 worlds until the last of 7 steps would be 28.
    assert sum(map(len, policy.asked)) == 17
    for seed, t in gather(1, seeds, 1).items():
        assert_same(t, found[seed])

    policy = RowsPolicy(2)
    list(collect(policy, FakeWorld(2), [fake_spec(s) for s in seeds]))
    # Chunks of 2: world 0 runs the episodes of 3, 3 and 4 steps in 2 decisions each, world 1 that of 7 in 4.
    assert policy.asked == [[0, 1]] * 4 + [[0]] * 2
    assert sum(map(len, policy.asked)) == 10  # instead of 12


def test_specs_are_read_only_when_a_world_is_idle() -> None:
    read: list[int] = []

    def specs() -> Iterator[EpisodeSpec]:
        for seed in range(10):
            read.append(seed)
            yield fake_spec(seed)

    next(iter(collect(CountingPolicy(1), FakeWorld(2), specs())))
    assert read == [0, 1]


def test_out_of_range_actions_are_recorded_as_executed_clipped() -> None:
    class Wild(CountingPolicy):
        def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
            chunk = super().act(worlds, observation)
            chunk.actions[:] = 3.0
            return chunk

    (t,) = collect(Wild(2), FakeWorld(1), [fake_spec(1)])
    assert np.all(t.action == 1.0)
    assert np.all(t.label == 1.0)


def test_expert_noise_is_in_executed_actions_only_and_not_in_the_gripper() -> None:
    world = FakeWorld(4)
    specs = [fake_spec(s) for s in range(400)]
    found = list(collect(ExpertPolicy(world, noise_std=0.2, noise_share=0.5), world, specs))
    noisy = [t for t in found if np.any(t.action != t.label)]
    assert 160 <= len(noisy) <= 240
    for t in found:
        np.testing.assert_allclose(t.label[:, 0], 0.1, rtol=1e-6)
        np.testing.assert_array_equal(t.action[:, -1], t.label[:, -1])
        np.testing.assert_array_equal(t.frame_step, np.arange(t.num_steps))
        assert t.policy_version == -1
    noise = np.concatenate([(t.action - t.label)[:, :2] for t in noisy])
    assert abs(noise.std() - 0.2) < 0.02
    assert abs(noise.mean()) < 0.03
    pairs = np.concatenate([np.stack([(t.action - t.label)[:-1, 0], (t.action - t.label)[1:, 0]]) for t in noisy], 1)
    assert 0.65 < np.corrcoef(pairs)[0, 1] < 0.9


def test_expert_noise_depends_on_the_seed_alone() -> None:
    def run(num_worlds: int) -> dict[int, Trajectory]:
        world = FakeWorld(num_worlds)
        policy = ExpertPolicy(world, noise_std=0.3, noise_share=0.5)
        return {t.spec.seed: t for t in collect(policy, world, [fake_spec(s) for s in range(12)])}

    one, many = run(1), run(5)
    for seed in range(12):
        assert_same(one[seed], many[seed])


def test_equal_seeds_give_different_noise_in_other_tasks_variations_suites_and_repeats() -> None:
    spec = fake_spec(7)
    kin = [spec, *(replace(spec, **change) for change in CHANGES)]
    expert = ExpertPolicy(FakeWorld(len(kin)), noise_std=0.3, noise_share=1.0)
    expert.begin(range(len(kin)), ("",) * len(kin), tuple(s.policy_seed for s in kin))
    drawn = expert._noise
    assert len(np.unique(drawn, axis=0)) == len(kin)
    expert.begin(range(len(kin)), ("",) * len(kin), tuple(s.policy_seed for s in kin))
    np.testing.assert_array_equal(expert._noise, drawn)


CHANGES = ({"suite": "b"}, {"task": "b"}, {"variation": "b"}, {"seed": 8}, {"repeat": 1}, {"seed": 8, "repeat": 1})


def test_collecting_does_not_import_ray_or_a_simulator() -> None:
    heavy = "[m for m in ('ray', 'mujoco', 'torch') if m in sys.modules]"
    code = f"import sys, rollout.collect, rollout.expert; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class SamplingPolicy(CountingPolicy):
    """Tells with every action what it drew for it, how likely that was and what it expects."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        chunk = super().act(worlds, observation)
        step = observation["state"][:, :1] + np.arange(self.chunk_size, dtype=np.float32)  # [N, K]
        return ActionChunk(actions=chunk.actions, sampled=100 + chunk.actions, log_prob=-step, value=step / 2)


@pytest.mark.parametrize("num_worlds", [1, 3])
def test_the_policys_sample_is_recorded_with_every_executed_action(num_worlds: int) -> None:
    specs = [fake_spec(seed) for seed in range(7)]
    for t in collect(SamplingPolicy(3), FakeWorld(num_worlds), specs, n_action_steps=2):
        assert t.sampled is not None
        assert t.log_prob is not None
        assert t.value is not None
        np.testing.assert_array_equal(t.sampled, 100 + t.action)
        np.testing.assert_array_equal(t.log_prob, -np.arange(t.num_steps))
        np.testing.assert_array_equal(t.value, np.arange(t.num_steps) / 2)
    plain = next(collect(CountingPolicy(), FakeWorld(1), specs[:1]))
    assert plain.sampled is None
    assert plain.log_prob is None
    assert plain.value is None


def test_a_repeat_has_the_same_initial_state_but_another_policy_seed_and_id() -> None:
    first, again = fake_spec(3), replace(fake_spec(3), repeat=1)
    assert again.id == f"{first.id}/1"
    assert first.policy_seed != again.policy_seed
    policy = CountingPolicy()
    a, b = collect(policy, FakeWorld(2), [first, again])
    np.testing.assert_array_equal(a.frames["front"][0], b.frames["front"][0])
    assert policy.seeds[0] != policy.seeds[1]


class BreaksAtTheEnd(FakeWorld):
    """A world whose state is not finite once its episode is over, as broken physics may leave it."""

    def _state(self) -> NDArray[np.float32]:
        state = super()._state()
        state[~self.running] = np.nan
        return state


class FiniteOnly(CountingPolicy):
    """Refuses to decide about what is not finite, as a VLA does."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        assert np.isfinite(observation["state"]).all()
        return super().act(worlds, observation)


def test_a_non_finite_state_at_an_episodes_end_stops_no_other_episode() -> None:
    specs = [fake_spec(seed) for seed in (0, 4)]  # of 3 and 7 steps: the first world is over before the other
    found = {t.spec.seed: t for t in collect(FiniteOnly(2), BreaksAtTheEnd(2), specs)}
    sound = gather(2, (0, 4))
    for seed in (0, 4):
        np.testing.assert_array_equal(found[seed].action, sound[seed].action)
