"""The fine-tuning loop in a world in which every episode can succeed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sides_policy import WillingSidesWorld, save_sides_policy, sides_config

from agent.algorithms import ppo
from agent.algorithms.cloning_config import DaggerConfig, RFTConfig
from agent.algorithms.grpo_config import GRPOConfig
from agent.algorithms.ppo import ppo_advantages
from agent.algorithms.ppo_config import PPOConfig, SurrogateConfig
from agent.algorithms.rollout_batch import RolloutBatch
from agent.algorithms.sft_config import SFTConfig
from agent.algorithms.shrink_perturb import ShrinkPerturbConfig
from agent.evaluation.config import EvaluationConfig
from agent.evaluation.evaluate import Evaluation, evaluation_specs
from agent.learning.config import LearnerConfig, OptimizerName
from agent.learning.learner import STATE_FILE, Learner
from agent.report.curves import read_curves
from agent.runs.run_folder import PRETRAINED, RunFolder, policy_folder, start_run
from agent.training import selection
from agent.training.config import DemonstrationsConfig, ImproveConfig
from agent.training.demonstrations import fill_dataset
from agent.training.improve import improve
from agent.training.practice import PracticeConfig
from envs.types import EpisodeSpec
from envs.world import World
from rollout.collect import collect
from rollout.expert import ExpertPolicy
from vla_model.model import VLA
from vla_model.weights.config import FineTuning

SURROGATE = SurrogateConfig(epochs=4, max_kl=0.2)
PLAIN = SFTConfig(localization_weight=0.0, pointing_weight=0.0)
GRADIENT = LearnerConfig(
    batch_size=128,
    learning_rate=3e-3,
    value_rate=3.0,
    warmup_updates=0,
    final_lr_share=1.0,
    weight_decay=0.0,
    ema_decay=0.0,
)
CLONE = LearnerConfig(batch_size=64, learning_rate=3e-3, warmup_updates=10, ema_decay=0.9)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy."""
    return save_sides_policy(tmp_path_factory.mktemp("first") / "policy")


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of each task."""
    root = tmp_path_factory.mktemp("demonstrations") / "dataset"
    world = WillingSidesWorld(4)
    config = DemonstrationsConfig(tasks=("left", "right"), episodes_per_task=2)
    fill_dataset(config, world, root, lambda specs: collect(ExpertPolicy(world), world, specs, all_frames=True), {})
    return root


def run_here(config: ImproveConfig, folder: Path) -> tuple[Evaluation, RunFolder]:
    run = start_run(folder, config)
    evaluation, _ = improve(config, run, WillingSidesWorld)
    return evaluation, run


def success_before(run: RunFolder) -> float:
    return json.loads((run.root / "before" / "eval_info.json").read_text())["overall"]["pc_success"] / 100


def test_ppo_with_sparse_reward_trains_an_untrained_policy(first: Path, tmp_path: Path) -> None:
    config = sides_config(PPOConfig(surrogate=SURROGATE), first, GRADIENT, iterations=15)
    evaluation, run = run_here(config, tmp_path / "run")
    assert success_before(run) <= 0.6
    assert evaluation.mean_over_tasks >= 0.95


@pytest.fixture(scope="module")
def beginner(first: Path, demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cloned for 20 updates, so that its sampled actions depend on the task, though not its mode."""
    cloning = DaggerConfig(updates=20, sft=PLAIN, demonstrations=(str(demonstrations),))
    learner = replace(CLONE, learning_rate=1e-3, warmup_updates=0, ema_decay=0.0)
    _, run = run_here(sides_config(cloning, first, learner, iterations=1), tmp_path_factory.mktemp("beginner") / "run")
    return run.checkpoint(1)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_grpo_trains_a_policy_that_sometimes_succeeds(seed: int, beginner: Path, tmp_path: Path) -> None:
    """An untrained policy would mostly learn one side for both tasks, and no group would be mixed."""
    learner = replace(GRADIENT, learning_rate=2e-4)
    config = sides_config(GRPOConfig(surrogate=SURROGATE), beginner, learner, iterations=12, seed=seed)
    evaluation, run = run_here(config, tmp_path / "run")
    assert success_before(run) <= 0.6
    assert evaluation.mean_over_tasks >= 0.95


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(RFTConfig(updates=60, sft=PLAIN), id="rft"),
        pytest.param(
            RFTConfig(updates=60, sft=PLAIN, shrink_perturb=ShrinkPerturbConfig(keep=0.0, updates=240)),
            id="rft by renewed weights",
            marks=pytest.mark.long,
        ),
        pytest.param(DaggerConfig(updates=60, sft=PLAIN), id="dagger"),
        pytest.param(
            DaggerConfig(updates=10, sft=PLAIN, shrink_perturb=ShrinkPerturbConfig(keep=0.0, iteration=2, updates=120)),
            id="dagger by weights renewed at the end",
            marks=pytest.mark.long,
        ),
    ],
)
def test_rft_and_dagger_train_it_too(
    algorithm: RFTConfig | DaggerConfig, first: Path, demonstrations: Path, tmp_path: Path
) -> None:
    algorithm = replace(algorithm, demonstrations=(str(demonstrations),))
    evaluation, run = run_here(sides_config(algorithm, first, CLONE, iterations=2), tmp_path / "run")
    assert success_before(run) <= 0.6
    assert evaluation.mean_over_tasks >= 0.95


