"""Recipes: named functions that return one typed config. A variant calls a recipe and replaces fields of it.

A RunConfig trains on demonstrations, by agent/training/loop.py; an ImproveConfig fine-tunes a policy, its `init`, by
agent/training/improve.py. Importing this loads neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.algorithms.cloning_config import DaggerConfig, RFTConfig
from agent.algorithms.grpo_config import GRPOConfig
from agent.algorithms.ppo_config import PPOConfig, SurrogateConfig
from agent.algorithms.sft_config import SFTConfig
from agent.algorithms.shrink_perturb import ShrinkPerturbConfig
from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.training.config import DemonstrationsConfig, ImproveConfig, RunConfig
from agent.training.practice import PracticeConfig
from rollout.workers.workers import WorkersConfig
from vla_model.sizes import ModelConfig

DEMO_TASKS = ("reach", "lift", "pick_place", "open_drawer", "close_drawer", "press_button")


def sft_demo() -> RunConfig:
    """Six tabletop tasks cloned from the scripted expert, collected to recorded in minutes on two cores."""
    return RunConfig(
        demonstrations=DemonstrationsConfig(tasks=DEMO_TASKS, episodes_per_task=400, noise_std=0.3),
        sft=SFTConfig(hold_gripper=True),
        learner=LearnerConfig(batch_size=128, num_updates=1700, optimizer="muon", warmup_updates=150),
        evaluation=EvaluationConfig(episodes_per_task=20),
        save_every=250,
    )


def sft_tabletop() -> RunConfig:
    """All tabletop tasks cloned from the scripted expert, evaluated on every family of variations."""
    demo = sft_demo()
    return replace(
        demo,
        demonstrations=replace(demo.demonstrations, tasks=()),
        learner=LearnerConfig(batch_size=128, num_updates=10000),
        evaluation=replace(
            demo.evaluation, variations=("train", "vision", "paraphrase", "combination", "execution", "synonym")
        ),
        save_every=2000,
    )


def sft_tiny() -> RunConfig:
    """A few updates on a few episodes: tests that everything runs, not that it learns."""
    return RunConfig(
        demonstrations=DemonstrationsConfig(tasks=("reach", "press_button"), episodes_per_task=2, num_worlds=2),
        rollout=WorkersConfig(workers=0),
        learner=LearnerConfig(batch_size=8, num_updates=4, warmup_updates=2),
        evaluation=EvaluationConfig(episodes_per_task=1, num_worlds=2),
        save_every=2,
    )


def sft_memory() -> RunConfig:
    """A task that cannot be solved without memory, by a policy with its first observation as history."""
    demo = sft_demo()
    return replace(
        demo,
        sft=SFTConfig(),
        # With a stride longer than the episode, the history is the first observation at every step.
        model=ModelConfig(history_length=1, history_stride=64),
        demonstrations=replace(demo.demonstrations, world="tabletop_memory", tasks=(), episodes_per_task=300),
        learner=LearnerConfig(batch_size=64, num_updates=1000),
        evaluation=replace(demo.evaluation, episodes_per_task=100),
    )


def sft_few() -> RunConfig:
    """A mediocre policy of the demo's six tasks from a few demonstrations: the initial policy of the recipes below."""
    demo = sft_demo()
    return replace(
        demo,
        sft=SFTConfig(),
        demonstrations=replace(demo.demonstrations, episodes_per_task=30),
        learner=LearnerConfig(batch_size=128, num_updates=600),
        save_every=600,
    )


def ppo_tabletop() -> ImproveConfig:
    """Fine-tunes the policy of --init on the demo's six tasks with ppo; the reward is success alone."""
    return ImproveConfig(
        algorithm=PPOConfig(surrogate=_correlated(PPOConfig().surrogate)),
        practice=PracticeConfig(tasks=DEMO_TASKS, episodes_per_task=64),
        iterations=100,
        learner=_policy_gradient_learner(),
        # Half as many decisions to train on as with 2, for little less success.
        evaluation=EvaluationConfig(episodes_per_task=20, n_action_steps=4),
        evaluate_every=10,
    )


def grpo_tabletop() -> ImproveConfig:
    """As ppo_tabletop, with grpo: groups of eight episodes in place of a value head."""
    return replace(ppo_tabletop(), algorithm=GRPOConfig(surrogate=_correlated(GRPOConfig().surrogate)))


