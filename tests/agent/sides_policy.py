"""A policy for SidesWorld that trains within a test, and its training setup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sides_world import SPEC, SidesWorld
from transformers import LlamaConfig

from agent.evaluation.config import EvaluationConfig
from agent.learning.config import LearnerConfig
from agent.training.config import ImproveConfig
from agent.training.practice import PracticeConfig
from envs.types import EpisodeSpec
from rollout.workers.workers import WorkersConfig
from vla_model.config import VLAConfig
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import sizes_of
from vla_model.weights.checkpoint import save_policy

_ONE = {"mean": [0.0], "std": [1.0]}
STATISTICS = {"observation.state": {"mean": [0.0], "std": [3.0]}, "action": _ONE, "label.localization": _ONE}


class WillingSidesWorld(SidesWorld):
    """Its expert succeeds in every episode."""

    def expert_action(self) -> NDArray[np.float32]:
        side = {"left": -1.0, "right": 1.0}
        return np.array([[side[spec.task] if spec else 0.0] for spec in self.specs], np.float32)


def sides_processor() -> Processor:
    return Processor.from_statistics(SPEC, STATISTICS, instruction_length=8)


def sides_model(**changes: Any) -> VLA:
    backbone = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    sizes: dict[str, Any] = {
        "chunk_size": 2,
        "instruction_length": 8,
        "vision_channels": 8,
        "num_keypoints": 2,
        "image_token_grid": 1,
        "expert_size": 16,
        "random_light": None,
        "random_shift_px": 0,
    }
    torch.manual_seed(0)
    return VLA(VLAConfig(backbone=backbone, **(sizes_of(SPEC) | sizes | changes))).eval()


def save_sides_policy(folder: Path, **changes: Any) -> Path:
    save_policy(folder, sides_model(**changes), sides_processor())
    return folder


def sides_config(algorithm: Any, init: Path, learner: LearnerConfig, **changes: Any) -> ImproveConfig:
    settings: dict[str, Any] = {
        "practice": PracticeConfig(tasks=("left", "right"), episodes_per_task=32, num_worlds=64),
        "rollout": WorkersConfig(workers=0),
        "evaluation": EvaluationConfig(episodes_per_task=20, controls=False, videos_per_task=0, num_worlds=40),
        "evaluate_every": 5,
        "selection_episodes": 20,
        "collapse_share": 0.0,
    }
    return ImproveConfig(algorithm=algorithm, init=str(init), learner=learner, **(settings | changes))


def sides_specs(count: int, repeats: int = 1) -> list[EpisodeSpec]:
    return [
        EpisodeSpec(suite="sides", task=task, seed=seed, repeat=repeat)
        for seed in range(count)
        for task in ("left", "right")
        for repeat in range(repeats)
    ]
