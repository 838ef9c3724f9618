"""Evaluation against a world whose outcomes can be computed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from sides_world import Reader, SidesWorld, evaluate_here

from agent.evaluation.controls import BlackFrames, ShuffledInstructions
from agent.evaluation.evaluate import Evaluation, evaluation_specs
from agent.evaluation.statistics import Proportion
from agent.evaluation.videos import video_poster, write_video
from agent.runs.seeds import FIRST_EVALUATION_SEED, check_training_seed
from envs.types import EpisodeSpec, Observation
from rollout.collect import collect
from vla_model.types import ActionChunk, Policy


def run(policy: Policy, tasks: tuple[str, ...] = ("left", "right"), episodes: int = 5) -> Evaluation:
    return evaluate_here(policy, SidesWorld(num_worlds=3), evaluation_specs("sides", tasks, episodes))


def test_evaluation_seeds_and_training_seeds_are_disjoint() -> None:
    seeds = {spec.seed for spec in evaluation_specs("sides", ["left", "right"], 50)}
    assert min(seeds) == FIRST_EVALUATION_SEED
    for seed in seeds:
        with pytest.raises(ValueError, match="are for evaluation"):
            check_training_seed(seed)
    assert check_training_seed(FIRST_EVALUATION_SEED - 1) == FIRST_EVALUATION_SEED - 1
    with pytest.raises(ValueError, match="evaluation seeds begin at 1000000"):
        evaluation_specs("sides", ["left"], 1, first_seed=FIRST_EVALUATION_SEED - 1)


def test_a_short_evaluation_of_one_task_is_part_of_a_long_one_of_all() -> None:
    long = evaluation_specs("sides", ["left", "right", "either"], 20)
    assert set(evaluation_specs("sides", ["right"], 3)) < set(long)


def test_every_spec_is_counted_once_and_results_keep_the_order_of_the_specs() -> None:
    specs = evaluation_specs("sides", ("left", "right"), 5)
    evaluation = evaluate_here(Reader(), SidesWorld(num_worlds=3), specs)
    assert tuple(r.spec for r in evaluation.results) == specs
    assert evaluation.success == Proportion(successes=10, episodes=10)
    assert {r.num_steps for r in evaluation.results} == {3} and {r.num_decisions for r in evaluation.results} == {2}
    assert {r.sum_reward for r in evaluation.results} == {1.0}
    assert {r.policy_version for r in evaluation.results} == {7}
    assert evaluation.failures == {}


def test_the_same_specs_give_the_same_results_whatever_the_number_of_worlds() -> None:
    specs = evaluation_specs("sides", ("left", "right"), 5)
    assert (
        evaluate_here(Reader(), SidesWorld(num_worlds=1), specs).results
        == evaluate_here(Reader(), SidesWorld(num_worlds=4), specs).results
    )


def test_mean_over_tasks_weights_tasks_equally_and_success_weights_episodes_equally() -> None:
    class AlwaysLeft(Reader):
        def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
            instruction = ("left",) * len(observation["instruction"])
            return super().act(worlds, Observation(**(observation | {"instruction": instruction})))

    specs = (*evaluation_specs("sides", ["left"], 6), *evaluation_specs("sides", ["right"], 2))
    evaluation = evaluate_here(AlwaysLeft(), SidesWorld(num_worlds=3), specs)
    assert evaluation.success == Proportion(successes=6, episodes=8)
    assert evaluation.mean_over_tasks == 0.5
    assert evaluation.per_task["right"] == Proportion(successes=0, episodes=2)
    assert evaluation.failures == {"wrong side": 2}


def test_success_of_a_variation_has_only_its_tasks() -> None:
    specs = (
        *evaluation_specs("sides", ["left", "right"], 3),
        *evaluation_specs("sides", ["left"], 2, variation="other"),
    )
    evaluation = evaluate_here(Reader(), SidesWorld(num_worlds=3), specs)
    three, two = Proportion(successes=3, episodes=3), Proportion(successes=2, episodes=2)
    assert evaluation.of_variation("train") == {"left": three, "right": three}
    assert evaluation.of_variation("other") == {"left": two}


def test_expert_usage_is_averaged_over_the_decisions_of_each_task_and_not_over_idle_worlds() -> None:
    """With 3 worlds and 7 episodes some worlds are idle at the end; their decisions must not count."""
    specs = (*evaluation_specs("sides", ["right"], 1), *evaluation_specs("sides", ["left"], 6))
    usage = evaluate_here(Reader(), SidesWorld(num_worlds=3), specs).expert_usage
    assert usage["left"].tolist() == [[1.0, 0.0, 0.0]]
    assert usage["right"].tolist() == [[0.0, 1.0, 0.0]]


def test_a_policy_without_experts_has_no_expert_usage() -> None:
    class Plain(Reader):
        def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
            return replace(super().act(worlds, observation), expert_usage=None)

    assert run(Plain()).expert_usage == {}


def test_with_black_frames_a_policy_that_uses_frames_fails() -> None:
    evaluation = run(BlackFrames(Reader()))
    assert evaluation.success.successes == 0
    assert evaluation.failures == {"step limit": 10}


def test_with_shuffled_instructions_a_policy_that_uses_them_fails_in_every_episode() -> None:
    reader = Reader()
    instructions = run(Reader()).instructions
    evaluation = run(ShuffledInstructions(reader, instructions))
    assert evaluation.failures == {"wrong side": 10}
    assert sorted(instruction for instruction, _ in reader.begun) == sorted(instructions.values()), (
        "the sentences are permuted"
    )
    assert {r.spec: r.instruction for r in evaluation.results} == instructions, "results have the world's instructions"


def test_results_of_a_control_have_the_policys_version() -> None:
    class Remote(Reader):
        """Learns its version when an episode begins."""

        version = -1

        def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
            super().begin(worlds, instructions, seeds)
            self.version = 9

    instructions = run(Reader()).instructions
    for control in (BlackFrames(Remote()), ShuffledInstructions(Remote(), instructions)):
        assert {r.policy_version for r in run(control).results} == {9}


def shuffled_tasks(specs: Sequence[EpisodeSpec], sentence: Callable[[EpisodeSpec], str]) -> list[tuple[str, str]]:
    """Each spec's task, and the task whose instruction the shuffled control gives in its place."""
    instructions = {spec: sentence(spec) for spec in specs}
    of_sentence = {sentence(spec): spec.task for spec in specs}
    reader = Reader()
    control = ShuffledInstructions(reader, instructions)
    control.begin(range(len(specs)), tuple(instructions.values()), tuple(spec.policy_seed for spec in specs))
    return [(spec.task, of_sentence[instruction]) for spec, (instruction, _) in zip(specs, reader.begun, strict=True)]


