"""Settings of a run: RunConfig for training on demonstrations, ImproveConfig for fine-tuning a policy.

Their fields are options of `llamarm train`, so importing this loads neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NoReturn, Self

import tyro
from annotated_types import Interval

from agent.algorithms.method import AlgorithmConfig
from agent.algorithms.sft_config import SFTConfig
from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.runs.checks import HOW, NumWorlds, Seed, Share
from agent.runs.run_folder import PRETRAINED, RunFolder, policy_folder
from agent.runs.seeds import FIRST_EVALUATION_SEED
from agent.runs.worlds import WorldConfig, amount_of
from agent.training.practice import PracticeConfig
from agent.training.trackers import Tracker, check_trackers
from envs.errors import UserError
from rollout.dataset.foreign.reading import ReadingConfig
from rollout.workers.workers import WorkersConfig
from vla_model.files.folders import check_place
from vla_model.sizes import ModelConfig
from vla_model.weights.config import FineTuning


@dataclass(frozen=True, kw_only=True)
class DemonstrationsConfig(WorldConfig):
    """Which episodes the scripted expert demonstrates, and how."""

    further_variations: tuple[str, ...] = ()
    """Besides `variation`: of each a task has episodes_per_task episodes too."""
    episodes_per_task: Annotated[int, Interval(ge=1, le=100_000)] = 50
    """Successful ones."""
    first_seed: Annotated[int, Interval(ge=0, lt=FIRST_EVALUATION_SEED)] = 0
    """Seeds count up from here and stay below evaluation's."""
    attempts_per_episode: Annotated[float, Interval(ge=1, le=1_000)] = 2.0
    """Maximum number of attempts of a task per successful episode, rounded up."""
    num_worlds: NumWorlds = 8
    """Parallel worlds in each process."""
    noise_std: Annotated[float, Interval(ge=0, le=10)] = 0.0
    """Of the noise added to executed actions, never to labels (rollout/expert.py)."""
    noise_share: Share = 0.5
    """Probability that an episode is noisy."""
    noise_correlation: Annotated[float, Interval(ge=0, lt=1)] = 0.8
    image_mode: Literal["image", "video"] = "image"
    """Exact PNGs, or one video per camera and episode."""

    @property
    def variations(self) -> tuple[str, ...]:
        """All that are demonstrated."""
        return self.variation, *self.further_variations


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of a run on demonstrations or recordings."""

    loop: ClassVar = "train"
    """The function that runs it: agent/training/loop.py's."""

    seed: Seed = 0
    """Of the model's initial weights, the batches and the augmentation."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """A preset and what differs from it: see vla_model/create.py."""
    init: Annotated[str, tyro.conf.arg(metavar="POLICY")] = ""
    """A policy whose weights, normalisation and tokenizer the training begins with, in place of random weights: a run,
    a checkpoint, or a policy's folder. `model` must describe its model; model.instruction-length may differ."""
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    demonstrations: DemonstrationsConfig = field(default_factory=DemonstrationsConfig)
    rollout: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)
    """The processes that collect and evaluate; on the command line without a prefix: --workers, --ray-address. The
    learner's processes, if it has several, run at the same address."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded datasets (of `collect`, `drive`, `console` or any program that writes LeRobotDatasets) to clone in place
    of the scripted expert's demonstrations, which are then not collected. Failed episodes are used for auxiliary losses
    only. demonstrations.world and .tasks still define the evaluation; --evaluation.episodes-per-task 0 (a real robot)
    skips it, and recordings of other programs have none."""
    drives: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Recorded drives to train on too: a person's corrections where they took over, and whole drives that succeeded
    without (docs/console.md)."""
    auxiliary: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR ...")] = ()
    """Datasets used for auxiliary losses only: any episodes in simulation, also a policy's failures."""
    cache: Annotated[str, tyro.conf.arg(metavar="DIR")] = field(default="", metadata=HOW)
    """Folder of the caches of decoded frames; beside each dataset if not given."""
    reading: Annotated[ReadingConfig, tyro.conf.arg(name="")] = field(default_factory=ReadingConfig)
    """How recordings of other programs are read."""
    sft: SFTConfig = field(default_factory=SFTConfig)
    learner: LearnerConfig = field(default_factory=lambda: LearnerConfig(num_updates=5000))
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    save_every: Annotated[int, Interval(ge=1, le=10_000_000)] = 1000
    """Updates between checkpoints."""
    log_to: tuple[Tracker, ...] = field(default=("tensorboard",), metadata=HOW)
    """Where metrics are logged; the report draws TensorBoard's. Trackio and wandb are optional packages."""

    def check(self) -> None:
        """
        Raises:
            UserError: the cache folder cannot be used, a tracker is not installed, or no dataset is given to which the
                reading options apply.
        """
        check_place("cache", self.cache)
        check_trackers(self.log_to)
        reading = self.reading
        if not self.data and (reading.held_out or reading.without_episodes or not reading.is_default):
            raise UserError(
                "frames, fit, cameras, held-out and without-episodes are for recorded datasets: name them with --data"
            )
        reading.check_left_out((*self.data, *self.drives, *self.auxiliary))

    @property
    def is_simulated(self) -> bool:
        """Whether the policy is evaluated in simulation: recordings of other programs have no simulator.

        Raises:
            UserError: a folder of `data` holds no dataset.
        """
        from rollout.dataset.read import read_info
        from rollout.dataset.schema import is_own

        return self.evaluation.episodes_per_task > 0 and all(is_own(read_info(Path(root))) for root in self.data)

    def from_demonstrations(self) -> RunConfig:
        """The config itself."""
        return self

    def ahead(self, run: RunFolder) -> str:
        """What the run will do, for its user, with the amounts of it."""
        demonstrations, tasks = self.demonstrations, self.demonstrations.tasks
        count = demonstrations.episodes_per_task * len(demonstrations.variations)
        begins = f", from the weights of {self.init}" if self.init else ""
        steps = [
            f"reads {', '.join(self.data)}" if self.data else f"collects {amount_of('demonstration', count, tasks)}",
            f"makes {self.learner.num_updates:,} updates of {self.learner.batch_size:,} samples{begins}{_done(run)}",
            *([self.evaluation.ahead(tasks)] if self.is_simulated else []),
        ]
        return "; ".join(steps)

    def in_interpreter(self, python: Path | None) -> Self:
        """The same with its world in that interpreter; see WorldConfig."""
        return replace(self, demonstrations=self.demonstrations.in_interpreter(python))

    def check_names(self, run: RunFolder) -> None:
        """Refuse what can be refused without torch.

        Raises:
            UserError: the world, its device, a task or a variation does not exist, or see initial_policy.
        """
        self.initial_policy(run)
        variations = self.evaluation.variations if self.is_simulated else ()
        if self.data and not variations:
            return  # of a robot: no world is made
        own = () if self.data else self.demonstrations.variations
        self.demonstrations.check_names(variations, own)

    def initial_policy(self, run: RunFolder) -> Path | None:
        """The folder of the last checkpoint's policy, else of the one that init names; None for random weights.

        Raises:
            UserError: init holds no policy.
        """
        return _policy_to_continue(run, self.init)


