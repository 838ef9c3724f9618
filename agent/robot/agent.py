"""Agent: a policy that drives a robot."""

from __future__ import annotations

import signal
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
from agent.runs.interrupts import STOPPING, handled
from envs.errors import UserError
from envs.types import EpisodeSpec, WorldSpec
from rollout.dataset.schema import ImageMode
from rollout.dataset.write import DatasetWriter
from vla_model.inputs.instructions import check_text
from vla_model.types import Policy


class Agent:
    """A policy and a robot.

    Examples:
        >>> policy = VLAPolicy.from_pretrained(policy_folder("runs/demo"))
        >>> robot = SimRobot(make_world("tabletop"), EpisodeSpec(suite="tabletop", task="pick_place", seed=1_000_000))
        >>> outcome = Agent(policy, robot).run("put the blue cylinder in the red bowl", seconds=20)
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
            policy: run in a thread of its own during a drive.
            robot: not connected.
            clock: of the robot's timestamps; the machine's where None.
            make_inference: runs the policy; by default in a thread.
            operator: a person who may take over; their actions are marked in the recording.

        Raises:
            UserError: the policy was made for other cameras, state, actions or another rate than the robot has (the
                message lists every difference), or a number of `config` is out of its range.
        """
        check_config(config := config or DriveConfig())
        knows = getattr(policy, "processor", policy)
        if isinstance(knows, _Checks):
            knows.check(robot.spec.world)
        # For callers before a drive too; raises UserError for an instruction that exceeds the policy's token limit.
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
        """Connect, drive until success, failure, the time limit or a stop, and disconnect.

        In the main thread Ctrl-C and SIGTERM stop the robot and end the drive; a second one has its default effect. A
        `stop` since the last drive ends this one before anything moves.

        Args:
            seconds: time limit.
            seed: of the policy's sampling, if it samples.
            record: folder of a LeRobotDataset to which the drive is appended, successful or not.
            judge: returns the success flag once the robot is at rest, e.g. from a key press; None is recorded as a
                failure.

        Raises:
            UserError: a reading differs from the robot's spec, the instruction is blank or exceeds the policy's token
                limit, `seconds` is not above 0, or `record` holds another kind of dataset or does not support these
                cameras; nothing has moved.
            OSError: the robot cannot be connected, or its recording cannot be converted to an episode (it is kept, and
                the message says where). Failures in between end the drive instead.

        Any other exception of an operator, a watcher, a judge or a robot is raised after the robot is at rest and
        disconnected and the recording is an episode.
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
            try:
                outcome = replace(outcome, success=judge(outcome))
            finally:  # also where the judge raises
                if recorder is not None:
                    recorder.ends(success=bool(outcome.success), ended=outcome.ended)
        return outcome

    def stop(self, reason: str = "by hand", *, success: bool | None = None) -> None:
        """Bring the robot to rest within one control period and end the drive. From any thread."""
        self._switch.throw(Stop(reason, success))

    def _recorder(self, stack: ExitStack, record: Path, image_mode: ImageMode, instruction: str) -> Recorder:
        """Open the recording, before anything moves: a folder that is not writable must not end a drive."""
        spec = self._robot.spec
        writer = stack.enter_context(
            DatasetWriter(record, spec.world, robot_type=spec.name, image_mode=image_mode, interventions=True)
        )
        # A drive cannot be reproduced, so its seed is only a counter.
        episode = EpisodeSpec(suite=spec.name, task="drive", seed=len(writer.finished_ids()), variation="drive")
        return stack.enter_context(Recorder(writer, episode, instruction, self._policy.version))

    def _drive(self, instruction: str, seconds: float, seed: int, recorder: Recorder | None) -> Outcome:
        inference = self._make_inference(self._policy)
        try:
            drive = Drive(
                robot=self._robot,
                inference=inference,
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
    """A policy's processor, or a served policy itself, which checks a world against the policy's."""

    def check(self, world_spec: WorldSpec) -> None: ...


@contextmanager
def _signals_throw(switch: StopSwitch) -> Generator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP throws the switch; the next one has its previous handler. Ignored signals
    stay ignored: a drive under nohup outlives its terminal.
    """

    def throw(number: int, frame: object) -> None:
        del frame
        switch.throw(Stop(signal.Signals(number).name))
        signal.signal(number, before[signal.Signals(number)])

    with handled(STOPPING, throw) as before:
        yield