@pytest.mark.long
def test_dagger_trains_it_by_muon_too(first: Path, demonstrations: Path, tmp_path: Path) -> None:
    algorithm = DaggerConfig(updates=60, sft=PLAIN, demonstrations=(str(demonstrations),))
    learner = replace(CLONE, optimizer="muon", learning_rate=1e-3)
    evaluation, run = run_here(sides_config(algorithm, first, learner, iterations=2), tmp_path / "run")
    assert success_before(run) <= 0.6
    assert evaluation.mean_over_tasks >= 0.95


def small(first: Path, **changes: Any) -> ImproveConfig:
    practice = PracticeConfig(tasks=("left", "right"), episodes_per_task=4, num_worlds=8)
    settings = {"algorithm": PPOConfig(warmup_iterations=0), "practice": practice, "iterations": 2} | changes
    return sides_config(settings.pop("algorithm"), first, GRADIENT, **settings)


def test_with_focus_tasks_that_failed_in_the_last_evaluation_get_more_episodes(first: Path, tmp_path: Path) -> None:
    config = small(first, iterations=1)
    config = replace(config, practice=replace(config.practice, focus=1.0))
    run = start_run(tmp_path / "run", config)
    practised: list[str] = []

    class Watched(WillingSidesWorld):
        def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> Any:
            practised.extend(spec.task for spec in specs if 100_000 <= spec.seed < 1_000_000)
            return super().reset_to(specs, worlds)

    improve(config, run, Watched)
    curves = {curve.tag: curve for curve in read_curves(run.tensorboard)}
    failed = {task: 1.0 - curves[f"evaluation/success_{task}"].values[0] for task in ("left", "right")}
    assert failed["left"] != failed["right"]
    for task, rate in failed.items():
        assert practised.count(task) == round(4 * 2 * rate / sum(failed.values()))


def test_practice_runs_in_the_world_s_order(first: Path, tmp_path: Path) -> None:
    config = small(first, iterations=1)
    config = replace(config, practice=replace(config.practice, num_worlds=1))
    begun: list[EpisodeSpec] = []

    class TaskByTask(WillingSidesWorld):
        def in_order(self, specs: Sequence[EpisodeSpec]) -> list[EpisodeSpec]:
            return sorted(specs, key=lambda spec: spec.task)

        def reset_to(self, specs: Sequence[EpisodeSpec], worlds: Sequence[int]) -> Any:
            begun.extend(spec for spec in specs if 100_000 <= spec.seed < 1_000_000)
            return super().reset_to(specs, worlds)

    improve(config, start_run(tmp_path / "run", config), TaskByTask)
    assert [spec.task for spec in begun] == ["left"] * 4 + ["right"] * 4


