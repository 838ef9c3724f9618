"""FetchReach of gymnasium-robotics as a world of llamarm: --demonstrations.world examples.fetch:make_world."""

from types import SimpleNamespace

import gymnasium
import gymnasium_robotics
import mujoco
import numpy as np
from gymnasium_robotics.utils import mujoco_utils

from llamarm import GymnasiumTask, GymnasiumWorld

gymnasium.register_envs(gymnasium_robotics)
# gymnasium-robotics 1.4.2 asks whether a NumPy integer is `in` a tuple of MuJoCo's enums, which MuJoCo 4 always denies.
plain = SimpleNamespace(**{name: int(member) for name, member in mujoco.mjtJoint.__members__.items()})
mujoco_utils.mujoco = SimpleNamespace(**(vars(mujoco) | {"mjtJoint": plain}))

VIEWS = {"left": 135.0, "right": 225.0}  # azimuth, degrees
GRIPPER = (1.34, 0.75, 0.53)  # where it begins, metres


class Reach(GymnasiumTask):
    """Move the gripper to a red ball in the air."""

    renderer = None

    def make_env(self):
        return gymnasium.make("FetchReach-v4")

    def instruction(self, env):
        return "move the gripper to the red ball"

    def state(self, env, observation):
        return observation["observation"]  # of the gripper alone: where the ball is, only the cameras know

    def frames(self, env):
        robot = env.unwrapped
        # One renderer for all worlds, for their models are alike.
        self.renderer = self.renderer or mujoco.Renderer(robot.model, 96, 96)
        robot.data.site("target0").xpos[:] = robot.goal
        frames = {}
        for name, azimuth in VIEWS.items():
            camera = mujoco.MjvCamera()
            camera.lookat, camera.distance, camera.azimuth, camera.elevation = GRIPPER, 0.7, azimuth, -20.0
            self.renderer.update_scene(robot.data, camera)
            frames[name] = self.renderer.render()
        return frames

    def labels(self, env):
        return dict(zip(("ball_x", "ball_y", "ball_z"), env.unwrapped.goal, strict=True))

    def expert_action(self, env, observation):
        move = (observation["desired_goal"] - observation["achieved_goal"]) / 0.05  # an action of 1 moves by 5 cm
        return np.append(move.clip(-1.0, 1.0), 0.0)


def make_world(num_worlds):
    return GymnasiumWorld(num_worlds, suite="fetch", tasks={"reach": Reach()}, control_dt_s=0.04)
