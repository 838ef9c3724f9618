"""Agent: a policy that drives a robot."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from agent.robot.clock import Clock, Stop, StopSwitch, WallClock
from agent.robot.drive import Drive, DriveConfig, Outcome
from agent.robot.inference import Inference, InferenceThread
from agent.robot.record import Recorder
from agent.robot.types import Robot
from agent.robot.watch import Operator, Watcher
from agent.runs.checks import check_config
from envs.errors import UserError
from envs.types import EpisodeSpec, WorldSpec
from rollout.dataset.schema import ImageMode
from rollout.dataset.write import DatasetWriter
from vla_model.inputs.instructions import check_text
from vla_model.types import Policy


class Agent:
    """A policy and a robot.

    Example:
        >>> policy = VLAPolicy.from_pretrained(policy_folder("runs/demo"))
        >>> robot = SimRobot(make_world("tabletop"), EpisodeSpec(suite="tabletop", task="pick_place", seed=1_000_000))
        >>> outcome = Agent(policy, robot).run("put the red cube in the blue bowl", seconds=20)
        >>> outcome.success
        True
    """

    def __init__(
        self,
        policy: Policy,
        robot: Robot,
        *,
        config: DriveConfig | None = None,
        clock: Clock | None = None,
        make_inference: Callable[[Policy], Inference] = InferenceThread,
        operator: Operator | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """
        Args:
            policy: asked by one thread of its own while the robot is driven.
            robot: not connected.
            config: how the control loop treats what comes late.
            clock: the one that the robot's readings are timed by; the machine's where None.
            make_inference: what asks the policy; a thread unless told otherwise.
            operator: a person who may take over; what they did is marked in the recording.
            watcher: is shown every control period.

        Raises:
            UserError: the policy was made for other cameras, state, actions or another rate than the robot has (the
                message lists every difference), or a number of `config` is out of its range.
        """
        check_config(config := config or DriveConfig())
        knows = getattr(policy, "processor", policy)
        if isinstance(knows, _Checks):
            knows.check(robot.spec.world)
        # Also before a drive, by who asks for it: raises UserError where the policy would not read all of it.
        self.check_instruction: Callable[[str], object] = getattr(knows, "check_instruction", check_text)
        self._policy = policy
        self._robot = robot
        self._config = config
        self._clock = clock or WallClock()
        self._make_inference = make_inference
        self._operator = operator
        self._watcher = watcher
        self._switch = StopSwitch()

    def run(
        self,
        instruction: str,
        seconds: float,
        *,
        seed: int = 0,
        record: Path | None = None,
        image_mode: ImageMode = "image",
        judge: Callable[[Outcome], bool | None] = lambda outcome: outcome.success,
    ) -> Outcome:
        """Connect, drive until the task or the time is over or someone stops it, and disconnect.

        In the main thread Ctrl-C and SIGTERM stop the robot and end the drive; a second one is the process's own. A
        `stop` that came before, since the last drive, ends this one before anything moves.

        Args:
            instruction: what to do.
            seconds: the longest that the drive may take.
            seed: of the policy's draws, if it draws.
            record: folder of a LeRobotDataset that the drive is appended to, successful or not.
            image_mode: of that dataset.
            judge: who says whether it succeeded, asked when the robot is at rest, e.g. by pressing a key; what it
                returns is recorded, None as a failure.

        Raises:
            UserError: the robot shows something else than its spec says, the instruction is blank or longer than
                the policy reads, `seconds` is not
                above 0, or `record` holds another kind of dataset or cannot hold these cameras; nothing has moved.
            OSError: the robot cannot be connected, or its recording cannot be made an episode (it is kept, and the
                message says where). What breaks in between ends the drive instead.

        Whatever else is raised, by an operator, a watcher, a judge or a robot, comes out of here when the robot is at
        rest and disconnected and what was recorded is an episode.
        """
        self.check_instruction(instruction)
        if not seconds > 0:
            raise UserError(f"seconds is {seconds}, expected a number above 0")
        with ExitStack() as stack:
            recorder = None
            if record is not None:
                recorder = self._recorder(stack, record, image_mode, instruction)
            with _signals_throw(self._switch):
                outcome = self._drive(instruction, seconds, seed, recorder)
            if recorder is not None:  # also where the judge raises
                recorder.ends(success=bool(outcome.success), ended=outcome.ended)
            outcome = replace(outcome, success=judge(outcome))
            if recorder is not None:
                recorder.ends(success=bool(outcome.success), ended=outcome.ended)
        return outcome

    def stop(self, reason: str = "by hand", *, success: bool | None = None) -> None:
        """Bring the robot to rest within one control period and end the drive. From any thread.

        Args:
            reason: for the outcome.
            success: whether the task is done, if whoever stops knows.
        """
        self._switch.throw(Stop(reason, success))

    def _recorder(self, stack: ExitStack, record: Path, image_mode: ImageMode, instruction: str) -> Recorder:
        """Opened before anything moves: a folder that cannot be written to ends no drive."""
        spec = self._robot.spec
        writer = stack.enter_context(
            DatasetWriter(record, spec.world, robot_type=spec.name, image_mode=image_mode, interventions=True)
        )
        # Nobody can make a drive again, so its seed only counts.
        episode = EpisodeSpec(suite=spec.name, task="drive", seed=len(writer.finished_ids()), variation="drive")
        return stack.enter_context(Recorder(writer, episode, instruction, self._policy.version))

    def _drive(self, instruction: str, seconds: float, seed: int, recorder: Recorder | None) -> Outcome:
        inference = self._make_inference(self._policy)
        try:
            drive = Drive(
                self._robot,
                inference,
                clock=self._clock,
                switch=self._switch,
                config=self._config,
                recorder=recorder,
                operator=self._operator,
                watcher=self._watcher,
            )
            self._robot.connect()
            return drive.run(instruction, seconds, seed)
        finally:
            self._switch = StopSwitch()
            inference.close()


@runtime_checkable
class _Checks(Protocol):
    """What knows which world a policy was made for: its processor, or a served policy itself."""

    def check(self, world_spec: WorldSpec) -> None: ...


@contextmanager
def _signals_throw(switch: StopSwitch) -> Generator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP throws the switch; the next one does what it did before. What whoever started
    the process wants ignored stays ignored: a drive under nohup outlives its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    # What was not set from Python cannot be set again from there.
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}

    def throw(number: int, frame: object) -> None:
        del frame
        switch.throw(Stop(signal.Signals(number).name))
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, throw)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