@dataclass(frozen=True, kw_only=True)
class ImproveConfig:
    """Settings of a run that fine-tunes a policy."""

    loop: ClassVar = "improve"
    """The function that runs it: agent/training/improve.py's."""

    algorithm: AlgorithmConfig
    init: Annotated[str, tyro.conf.arg(metavar="POLICY")] = ""
    """The initial policy: a run, a checkpoint, or a policy's folder."""
    fine_tuning: FineTuning = field(default_factory=FineTuning)
    seed: Seed = 0
    """Of sampled actions, batches, augmentation and the initial weights of adapters."""
    practice: PracticeConfig = field(default_factory=PracticeConfig)
    iterations: Annotated[int, Interval(ge=1, le=100_000)] = 40
    overlap: bool = False
    """Collect an iteration's episodes while learning from the previous ones: faster where there are cores for both, but
    the weights that act are one iteration old."""
    rollout: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)
    """The processes that collect and evaluate; on the command line without a prefix: --workers, --ray-address."""
    cache: Annotated[str, tyro.conf.arg(metavar="DIR")] = field(default="", metadata=HOW)
    """Folder of the caches of decoded frames; beside each dataset if not given."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Of the initial and the best policy, at the end. Its n_action_steps hold for collection too."""
    evaluate_every: Annotated[int, Interval(ge=1, le=100_000)] = 5
    """Iterations between two evaluations for model selection."""
    selection_episodes: Annotated[int, Interval(ge=1, le=100_000)] = 10
    """Per task, in such an evaluation."""
    log_to: tuple[Tracker, ...] = field(default=("tensorboard",), metadata=HOW)
    """Where metrics are logged; the report draws TensorBoard's. Trackio and wandb are optional packages."""
    collapse_share: Share = 0.5
    """The run ends when the success of such an evaluation falls below this share of the best."""

    def check(self) -> None:
        """
        Raises:
            UserError: the learner's settings contradict the algorithm, the cache folder cannot be used, or a tracker is
                not installed.
        """
        check_place("cache", self.cache)
        check_trackers(self.log_to)
        learner = self.learner
        if learner.num_processes != 1:
            raise UserError(f"learner.num-processes is {learner.num_processes}, but fine-tuning by rollouts needs 1")
        self.algorithm.check_learner(learner, self.iterations)

    def from_demonstrations(self) -> NoReturn:
        """
        Raises:
            UserError: a fine-tuning run has none.
        """
        raise UserError(
            "this recipe fine-tunes a policy: it has no demonstrations to collect, and no grid can be made of it; "
            "take one that begins with sft_"
        )

    def ahead(self, run: RunFolder) -> str:
        """What the run will do, for its user, with the amounts of it."""
        practice, tasks = self.practice, self.practice.tasks
        chosen = amount_of("episode", self.selection_episodes, tasks)
        return (
            f"fine-tunes {self.init or run.last_checkpoint()} in {self.iterations:,} iterations of "
            f"{amount_of('episode', practice.episodes_per_task, tasks)}{_done(run)}; chooses the best by {chosen}, "
            f"every {self.evaluate_every:,} iterations; {self.evaluation.ahead(tasks)}, of the initial and the best "
            "policy"
        )

    def in_interpreter(self, python: Path | None) -> Self:
        """The same with its world in that interpreter; see WorldConfig."""
        return replace(self, practice=self.practice.in_interpreter(python))

    def check_names(self, run: RunFolder) -> None:
        """Refuse what can be refused without torch.

        Raises:
            UserError: the world, its device, a task or a variation does not exist, or see initial_policy.
        """
        self.practice.check_names((self.practice.variation,), self.evaluation.variations)
        self.initial_policy(run)

    def initial_policy(self, run: RunFolder) -> Path:
        """The folder of the last checkpoint's policy, else of the one that init names.

        Raises:
            UserError: init is not given, or holds no policy.
        """
        policy = _policy_to_continue(run, self.init)
        if policy is None:
            raise UserError("there is no initial policy; name a run or a policy's folder with --init")
        return policy


def _policy_to_continue(run: RunFolder, init: str) -> Path | None:
    """The folder of the last checkpoint's policy, else of the one that init names; None if it names none.

    Raises:
        UserError: init holds no policy.
    """
    last = run.last_checkpoint()
    if last is not None:
        return last / PRETRAINED
    return policy_folder(init) if init else None


def _done(run: RunFolder) -> str:
    """How much of a run was done before."""
    last = run.last_checkpoint()
    return f" ({int(last.name):,} are done)" if last else ""