def rft_tabletop() -> ImproveConfig:
    """Fine-tunes the policy of --init on the demo's six tasks by cloning its own successes."""
    return ImproveConfig(
        algorithm=RFTConfig(),
        practice=PracticeConfig(tasks=DEMO_TASKS, episodes_per_task=64),
        iterations=10,
        learner=LearnerConfig(batch_size=128, learning_rate=5.0e-4, warmup_updates=100),
        evaluation=EvaluationConfig(episodes_per_task=20),
    )


def rft_few() -> ImproveConfig:
    """rft_tabletop for sft_few's policy, which overfits: its weights are reinitialised first."""
    rft = rft_tabletop()
    return replace(
        rft,
        algorithm=RFTConfig(shrink_perturb=ShrinkPerturbConfig(keep=0.0, updates=1500)),
        iterations=12,
        learner=replace(rft.learner, learning_rate=1.0e-3),
    )


def dagger_tabletop() -> ImproveConfig:
    """Fine-tunes the policy of --init on the demo's six tasks with expert labels on the states it visits."""
    rft = rft_tabletop()
    return replace(
        rft,
        algorithm=DaggerConfig(),
        practice=replace(rft.practice, episodes_per_task=32),
        iterations=15,
    )


def dagger_few() -> ImproveConfig:
    """dagger_tabletop for sft_few's policy, which overfits: a new model is trained on all data at the end."""
    dagger = dagger_tabletop()
    return replace(
        dagger,
        algorithm=DaggerConfig(
            updates=150, shrink_perturb=ShrinkPerturbConfig(keep=0.0, iteration=dagger.iterations, updates=3600)
        ),
        learner=replace(dagger.learner, learning_rate=1.0e-3),
    )


def sft_mt10() -> RunConfig:
    """Meta-World's MT10 cloned from its scripted experts (make metaworld installs it), by the published protocol."""
    return RunConfig(
        model=ModelConfig(name="nano_steady", foreseen_steps=(10, 20, 40, 80, 160), foreseen_keyframes=True),
        demonstrations=DemonstrationsConfig(
            world="metaworld-mt10",
            episodes_per_task=50,
            attempts_per_episode=4.0,
            num_worlds=4,
            noise_std=0.1,  # at 0.3 the experts of assembly, basketball and box-close mostly fail
        ),
        learner=LearnerConfig(batch_size=128, num_updates=6000),
        evaluation=EvaluationConfig(episodes_per_task=10, n_action_steps=4, num_worlds=4),
        save_every=2000,
    )


def sft_mt50() -> RunConfig:
    """All 50 tasks of Meta-World, as sft_mt10 but without foresight."""
    mt10 = sft_mt10()
    return replace(
        mt10,
        model=ModelConfig(name="nano_steady"),
        demonstrations=replace(mt10.demonstrations, world="metaworld-mt50"),
        learner=replace(mt10.learner, num_updates=20000),
        save_every=4000,
    )


def sft_mt50_unlabelled() -> RunConfig:
    """As sft_mt50, without labels from the simulator's state: foresight of the hand alone, from recorded states."""
    mt50 = sft_mt50()
    return replace(
        mt50,
        learner=replace(mt50.learner, num_updates=12000),
        model=replace(sft_mt10().model, foreseen_waypoints=True),
        sft=SFTConfig(localization_weight=0.0, pointing_weight=0.0),
    )


def sft_libero() -> RunConfig:
    """LIBERO's four suites cloned from its scripted expert (make libero installs it): one policy for 40 tasks."""
    mt50 = sft_mt50()
    return replace(
        mt50,
        model=ModelConfig(
            name="nano_steady",
            instruction_length=32,  # the longest sentence of these suites and their variations has 27 tokens
            foreseen_steps=(3, 5, 10, 20, 40),
            foreseen_keyframes=True,
        ),
        # Every world compiles every task, so fewer worlds begin sooner.
        demonstrations=DemonstrationsConfig(world="libero", episodes_per_task=50, num_worlds=2, noise_std=0.1),
        # Where a thing must be released, success comes two or three steps after the command to open.
        sft=SFTConfig(hold_gripper=True),
        learner=LearnerConfig(batch_size=128, num_updates=8000, optimizer="muon", warmup_updates=200),
        # With 4 of 8 actions per decision the hand stays where the expert waited, around a can or on a cabinet.
        evaluation=replace(mt50.evaluation, num_worlds=2, n_action_steps=8),
        save_every=1000,
    )


def sft_libero_unlabelled() -> RunConfig:
    """As sft_libero, without labels from the simulator's state: foresight of the hand alone, from recorded states."""
    libero = sft_libero()
    return replace(
        libero,
        model=replace(libero.model, foreseen_waypoints=True),
        sft=replace(libero.sft, localization_weight=0.0, pointing_weight=0.0),
    )


