"""The README's moving picture: one policy in several episodes, side by side, each under its instruction.

The policy sees its own small frames. The picture's are those of a second, finer world that executes the same actions
from the same spec, and so has the same states.

Shape letters: F frames, H x W pixels.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from agent.runs.policies import load_policy
from envs.tabletop.scene.scene import CAMERAS
from envs.tabletop.world import TabletopConfig, TabletopWorld
from envs.types import CameraSpec, EpisodeSpec
from vla_model.policy import VLAPolicy

_SIZE_PX = 300
_OVERSAMPLING = 3
"""Frames are rendered this many times larger and then reduced, because the worlds' renderer does not antialias."""
_CAPTION_PX = 48
_TEXT_PX = 16
_LETTERS_PER_LINE = 36
_LAST_FRAME_S = 2.0
_BACKGROUND, _TEXT, _SUCCESS, _FAILURE = "#18181b", "#fafafa", "#4ade80", "#f87171"


def main() -> None:
    """Command line: `python -m benchmarks.moving_picture --help`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", help="a run, a checkpoint or a policy's folder, of the tabletop suite")
    parser.add_argument("--tasks", nargs="+", default=["pick_place", "open_drawer", "lift"])
    parser.add_argument("--seed", type=int, default=1_000_000, help="of every episode; held out from 1,000,000")
    parser.add_argument("--out", type=Path, required=True, help="a .webp file")
    options = parser.parse_args()

    policy = load_policy(options.policy)
    episodes = [
        pictures_of(policy, EpisodeSpec(suite="tabletop", task=task, seed=options.seed)) for task in options.tasks
    ]
    write_webp(options.out, episodes, period_s=policy.processor.world_spec.control_dt_s)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


def pictures_of(policy: VLAPolicy, spec: EpisodeSpec) -> list[Image.Image]:
    """One episode: a picture per control step, the last with the outcome."""
    world, finer = TabletopWorld(1), TabletopWorld(1, TabletopConfig(cameras=(_finer_camera(),)))
    observation, _ = world.reset(options={"specs": [spec]})
    start, _ = finer.reset(options={"specs": [spec]})
    policy.begin([0], observation["instruction"], seeds=(spec.policy_seed,))
    frames: list[NDArray[np.uint8]] = [start["frames"]["front"][0]]
    outcome = ""
    while not outcome:
        actions = policy.act([0], observation).actions[:, : policy.n_action_steps]
        result = world.step_chunk(actions)
        drawn = finer.step_chunk(actions, all_frames=True).all_frames
        assert drawn is not None
        frames.extend(drawn["front"][0, : result.num_steps[0]])
        observation, outcome = result.observation, result.outcome[0]
    world.close()
    finer.close()
    sentence = observation["instruction"][0]
    return [_page(frame, sentence, "") for frame in frames] + [_page(frames[-1], sentence, outcome)]


def write_webp(path: Path, episodes: Sequence[Sequence[Image.Image]], *, period_s: float) -> None:
    """Write episodes side by side as one animation; shorter ones keep their last picture."""
    pages = []
    for i in range(max(map(len, episodes))):
        row = [pictures[min(i, len(pictures) - 1)] for pictures in episodes]
        page = Image.new("RGB", (sum(picture.width for picture in row), row[0].height))
        for column, picture in enumerate(row):
            page.paste(picture, (column * picture.width, 0))
        pages.append(page)
    duration_ms = [round(1000 * period_s)] * (len(pages) - 1) + [round(1000 * _LAST_FRAME_S)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=duration_ms, loop=0, quality=70, method=6)


def _finer_camera() -> CameraSpec:
    side = _SIZE_PX * _OVERSAMPLING
    return CameraSpec(name=CAMERAS[0].name, height=side, width=side)


def _page(frame: NDArray[np.uint8], sentence: str, outcome: str) -> Image.Image:
    """A frame [H, W, 3] below its sentence, and below the outcome if there is one."""
    page = Image.new("RGB", (_SIZE_PX, _SIZE_PX + _CAPTION_PX), _BACKGROUND)
    page.paste(Image.fromarray(frame).resize((_SIZE_PX, _SIZE_PX), Image.Resampling.BOX), (0, _CAPTION_PX))
    draw, font = ImageDraw.ImageDraw(page), ImageFont.load_default(_TEXT_PX)
    draw.text((8, 5), textwrap.fill(sentence, _LETTERS_PER_LINE), _TEXT, font)
    if outcome:
        colour = _SUCCESS if outcome == "success" else _FAILURE
        draw.text((8, _CAPTION_PX + 6), outcome, colour, font, stroke_width=2, stroke_fill=_BACKGROUND)
    return page


if __name__ == "__main__":
    main()
