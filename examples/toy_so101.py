"""A toy SO-101 with the interface of LeRobot's Robot class: recorded by LeRobot, driven by llamarm (docs/your_data.md).

An interpreter that has lerobot records 24 episodes: `python examples/toy_so101.py DIR`; with `image` after DIR, as
pictures in place of videos.
"""

import os
import sys

import cv2
import numpy as np

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
NAMES = [f"{joint}.pos" for joint in JOINTS]
TASKS = ("pick up the red cube", "pick up the blue cube")
COLOURS = ((210, 40, 30), (30, 60, 210))
CAMERAS = {"top": (480, 640), "wrist": (360, 480)}  # height, width
FPS = 30
REST = (0.0, -40.0, 30.0, 10.0, 0.0, 60.0)  # degrees; the gripper's opening


def picture(camera, cubes, state):
    """The table with both cubes, and the arm as a line."""
    height, width = CAMERAS[camera]
    y, x = np.mgrid[0:height, 0:width]
    frame = np.stack([90 + 40 * x / width, 100 + 30 * y / height, np.full((height, width), 110)], -1).astype(np.uint8)
    for colour, place in zip(COLOURS, cubes, strict=True):
        left = int(width / 2 + place * width / 130) - 18
        cv2.rectangle(frame, (left, height // 2), (left + 36, height // 2 + 36), colour, -1)
    tip = int(width / 2 + state[0] * width / 130), int(height * 0.9 - (40 - state[1]) * height / 180)
    cv2.line(frame, (width // 2, height - 1), tip, (40, 40, 40), 14)
    return frame


def target(state, cubes, task, share):
    """Where a person would move the joints next; `share` of the episode has passed."""
    goal = cubes[task]
    lift, elbow = (20, -20) if share > 0.3 else (-40, 30)
    wanted = np.array([goal, lift, elbow, 40, 0.3 * goal, 5.0 if share > 0.7 else 60.0])
    return state + np.clip(wanted - state, -2.5, 2.5)


class ToySo101:
    """Moves four fifths of the way to its target in every period."""

    name = "so101_follower"
    action_features = dict.fromkeys(NAMES, float)
    observation_features = action_features | {camera: (*size, 3) for camera, size in CAMERAS.items()}

    def __init__(self, seed=0):
        self.is_connected = False
        self.state = np.array(REST)
        self.cubes = np.random.default_rng(seed).uniform(-50, 50, 2)

    def connect(self):
        self.is_connected = True

    def get_observation(self):
        # Sensor noise: without it, two frames of an arm at rest would be identical, as those of a frozen camera.
        noise = np.random.default_rng().integers(0, 3)
        shown = {camera: picture(camera, self.cubes, self.state) + np.uint8(noise) for camera in CAMERAS}
        return dict(zip(NAMES, self.state.tolist(), strict=True)) | shown

    def send_action(self, action):
        self.state += 0.8 * (np.array([action[name] for name in NAMES]) - self.state)
        return action

    def disconnect(self):
        self.is_connected = False


def make_robot():
    """For `llamarm drive --robot`, with the policy that $POLICY names."""
    from llamarm import LeRobotRobot, load_policy

    return LeRobotRobot(ToySo101(seed=7), processor=load_policy(os.environ["POLICY"]).processor)


def record(root, dtype="video"):
    """Write a LeRobotDataset with LeRobot itself; its cameras' dtype is "video" or "image"."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (6,), "names": NAMES}
    features = {"observation.state": vector, "action": vector}
    for camera, size in CAMERAS.items():
        names = ["height", "width", "channels"]
        features[f"observation.images.{camera}"] = {"dtype": dtype, "shape": (*size, 3), "names": names}
    dataset = LeRobotDataset.create("toy/so101", fps=FPS, features=features, root=root, robot_type=ToySo101.name)
    rng = np.random.default_rng(0)
    for episode in range(24):
        task, steps = episode % 2, 75 + 5 * (episode % 3)
        arm = ToySo101()
        arm.cubes = rng.uniform(-50, 50, 2)
        for step in range(steps):
            action = target(arm.state, arm.cubes, task, step / steps) + rng.normal(0, 0.15, 6)
            frame = {f"observation.images.{camera}": picture(camera, arm.cubes, arm.state) for camera in CAMERAS}
            frame |= {"observation.state": arm.state.astype(np.float32), "action": action.astype(np.float32)}
            dataset.add_frame(frame | {"task": TASKS[task]})
            arm.send_action(dict(zip(NAMES, action, strict=True)))
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    record(*sys.argv[1:])
