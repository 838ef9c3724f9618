"""Driving: jitter of the control loop during inference, and success rate by inference latency.

    python -m benchmarks.drive                                   # jitter, with a model of random weights
    python -m benchmarks.drive --policy runs/demo --out docs/results/drive.md

Jitter is measured in real time on the simulated arm, which moves, renders and is recorded at `rate_hz` instead of its
own rate. Success is measured in simulated time (benchmarks/simulated.py) on
held-out episodes, the same for every latency and, with the default first seed, for `llamarm eval`; latency is in
control periods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from agent.evaluation.evaluate import evaluation_specs
from agent.evaluation.statistics import Proportion
from agent.robot.agent import Agent
from agent.robot.drive import DriveConfig, Outcome
from agent.robot.robots.sim_robot import SimRobot
from agent.runs.policies import load_policy
from agent.runs.run_folder import RunFolder, machine
from agent.runs.seeds import FIRST_EVALUATION_SEED
from benchmarks.document import finish, head
from benchmarks.simulated import SimulatedClock, SimulatedInference
from benchmarks.untrained import untrained
from envs.make import make_world
from envs.types import EpisodeSpec
from envs.world import World
from rollout.collect import collect
from vla_model.policy import VLAPolicy


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    model: str = "nano"
    """Model of the policy whose jitter is measured, by its name for vla_model/create.py."""
    rate_hz: float = 20.0
    seconds: float = 60.0
    """Duration of the drive whose jitter is measured."""
    policy: Path | None = None
    """A run whose success is measured; default: only jitter is measured."""
    episodes: int = 20
    """Episodes per task."""
    first_seed: int = FIRST_EVALUATION_SEED
    """First seed of the episodes."""
    latencies: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0)
    """Inference latencies in control periods."""
    drive: DriveConfig = field(default_factory=DriveConfig)
    """Latency handling in the drives whose success is measured."""
    n_action_steps: int | None = None
    """Actions to execute of each chunk in the evaluation for comparison; default: the policy's."""
    out: Path | None = None
    """File to which the tables are written, in addition to the screen."""


def jitter(options: Options) -> Iterator[str]:
    """Table of one drive in real time."""
    with closing(make_world("tabletop")) as world:
        world.world_spec = replace(world.world_spec, control_dt_s=1 / options.rate_hz)
        policy = VLAPolicy(*untrained(world.world_spec, options.model))
        yield "| periods | missed | late by, median | 90 % | 99 % | at most | decisions | a decision takes |"
        yield "|---|---|---|---|---|---|---|---|"
        outcomes: list[Outcome] = []
        while sum(outcome.num_steps for outcome in outcomes) < options.seconds * options.rate_hz:
            # An episode ends after its own number of steps, and another one follows.
            episode = EpisodeSpec(suite="tabletop", task="stack", seed=len(outcomes))
            outcomes.append(Agent(policy, SimRobot(world, episode)).run("stack the red cube", options.seconds))
    late = np.concatenate([outcome.lateness_ms for outcome in outcomes])
    thought = np.concatenate([outcome.inference_ms for outcome in outcomes])
    missed = sum(outcome.missed_periods for outcome in outcomes)
    quantiles = " | ".join(f"{q:.2f} ms" for q in np.percentile(late, [50, 90, 99, 100]))
    yield f"| {len(late)} | {missed} | {quantiles} | {len(thought)} | {np.median(thought):.1f} ms |"


@dataclass(frozen=True, kw_only=True)
class Episode:
    """The outcome of one episode."""

    success: bool
    actions: NDArray[np.float32]
    """[T, A]"""
    held: int
    """Periods in which the arm held because the chunk was used up."""


class ListeningRobot(SimRobot):
    """A robot that records the actions it was sent."""

    sent: list[NDArray[np.float32]]

    def act(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        self.sent.append(action)
        return super().act(action)


def success(options: Options, run: Path) -> Iterator[str]:
    """Table of success by latency, after that of the evaluation on the same episodes."""
    tasks = RunFolder(run).record["config"]["demonstrations"]["tasks"]
    policy = load_policy(str(run))
    n_action_steps = options.n_action_steps or policy.n_action_steps
    specs = evaluation_specs("tabletop", tasks, options.episodes, first_seed=options.first_seed)
    yield "| an answer is late by | success | 95 % interval | periods | held | change of speed, mean | 99 % |"
    yield "|---|---|---|---|---|---|---|"
    with closing(make_world("tabletop")) as world:
        evaluated = collect(policy, world, specs, n_action_steps=n_action_steps)
        episodes = [Episode(success=t.success, actions=t.action, held=0) for t in evaluated]
        yield _row(f"nothing, in `eval`, {n_action_steps} executed of a chunk", episodes)
        for latency in options.latencies:
            episodes = [_driven(policy, world, spec, latency, options.drive) for spec in specs]
            yield _row(f"{latency:g} periods", episodes)


def _driven(policy: VLAPolicy, world: World, spec: EpisodeSpec, latency: float, config: DriveConfig) -> Episode:
    """One episode in simulated time."""
    clock = SimulatedClock()
    robot = ListeningRobot(world, spec, clock=clock)
    robot.sent = []
    robot.connect()  # begins the episode, which sets the instruction
    latency_s = latency * world.world_spec.control_dt_s
    make_inference = partial(SimulatedInference, clock=clock, latency_s=lambda n: latency_s)
    agent = Agent(policy, robot, config=config, clock=clock, make_inference=make_inference)
    outcome = agent.run(robot.instruction, seconds=60.0)
    held = outcome.interventions_by_reason().get("late chunk", 0)
    return Episode(success=bool(outcome.success), actions=np.stack(robot.sent), held=held)


def _row(what: str, episodes: Sequence[Episode]) -> str:
    succeeded = Proportion.of(e.success for e in episodes)
    low, high = succeeded.interval
    periods = sum(len(e.actions) for e in episodes)
    # Of the three displacements of the tool, between consecutive periods; 1 is full speed.
    changes = np.concatenate([np.abs(np.diff(e.actions[:, :3], axis=0)).max(axis=1) for e in episodes])
    cells = [
        what,
        f"{100 * succeeded.rate:.1f} %",
        f"{100 * low:.1f} to {100 * high:.1f} %",
        f"{periods / len(episodes):.0f}",
        f"{100 * sum(e.held for e in episodes) / periods:.1f} %",
        f"{changes.mean():.2f}",
        f"{np.percentile(changes, 99):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(options: Options) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    conditions = (
        f"{machine()['cores']} cores of {machine()['cpu']}, torch {torch.__version__}, one thread for the model."
    )
    lines = [
        *head("Cost of driving", "drive", conditions),
        "",
        f"The control loop at {options.rate_hz:g} Hz in real time, physics and frames in its own thread, while",
        f"`{options.model}` with random weights infers continuously:",
        "",
        *jitter(options),
    ]
    if options.policy is not None:
        lines += [
            "",
            "Success on the same held-out episodes, in simulated time; speeds are parts of full speed:",
            "",
            *success(options, options.policy),
        ]
    finish(lines, options.out)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
