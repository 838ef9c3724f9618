"""SimRobot: any World of one world as a robot.

Shape letters: k periods, A action dims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.robot.clock import Clock
from agent.robot.robots.stepped import SteppedRobot
from agent.robot.robots.tabletop import TABLETOP_AXES, TABLETOP_WATCHED
from agent.robot.types import Axis, RobotSpec, Watch
from envs.arrays import to_numpy
from envs.errors import UserError
from envs.types import EpisodeSpec
from envs.world import World

ARMS: dict[str, tuple[tuple[Axis, ...], tuple[Watch, ...]]] = dict.fromkeys(
    ("tabletop", "tabletop_memory"), (TABLETOP_AXES, TABLETOP_WATCHED)
)
"""{suite of worlds: its arm's axes, and what is watched}"""


class SimRobot(SteppedRobot):
    """Any World of one world, in real time.

    Example:
        >>> from envs.make import make_world
        >>> robot = SimRobot(make_world("tabletop"), EpisodeSpec(suite="tabletop", task="pick_place", seed=1_000_000))
        >>> robot.connect()
        >>> robot.instruction
        'put the red cube in the blue bowl'
    """

    def __init__(
        self,
        world: World,
        episode: EpisodeSpec,
        *,
        axes: Sequence[Axis] | None = None,
        watched: Sequence[Watch] = (),
        clock: Clock | None = None,
    ) -> None:
        """A robot that begins `episode` when it is connected.

        Args:
            world: of one world; whoever made it closes it.
            episode: which may be set anew before every `connect`.
            axes: of the action; the arm's own where None, and displacements without limits where its suite is unknown.
            watched: besides what the arm watches by itself.
            clock: the machine's where None.

        Raises:
            UserError: several worlds, or axes that do not fit their state and action.
        """
        if world.num_envs != 1:
            raise UserError(f"a robot is one world, this one has {world.num_envs}")
        if axes is None:
            unknown = (Axis(relative=True),) * world.world_spec.action.size
            axes, own = ARMS.get(world.suite, (unknown, ()))
            watched = (*own, *watched)
        spec = RobotSpec(name=world.suite, world=world.world_spec, axes=tuple(axes), watched=tuple(watched))
        super().__init__(spec, clock)
        self.episode = episode
        self._world = world

    @property
    def instruction(self) -> str:
        """What the world asks for, once connected."""
        return self._instruction

    def _begin(self) -> dict[str, Any]:
        observation, info = self._world.reset_to((self.episode,), (0,))
        self._instruction = observation["instruction"][0]
        return _seen(observation["frames"], observation["state"], info["localization"])

    def _steps(self, actions: NDArray[np.float32]) -> dict[str, Any]:
        result = self._world.step_chunk(actions[None])
        observation = result.observation
        seen = _seen(observation["frames"], observation["state"], result.localization[:, -1])
        if not result.done[0]:
            return seen
        return seen | {"success": bool(result.success[0]), "ended": result.outcome[0]}


def _seen(frames: Mapping[str, Any], state: Any, localization: Any) -> dict[str, Any]:
    return {
        "frames": {name: to_numpy(frame)[0] for name, frame in frames.items()},
        "state": to_numpy(state)[0],
        "localization": to_numpy(localization)[0],
        "success": False,
    }