def sft_libero_wide() -> RunConfig:
    """As sft_libero, in other words, colours and sizes, and as many demonstrations of other tasks in the same arenas
    (variations "restyled" and "wide"): neither has what LIBERO-PRO changes.
    """
    libero = sft_libero()
    return replace(
        libero,
        model=replace(libero.model, instruction_length=40),  # one in ten wide sentences has more than 24 tokens
        demonstrations=replace(
            libero.demonstrations, variation="restyled", further_variations=("wide",), attempts_per_episode=4.0
        ),
        evaluation=replace(libero.evaluation, variations=("train", "lan", "object", "swap", "task")),
    )


def rft_mt50() -> ImproveConfig:
    """Fine-tunes the policy of --init on Meta-World's 50 tasks by cloning its own successes."""
    rft = rft_tabletop()
    return replace(
        rft,
        practice=PracticeConfig(world="metaworld-mt50", episodes_per_task=10, num_worlds=4),
        iterations=8,
        algorithm=RFTConfig(updates=2000),
        evaluation=sft_mt10().evaluation,
        evaluate_every=2,
        selection_episodes=4,
    )


def dagger_mt50() -> ImproveConfig:
    """Fine-tunes the policy of --init on Meta-World's 50 tasks with expert labels, mostly of tasks it fails."""
    rft = rft_mt50()
    return replace(
        rft,
        algorithm=_labelling_dagger(SFTConfig()),
        practice=replace(rft.practice, episodes_per_task=6, focus=0.8),
        iterations=4,
        evaluate_every=1,
    )


def dagger_libero() -> ImproveConfig:
    """Fine-tunes the policy of --init on LIBERO's 40 tasks with expert labels, mostly of tasks it fails."""
    dagger, libero = dagger_mt50(), sft_libero()
    return replace(
        dagger,
        # Whole chunks, as in evaluation, so that the learner is labelled where it will get to.
        algorithm=replace(_labelling_dagger(libero.sft), n_action_steps=8),
        practice=replace(dagger.practice, world="libero", num_worlds=libero.demonstrations.num_worlds),
        evaluation=libero.evaluation,
    )


def ppo_mt50() -> ImproveConfig:
    """Fine-tunes the policy of --init on Meta-World's 50 tasks with ppo; the reward is success alone."""
    return replace(
        ppo_tabletop(),
        practice=PracticeConfig(world="metaworld-mt50", episodes_per_task=8, num_worlds=4),
        evaluation=sft_mt10().evaluation,
        selection_episodes=4,
    )


def _labelling_dagger(sft: SFTConfig) -> DaggerConfig:
    """For policies that already solve most tasks: the expert need not act often, only label."""
    return DaggerConfig(beta=0.2, beta_decay=0.7, updates=1500, rows_per_episode=100, sft=sft)


def _policy_gradient_learner() -> LearnerConfig:
    """For policy gradients: no EMA, weight decay, warm-up or decay of the learning rate."""
    return LearnerConfig(
        batch_size=512,
        learning_rate=1.0e-4,
        value_rate=15.0,
        warmup_updates=0,
        final_lr_share=1.0,
        weight_decay=0.0,
        ema_decay=0.0,
    )


def _correlated(surrogate: SurrogateConfig) -> SurrogateConfig:
    """Temporally correlated noise moves an arm, independent noise only shakes it; one epoch per rollout is faster."""
    return replace(surrogate, epochs=1, noise_correlation=0.7)


RECIPES: dict[str, Callable[[], RunConfig | ImproveConfig]] = {
    "sft_demo": sft_demo,
    "sft_tabletop": sft_tabletop,
    "sft_memory": sft_memory,
    "sft_few": sft_few,
    "sft_tiny": sft_tiny,
    "ppo_tabletop": ppo_tabletop,
    "grpo_tabletop": grpo_tabletop,
    "rft_tabletop": rft_tabletop,
    "rft_few": rft_few,
    "dagger_tabletop": dagger_tabletop,
    "dagger_few": dagger_few,
    "sft_mt10": sft_mt10,
    "sft_mt50": sft_mt50,
    "sft_libero": sft_libero,
    "sft_libero_unlabelled": sft_libero_unlabelled,
    "sft_libero_wide": sft_libero_wide,
    "sft_mt50_unlabelled": sft_mt50_unlabelled,
    "rft_mt50": rft_mt50,
    "dagger_mt50": dagger_mt50,
    "dagger_libero": dagger_libero,
    "ppo_mt50": ppo_mt50,
}
"""Every recipe by name."""