def by_id(spec: EpisodeSpec) -> str:
    return f"do {spec.id}"


SIX = ("a", "b", "c", "d", "e", "f")


def test_shuffling_gives_each_task_the_instruction_of_every_other_equally_often() -> None:
    pairs = Counter(shuffled_tasks(evaluation_specs("sides", SIX, 20), by_id))
    assert set(pairs) == {(own, other) for own in SIX for other in SIX if own != other}
    assert set(pairs.values()) == {4}, "20 seeds over 5 other tasks"


def test_a_shuffled_instruction_depends_on_the_episode_and_not_on_its_batch() -> None:
    long = dict(
        zip(evaluation_specs("sides", SIX, 20), shuffled_tasks(evaluation_specs("sides", SIX, 20), by_id), strict=True)
    )
    short = evaluation_specs("sides", SIX, 7)
    assert shuffled_tasks(short[::-1], by_id) == [long[spec] for spec in short[::-1]]
    assert shuffled_tasks(evaluation_specs("sides", SIX, 7, variation="other"), by_id) != [long[spec] for spec in short]


def test_shuffling_never_gives_an_instruction_that_is_right() -> None:
    """Tasks a and b have equal instructions up to case and spaces, so both get that of c."""
    words = {"a": "push it", "b": "Push  it ", "c": "lift it"}
    other = dict(shuffled_tasks(evaluation_specs("sides", ("a", "b", "c"), 8), lambda spec: words[spec.task]))
    assert (other["a"], other["b"]) == ("c", "c")
    assert other["c"] in ("a", "b")


def test_shuffling_takes_an_episode_with_another_seed_where_the_task_lacks_the_same() -> None:
    specs = (*evaluation_specs("sides", ["left"], 4), *evaluation_specs("sides", ["right"], 1))
    assert Counter(shuffled_tasks(specs, by_id)) == {("left", "right"): 4, ("right", "left"): 1}