def test_focus_is_refused_with_overlap(first: Path, tmp_path: Path) -> None:
    config = small(first, overlap=True)
    with pytest.raises(ValueError, match="with overlap"):
        run_here(replace(config, practice=replace(config.practice, focus=0.5)), tmp_path / "run")


def test_the_best_policy_is_kept_and_a_collapse_ends_the_run(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    successes = iter([0.25, 0.5, 0.2])
    evaluate = selection.evaluate

    def pretend(run: Any, world: World, specs: Sequence[EpisodeSpec], **options: Any) -> Evaluation:
        measuring = evaluation_specs("sides", ("left", "right"), 20)
        assert not {spec.seed for spec in specs} & {spec.seed for spec in measuring}, "who chooses does not measure"
        found = evaluate(run, world, specs, **options)
        won = round(next(successes) * len(found.results))
        results = tuple(
            replace(r, success=i < won) for i, r in enumerate(sorted(found.results, key=lambda r: r.spec.seed))
        )
        return replace(found, results=results)

    monkeypatch.setattr(selection, "evaluate", pretend)
    config = small(first, iterations=9, evaluate_every=1, collapse_share=0.5)
    _, run = run_here(config, tmp_path / "run")
    last = run.last_checkpoint()
    assert last is not None
    assert last.name == "000002", "0.2 is less than half of 0.5"
    assert json.loads((last / "progress.json").read_text())["best_iteration"] == 1
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["000000", "000002"]
    assert policy_folder(run.root) == run.best / PRETRAINED
    best, end = (load_file(folder / PRETRAINED / "model.safetensors") for folder in (run.best, last))
    assert any(not torch.equal(best[name], end[name]) for name in best)


@pytest.mark.parametrize(("mode", "optimizer"), [("lora", "adamw"), ("head", "adamw"), ("lora", "muon")])
def test_a_run_with_adapters_resumes_to_identical_numbers(
    mode: Any, optimizer: OptimizerName, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(first, fine_tuning=FineTuning(mode=mode, lora_rank=2), iterations=3)
    config = replace(config, learner=replace(config.learner, optimizer=optimizer))
    _, straight = run_here(config, tmp_path / "straight")
    update, run = Learner.update, RunFolder(tmp_path / "run")

    def interrupted(self: Learner[VLA], *args: Any) -> dict[str, float]:
        if run.checkpoint(2).exists():
            raise KeyboardInterrupt
        return update(self, *args)

    monkeypatch.setattr(Learner, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_here(config, run.root)
    monkeypatch.undo()
    improve(config, start_run(run.root, config, resume=True), WillingSidesWorld)
    expected, resumed = (load_file(r.checkpoint(3) / STATE_FILE) for r in (straight, run))
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    assert (run.checkpoint(3) / "adapter").exists()
    ratios = next(c for c in read_curves(straight.tensorboard) if c.tag == "policy/first_log_ratio")
    assert len(ratios.values) == 3
    assert max(ratios.values) < 1e-5, "the published weights are those that the optimiser left"


def test_diagnostics_are_logged(first: Path, tmp_path: Path) -> None:
    config = small(first, algorithm=PPOConfig(warmup_iterations=1))
    _, run = run_here(replace(config, learner=replace(config.learner, ema_decay=None)), tmp_path / "run")
    curves = {curve.tag: curve for curve in read_curves(run.tensorboard)}
    expected = """
        policy/kl policy/clip_fraction policy/entropy policy/first_log_ratio value/explained_variance learner/grad_norm
        router/entropy router/dead_experts weights/age_max reward/arrive practice/success practice/success_left
        evaluation/success loss/policy loss/value time/collect_s time/update_s
    """.split()
    assert set(expected) <= curves.keys()
    assert curves["weights/age_max"].values == (0.0, 0.0)
    assert max(curves["policy/first_log_ratio"].values) < 1e-5
    assert curves["evaluation/success"].steps == (0, 2)


def test_a_batch_with_a_loss_that_is_not_finite_is_saved(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(trajectories: Any, config: PPOConfig) -> RolloutBatch:
        rollout_batch = ppo_advantages(trajectories, config)
        rollout_batch.advantages[3].advantage[0] = float("nan")
        return rollout_batch

    monkeypatch.setattr(ppo, "ppo_advantages", broken)
    config = small(first, algorithm=PPOConfig(warmup_iterations=0))
    with pytest.raises(FloatingPointError, match=r"bad_batch\.safetensors"):
        run_here(config, tmp_path / "run")
    kept = load_file(tmp_path / "run" / "bad_batch.safetensors")
    assert kept["batch.advantage"].isnan().any()
    assert kept["batch.inputs.frames.front"].dtype == torch.uint8


def test_weights_that_are_not_finite_are_neither_published_nor_saved(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(learner: Learner[VLA], *_: Any) -> dict[str, float]:
        next(learner.average.parameters()).data.view(-1)[0] = torch.nan
        return {}

    monkeypatch.setattr(ppo.PolicyGradient, "learn", lambda _, learner, *rest: broken(learner, *rest))
    with pytest.raises(FloatingPointError, match=r"after update 0 average.* is not finite, so it is not saved"):
        run_here(small(first), tmp_path / "run")
    assert [folder.name for folder in RunFolder(tmp_path / "run").checkpoints.iterdir()] == ["000000"]


def test_an_invalid_fine_tuning_run_is_refused(first: Path, tmp_path: Path) -> None:
    for i, (config, message) in enumerate(
        [
            (replace(small(first), init=""), "--init"),
            (small(first, practice=PracticeConfig(tasks=("lift",))), "did you mean 'left'|task 'lift' does not exist"),
            (sides_config(RFTConfig(), first, CLONE), "there are no demonstrations"),
            (sides_config(GRPOConfig(group_size=5), first, GRADIENT, iterations=1), "expected a multiple of 5"),
            (small(first, iterations=10**5), "100000 iterations cannot be practised: training seeds"),
            (replace(small(first), learner=replace(GRADIENT, num_processes=2)), "num-processes is 2"),
            (
                replace(small(first), learner=replace(GRADIENT, batch_size=1)),
                "a batch of 1 cannot be computed in 2 parts",
            ),
            (
                replace(small(first), evaluation=EvaluationConfig(episodes_per_task=0)),
                "evaluation.episodes_per_task must be at least 1",
            ),
            (
                replace(small(first), learner=replace(GRADIENT, ema_decay=0.9)),
                "learner.ema-decay is 0.9, but ppo and grpo need the ratios",
            ),
            (
                replace(small(first), learner=replace(GRADIENT, num_updates=100)),
                "learner.num-updates is 100, but those of ppo",
            ),
            (
                sides_config(RFTConfig(updates=30), first, replace(CLONE, num_updates=100), iterations=4),
                "learner.num-updates is 100, but 4 iterations come to 120; leave it out",
            ),
            (
                sides_config(RFTConfig(updates=30), first, replace(CLONE, warmup_updates=121), iterations=4),
                "warmup-updates, 121, and the run makes only 120 updates",
            ),
            (
                small(first, algorithm=PPOConfig(warmup_iterations=2), iterations=2),
                "warmup-iterations, 2, and the run has only 2 iterations",
            ),
            (small(first, evaluate_every=0), "evaluate-every is 0"),
            (sides_config(DaggerConfig(updates=0), first, CLONE), "algorithm.updates is 0"),
        ]
    ):
        with pytest.raises(ValueError, match=message):
            run_here(config, tmp_path / str(i))
        assert [path.name for path in (tmp_path / str(i)).iterdir()] == ["run.json"], "so the folder can be used again"
