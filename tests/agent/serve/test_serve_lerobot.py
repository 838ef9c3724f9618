"""examples/serve_lerobot.py with a policy of LeRobot's own; skipped where lerobot is not installed.

lerobot 0.4.4 needs other versions than llamarm, so an interpreter of its own runs this file:

    PYTHONPATH=. VENV/bin/python -m pytest --noconftest -c /dev/null --rootdir . tests/agent/serve/test_serve_lerobot.py
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peers import peer

pytest.importorskip("lerobot", reason="lerobot is not installed")

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.factory import make_pre_post_processors

from agent.serve.client import ServedPolicy
from envs.types import Observation
from examples.serve_lerobot import LeRobotPolicy

SHAPES = {"observation.images.front": (3, 32, 48), "observation.state": (3,)}
TYPES = {3: FeatureType.VISUAL, 1: FeatureType.STATE}


@pytest.fixture(name="folder", scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ACT policy with processors that normalise."""
    folder = tmp_path_factory.mktemp("act") / "pretrained_model"
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={name: PolicyFeature(TYPES[len(shape)], shape) for name, shape in SHAPES.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        chunk_size=6,
        n_action_steps=4,
        dim_model=32,
        dim_feedforward=32,
        n_heads=2,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    mean = {name: torch.full((shape[0], 1, 1) if len(shape) == 3 else shape, 0.5) for name, shape in SHAPES.items()}
    stats: dict[str, Any] = {name: {"mean": value, "std": value + 1.0} for name, value in mean.items()}
    stats["action"] = {"mean": torch.tensor([3.0, -3.0]), "std": torch.tensor([0.1, 0.1])}
    pre, post = make_pre_post_processors(config, dataset_stats=stats)
    for part in (ACTPolicy(config), pre, post):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(name="url", scope="module")
def serving(folder: Path) -> Generator[str]:
    policy = LeRobotPolicy(folder, "cpu", None, max_wait_ms=200.0)
    with peer(policy.handle) as url:
        yield url


def seen(count: int) -> Observation:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (count, 32, 48, 3), dtype=np.uint8)
    state = rng.normal(size=(count, 3)).astype(np.float32)
    return Observation(frames={"front": frames}, state=state, instruction=("go",) * count)


def test_worlds_get_what_the_policy_with_its_processors_gives(folder: Path, url: str) -> None:
    observation = seen(3)
    with ServedPolicy(url) as served:
        assert (served.n_action_steps, served.metadata["policy"], served.metadata["action_dim"]) == (4, "act", 2)
        served.begin(range(3), ("go",) * 3, (0,) * 3)
        actions = served.act(range(3), observation).actions
    assert actions.shape == (3, 6, 2)
    policy = ACTPolicy.from_pretrained(folder).eval()
    pre, post = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    for row in range(3):
        frame = torch.from_numpy(observation["frames"]["front"][row]).permute(2, 0, 1).float() / 255
        one = {"observation.images.front": frame, "observation.state": torch.from_numpy(observation["state"][row])}
        with torch.inference_mode():
            chunk = policy.predict_action_chunk(pre(one | {"task": "go"}))
        expected = torch.stack([post(action[None])[0] for action in chunk[0]])
        np.testing.assert_allclose(actions[row], expected.numpy(), atol=1e-4)
    assert abs(actions.mean(axis=(0, 1)) - [3.0, -3.0]).max() < 0.5, "in the units of the dataset"


def test_a_wrong_observation_costs_its_own_client_alone(url: str) -> None:
    observation = seen(2)
    wrong = Observation(**(seen(1) | {"frames": {"front": np.zeros((1, 8, 8, 3), np.uint8)}}))
    with ServedPolicy(url) as good, ServedPolicy(url) as bad:
        for each, count in ((good, 2), (bad, 1)):
            each.begin(range(count), ("go",) * count, (0,) * count)
        with pytest.raises(ValueError, match=r"observation/front is uint8 \(8, 8, 3\), expected uint8 \(32, 48, 3\)"):
            bad.act([0], wrong)
        assert good.act([0, 1], observation).actions.shape == (2, 6, 2)