def test_shuffling_needs_a_wrong_instruction_for_every_episode() -> None:
    with pytest.raises(ValueError, match="all 4 episodes are of left; evaluate at least two tasks"):
        ShuffledInstructions(Reader(), {spec: by_id(spec) for spec in evaluation_specs("sides", ["left"], 4)})
    with pytest.raises(ValueError, match="all other tasks have the instruction of sides/left/train/1000000 too, 'go'"):
        ShuffledInstructions(Reader(), dict.fromkeys(evaluation_specs("sides", ["left", "right"], 2), "go"))


def test_shuffling_refuses_an_unknown_episode() -> None:
    control = ShuffledInstructions(Reader(), run(Reader(), episodes=1).instructions)
    with pytest.raises(ValueError, match="swap for 'go left, number 1000001'"):
        run(control, episodes=2)


def test_the_first_episodes_of_each_task_are_recorded_as_videos_failures_included(tmp_path: Path) -> None:
    specs = evaluation_specs("sides", ("left", "right"), 3)
    reference = evaluate_here(Reader(), SidesWorld(num_worlds=2), specs)
    blind = evaluate_here(
        BlackFrames(Reader()), SidesWorld(num_worlds=2), specs, videos_per_task=1, videos_dir=tmp_path
    )
    recorded = evaluate_here(Reader(), SidesWorld(num_worlds=2), specs, videos_per_task=1, videos_dir=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "left-train-1000000-failed-step-limit.mp4",
        "left-train-1000000-success.mp4",
        "right-train-1000000-failed-step-limit.mp4",
        "right-train-1000000-success.mp4",
    ]
    assert [r.video for r in recorded.results] == [names[1], names[3], None, None, None, None]
    assert [r.success for r in recorded.results] == [r.success for r in reference.results]
    assert blind.success.successes == 0


def test_videos_are_h264_in_yuv420p_and_last_as_long_as_the_episode(tmp_path: Path) -> None:
    evaluate_here(
        Reader(),
        SidesWorld(num_worlds=1),
        evaluation_specs("sides", ["left"], 1),
        videos_per_task=1,
        videos_dir=tmp_path,
    )
    path = tmp_path / "left-train-1000000-success.mp4"
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert container.duration is not None
        seconds = container.duration / 1e6
    assert len(frames) == 3 + 15, "three steps of 0.1 s, then the last frame for 1.5 s"
    assert seconds == pytest.approx(1.8, abs=0.01)
    assert frames[0].shape[1] == 640, "two cameras side by side"
    assert frames[0][-150, 150] == pytest.approx(np.full(3, 50), abs=6), "brightness of seed 1000000"
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat"), "a browser can start before all arrived"
    assert video_poster(path)[:2] == b"\xff\xd8"


def test_a_video_ends_with_the_frame_after_the_last_action(tmp_path: Path) -> None:
    specs = evaluation_specs("sides", ["left"], 1)
    (episode,) = collect(Reader(), SidesWorld(1), specs, all_frames=True)
    assert episode.final_frames is not None
    white = {camera: np.full_like(frame, 255) for camera, frame in episode.final_frames.items()}
    path = write_video(tmp_path, replace(episode, final_frames=white), failure=None, control_dt_s=0.1)
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [int(frame[-150, 150, 0]) > 245 for frame in frames] == [False] * 3 + [True] * 15


def test_evaluate_refuses_invalid_specs_and_videos_without_a_folder() -> None:
    specs = evaluation_specs("sides", ["left"], 1)
    with pytest.raises(ValueError, match="specs is empty"):
        evaluate_here(Reader(), SidesWorld(1), [])
    with pytest.raises(ValueError, match="sides/left/train/1000000"):
        evaluate_here(Reader(), SidesWorld(1), [*specs, *specs])
    with pytest.raises(ValueError, match="tasks: left, right, either"):
        evaluate_here(Reader(), SidesWorld(1), [EpisodeSpec(suite="sides", task="up", seed=FIRST_EVALUATION_SEED)])
    with pytest.raises(ValueError, match="videos_dir"):
        evaluate_here(Reader(), SidesWorld(1), specs, videos_per_task=1)
