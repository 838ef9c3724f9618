"""LIBERO's human demonstrations as a dataset of llamarm's LIBERO worlds (docs/libero.md).

    PYTHONPATH=. .venv/bin/python examples/libero_recordings.py SOURCE OUT
    llamarm train sft_libero --data OUT --out runs/human

SOURCE is a LeRobotDataset of lerobot/libero's shape, or a folder with the suite's own HDF5 files (which needs h5py).
OUT has the cameras, state and action of the world `libero`, without labels, so a run on it is also evaluated there.

What differs and is converted: frames are resized to the sensor's; those of HDF5 files are turned by 180 degrees, as
LeRobot's are already; a frame is a control step of 50 ms, whatever the rate in info.json (often 10 Hz for episodes
recorded at 20); sentences become the BDDL files', which the world `libero` says, where `make libero` installed them.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from envs.suites.libero.sensor import CONTROL_DT_S
from envs.suites.libero.tasks import SUITES, TRAIN, published_sentence
from envs.suites.libero.world import FOUR, INTERPRETER, WORLDS
from llamarm import DatasetReader, DatasetWriter, EpisodeSpec, Trajectory, UserError, VectorSpec

CAMERAS = {"front": ("image", "agentview", "front"), "wrist": ("image2", "wrist_image", "eye_in_hand", "wrist")}
"""{our name: what others call the camera}."""
TASKS = {published_sentence(task, TRAIN): task for suite in FOUR for task in SUITES[suite]}
"""{the sentence that recordings have: task}."""


def lerobot_episodes(root: Path) -> Iterator[tuple[str, dict, np.ndarray, np.ndarray]]:
    """(sentence, {camera: frames}, states [T, 8], actions [T, 7]) of every episode."""
    reader = DatasetReader(root)
    for number in range(len(reader.episodes)):
        episode = reader.episode(number)
        state, action = (
            pick(episode.columns, names) for names in (("observation.state", "state"), ("action", "actions"))
        )
        yield episode.instruction, {name: pick(episode.frames, of) for name, of in CAMERAS.items()}, state, action


def hdf5_episodes(root: Path) -> Iterator[tuple[str, dict, np.ndarray, np.ndarray]]:
    """The same of the suite's own files, NAME_demo.hdf5."""
    import h5py

    for path in sorted(root.rglob("*.hdf5")):
        with h5py.File(path) as file:
            about = json.loads(file["data"].attrs["problem_info"])
            sentence = "".join(about["language_instruction"]).strip('"')
            for name in sorted(file["data"], key=lambda demo: int(demo.removeprefix("demo_"))):
                seen = file["data"][name]["obs"]
                frames = {
                    ours: seen[f"{theirs}_rgb"][:][:, ::-1, ::-1]
                    for ours, theirs in (("front", "agentview"), ("wrist", "eye_in_hand"))
                }
                state = np.concatenate([seen[key][:] for key in ("ee_pos", "ee_ori", "gripper_states")], axis=1)
                yield sentence, frames, state, file["data"][name]["actions"][:]


def pick(columns: dict, names: tuple[str, ...]) -> np.ndarray:
    """The first of the columns that exists."""
    found = next((name for name in names if name in columns), None)
    if found is None:
        raise UserError(f"the recording has none of {', '.join(names)}; it has: {', '.join(columns)}")
    return columns[found]


def suite_sentences() -> dict[str, str]:
    """{task: what the world says}; empty without the suite."""
    try:
        packages = INTERPRETER.python().parents[1]
    except UserError:
        return {}
    files = [
        path
        for suite in FOUR
        for path in packages.glob(f"lib/*/site-packages/libero/libero/bddl_files/libero_{suite}/*.bddl")
    ]
    said = {path.stem: re.search(r"\(:language ([^)]*)\)", path.read_text()) for path in files}
    return {task: found[1].lower() for task, found in said.items() if found}


def trajectory(
    number: int, sentence: str, frames: dict, state: np.ndarray, action: np.ndarray, side_px: int, said: dict
):
    """One episode as the writer takes it."""
    task = TASKS.get(sentence.lower(), "recorded")
    count = len(action)
    small = {
        name: np.stack([cv2.resize(frame, (side_px, side_px), interpolation=cv2.INTER_AREA) for frame in of])
        for name, of in frames.items()
    }
    steps, action = np.arange(count), np.clip(action, -1.0, 1.0).astype(np.float32)
    return Trajectory(
        spec=EpisodeSpec(suite="libero", task=task, seed=number, variation="human"),
        instruction=said.get(task, sentence.lower()),
        frames=small,
        frame_step=steps,
        decision_step=steps,
        state=state.astype(np.float32),
        action=action,
        label=action,
        localization=np.zeros((count, 0), np.float32),
        reward_terms={"success": (steps == count - 1).astype(np.float32)},
        reward=(steps == count - 1).astype(np.float32),
        success=True,
        terminated=True,
        truncated=False,
        failure=None,
        policy_version=-1,
        duration_s=CONTROL_DT_S * count,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert a folder; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--world", default="libero", choices=sorted(WORLDS), help="whose frames the policy will see")
    options = parser.parse_args(arguments)
    config = WORLDS[options.world]
    unlabelled = VectorSpec(names=(), units=(), low=(), high=())
    spec = replace(config.sensor.world_spec(config.suites), localization=unlabelled)
    is_lerobot = (options.source / "meta" / "info.json").exists()
    episodes = lerobot_episodes(options.source) if is_lerobot else hdf5_episodes(options.source)
    said = {} if config.published_sentences else suite_sentences()
    with DatasetWriter(options.out, spec, robot_type="libero", image_mode="video") as writer:
        done = writer.finished_ids()
        for number, (sentence, frames, state, action) in enumerate(episodes):
            one = trajectory(number, sentence, frames, state, action, config.sensor.size_px, said)
            if one.spec.id not in done:
                writer.append(one)
        print(f"{options.out}: {writer.info['total_episodes']} episodes, {writer.info['total_frames']} frames")


if __name__ == "__main__":
    main()
