"""A world, a model and a processor small enough for a test, with two cameras of different sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig

from envs.types import CameraSpec, Observation, VectorSpec, WorldSpec
from vla_model.config import VLAConfig
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.sizes import sizes_of

SENTENCES = ("push the red cube", "open the left drawer slowly", "lift it", "place the blue ball into the green bowl")


def vector(*names: str) -> VectorSpec:
    size = len(names)
    return VectorSpec(names=names, units=("m",) * size, low=(-1.0,) * size, high=(1.0,) * size)


WORLD_SPEC = WorldSpec(
    cameras=(CameraSpec(name="front", height=32, width=48), CameraSpec(name="wrist", height=16, width=16)),
    state=replace(vector("x", "y", "z", "opening"), position=(0, 1, 2)),
    action=replace(vector("dx", "dy", "gripper"), grippers=(2,)),
    localization=vector("target_x", "target_y"),
    control_dt_s=0.1,
)

STATISTICS = {
    "observation.state": {"mean": [0.1, 0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7, 0.8]},
    "action": {"mean": [0.0, 0.1, -0.1], "std": [0.5, 0.25, 1.0]},
    "label.localization": {"mean": [0.3, 0.0], "std": [0.1, 0.2]},
}


def tiny_config(**changes: Any) -> VLAConfig:
    sizes: dict[str, Any] = sizes_of(WORLD_SPEC)
    sizes["backbone"] = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    sizes |= {"chunk_size": 4, "vision_channels": 16, "num_keypoints": 6, "image_token_grid": 2, "expert_size": 24}
    return VLAConfig(**(sizes | changes))


def tiny_vla(**changes: Any) -> VLA:
    torch.manual_seed(0)
    return VLA(tiny_config(**changes)).eval()


def tiny_processor(instruction_length: int = 24) -> Processor:
    return Processor.from_statistics(WORLD_SPEC, STATISTICS, instruction_length)


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def observe(num_worlds: int, seed: int = 0, instructions: tuple[str, ...] = SENTENCES) -> Observation:
    rng = np.random.default_rng(seed)
    return Observation(
        frames={
            camera.name: rng.integers(0, 256, (num_worlds, camera.height, camera.width, 3), dtype=np.uint8)
            for camera in WORLD_SPEC.cameras
        },
        state=rng.normal(size=(num_worlds, WORLD_SPEC.state.size)).astype(np.float32),
        instruction=tuple(instructions[n % len(instructions)] for n in range(num_worlds)),
    )
