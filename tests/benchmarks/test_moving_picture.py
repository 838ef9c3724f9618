"""The moving picture has a frame per step of the episode, and ends with the outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.moving_picture import pictures_of, write_webp
from benchmarks.untrained import untrained
from envs.tabletop.world import TabletopWorld
from envs.types import EpisodeSpec
from vla_model.policy import VLAPolicy


def test_an_episode_has_a_picture_per_step_and_ends_with_the_outcome(tmp_path: Path) -> None:
    world = TabletopWorld(1)
    policy = VLAPolicy(*untrained(world.world_spec))
    spec = EpisodeSpec(suite="tabletop", task="lift", seed=1_000_000)

    pictures = pictures_of(policy, spec)

    limit = world.task_of(spec).max_steps
    assert len(pictures) == 1 + limit + 1  # the start, one per step, the last again with "step limit"
    last, ended = (np.asarray(picture, np.int64) for picture in pictures[-2:])
    changed = np.argwhere((last != ended).any(axis=2))
    assert changed[:, 0].max() < 80  # only the outcome, below the sentence

    write_webp(tmp_path / "two.webp", [pictures[:5], pictures[:3]], period_s=0.1)
    with Image.open(tmp_path / "two.webp") as animation:
        assert getattr(animation, "n_frames", 1) == 5
        assert animation.size == (2 * pictures[0].width, pictures[0].height)
