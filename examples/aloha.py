"""AlohaTransferCube of gym-aloha as a world of llamarm, in an interpreter that has it (docs/your_task.md)."""

import gym_aloha
import gymnasium
import mujoco
import numpy as np

from llamarm import GymnasiumTask, GymnasiumWorld

gymnasium.register_envs(gym_aloha)

CAMERA, HEIGHT, WIDTH = "top", 96, 128
ARMS = {"left": slice(0, 8), "right": slice(8, 16)}  # in MuJoCo's qpos and ctrl
TIP = np.array([0.14, 0.0, 0.0])  # between the fingers' ends, in the frame of the gripper's link
MEET = np.array([0.0, 0.5, 0.25])  # where the cube changes hands
PICK = np.array([[-0.5, 0.0, -0.87], [0.0, -1.0, 0.0], [-0.87, 0.0, 0.5]]).T  # its axes: 60 degrees downwards
RECEIVE = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]).T  # turned, so that the fingers do not meet


class RadianActions(gymnasium.ActionWrapper):
    """Declares the range of the joints: the environment's own Box of +-1 does not even hold where they begin."""

    def __init__(self, env):
        super().__init__(env)
        low, high = env.unwrapped._env.physics.model.actuator_ctrlrange.T
        low, high = (np.concatenate([bound[:6], [edge], bound[8:14], [edge]]) for bound, edge in ((low, 0), (high, 1)))
        self.action_space = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32))

    def action(self, action):
        return action


class TransferCube(GymnasiumTask):
    """The right arm lifts a cube and hands it to the left one."""

    def make_env(self):
        env = gymnasium.make("gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos", disable_env_checker=True)
        # Its observations render three cameras of 480 x 640 pixels in every step; ours are rendered when needed.
        task, blank = env.unwrapped._env.task, np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        task.get_observation = lambda physics: {"qpos": task.get_qpos(physics), "images": {"top": blank}}
        # Without a GPU, shadows and multisampling take nine tenths of a frame's time.
        model = env.unwrapped._env.physics.model.ptr
        model.light_castshadow[:] = 0
        model.vis.quality.offsamples = 0
        return RadianActions(env)

    def instruction(self, env):
        return "hand the red cube from the right arm to the left arm"

    def frames(self, env):
        return {CAMERA: env.unwrapped._env.physics.render(HEIGHT, WIDTH, camera_id=CAMERA)}

    def labels(self, env):
        return dict(zip(("cube_x", "cube_y", "cube_z"), env.unwrapped._env.physics.data.qpos[16:19], strict=True))

    def expert_action(self, env, observation):
        physics = env.unwrapped._env.physics
        cube = physics.data.qpos[16:19].copy()
        hands = {side: tip(physics, side) for side in ARMS}
        state = observation["agent_pos"]
        right, left = cube - hands["right"], cube - hands["left"]
        closed = state[13] < 0.75
        holds = np.linalg.norm(right) < 0.03 and closed
        if holds:
            goal = hands["right"] + MEET - cube
        elif np.linalg.norm(right[:2]) > 0.015 and right[2] > -0.07:
            goal = cube + np.array([0.0, 0.0, 0.1])
        else:
            goal = cube
        near = np.linalg.norm(right) < (0.015 if state[13] > 0.9 else 0.03)
        meets = holds and np.linalg.norm(cube - MEET) < 0.03
        receive = cube if meets else MEET - np.array([0.15, 0.0, 0.0])
        return np.concatenate(
            [
                move(physics, "left", receive, RECEIVE),
                [0.0 if np.linalg.norm(left) < 0.02 else 1.0],
                move(physics, "right", goal, PICK),
                [0.0 if near or holds else 1.0],
            ]
        )


def tip(physics, side):
    """The point between the ends of the fingers."""
    link = physics.named.data
    name = f"vx300s_{side}/gripper_link"
    return link.xpos[name] + link.xmat[name].reshape(3, 3) @ TIP


def move(physics, side, goal, axes, fastest=0.02):
    """Joint targets that bring the hand closer to a goal with those axes; damped least squares."""
    model, data = physics.model.ptr, physics.data.ptr
    body = model.body(f"vx300s_{side}/gripper_link").id
    here, now = tip(physics, side), data.xmat[body].reshape(3, 3)
    way = goal - here
    way *= min(1.0, fastest / (np.linalg.norm(way) + 1e-9))
    turn = np.cross(now.T, axes.T).sum(axis=0) / 2
    turn *= min(1.0, 0.1 / (np.linalg.norm(turn) + 1e-9))
    jacobian = np.zeros((6, model.nv))
    mujoco.mj_jac(model, data, jacobian[:3], jacobian[3:], here, body)
    arm = ARMS[side]
    part = jacobian[:, arm][:, :6]
    error = np.concatenate([way, turn])
    joints = part.T @ np.linalg.solve(part @ part.T + 1e-4 * np.eye(6), error)
    sag = data.qfrc_bias[arm][:6] / model.actuator_gainprm[arm][:6, 0]
    return data.qpos[arm][:6] + joints + sag


def make_world(num_worlds):
    return GymnasiumWorld(num_worlds, suite="aloha", tasks={"transfer_cube": TransferCube()}, control_dt_s=0.02)
