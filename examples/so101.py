"""Pick-cube of lerobot_env_so101 as a world of llamarm, in an interpreter that has it (docs/your_task.md)."""

import gymnasium
import lerobot_env_so101
import numpy as np

from llamarm import GymnasiumTask, GymnasiumWorld

STEP = 0.02  # metres that an action of 1 moves the hand
GRASP = np.array([0.0, 0.0, 0.015])  # from the cube's centre to the point between the jaws


class Pick(GymnasiumTask):
    """Lift a cube by 10 cm."""

    def make_env(self):
        env = gymnasium.make(
            lerobot_env_so101.ENV_ID,
            render_spec=lerobot_env_so101.GymRenderingSpec(height=96, width=96, camera_id="front"),
            random_block_position=True,
            action_scale=STEP,
            top_down_ik=True,
            jaw_pads=True,
        )
        # Without a GPU, shadows and multisampling take nine tenths of a frame's time.
        env.unwrapped.model.light_castshadow[:] = 0
        env.unwrapped.model.vis.quality.offsamples = 0
        return env

    def instruction(self, env):
        return "pick up the cube"

    def success(self, env, info):
        return info["succeed"]

    def labels(self, env):
        return dict(zip(("cube_x", "cube_y", "cube_z"), env.unwrapped.data.sensor("block_pos").data, strict=True))

    def expert_action(self, env, observation):
        robot = env.unwrapped
        hand = robot.ik_point_pos
        way = robot.data.sensor("block_pos").data + GRASP - hand
        jaw = robot.data.joint("gripper").qpos[0]
        if np.linalg.norm(way) < (0.01 if jaw > 1.6 else 0.03):  # closing, the jaw moves the hand
            return np.array([0.0, 0.0, float(jaw < 0.6), 0.0])
        if np.linalg.norm(way[:2]) > 0.01 and way[2] > -0.04:
            way[2] += 0.055  # first above the cube
        return np.append((way / STEP).clip(-1.0, 1.0), 1.0)


def make_world(num_worlds):
    return GymnasiumWorld(num_worlds, suite="so101", tasks={"pick": Pick()}, control_dt_s=0.1)
