"""VLAConfig: everything that determines the shape of a model. A config.json alone rebuilds the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PretrainedConfig


class Foreseen(NamedTuple):
    """Which future states a model predicts while training."""

    steps: Sequence[int] = ()
    """The states this many control steps ahead,"""
    keyframes: bool = False
    """those at the next keyframe and at the episode's end,"""
    waypoints: bool = False
    """and that at the next waypoint."""

    @property
    def num_places(self) -> int:
        """Predicted states, the last of them, for which the gripper's position in the frames is predicted too."""
        return 2 * self.keyframes + self.waypoints


NOTHING = Foreseen()


@strict
class VLAConfig(PretrainedConfig):
    """Shape of a VLA. Every field has a default because transformers builds empty configs; `VLA` rejects these."""

    model_type = "llamarm_vla"
    attribute_map: ClassVar[dict[str, str]] = {"chunk_length": "chunk_size"}

    backbone: dict[str, Any] | PretrainedConfig | None = None
    """The decoder: a transformers config; its model_type names the family, its dtype that of the weights."""
    pretrained: bool = False
    """Whether the decoder was built from pretrained weights."""
    attention: str = "eager"
    """How transformers computes attention. Plain softmax by default: the fused one's bf16 backward is slow on CPUs."""
    cameras: list[Any] | None = None
    """[name, height, width] of every camera, in the order of their tokens."""
    state_size: int = 0
    """S, dimensions of the proprioceptive state."""
    action_size: int = 0
    """A, dimensions of one action."""
    localization_size: int = 0
    """L, dimensions of the auxiliary localization label; 0 builds no auxiliary heads."""
    pointing: dict[str, Any] | None = None
    """{camera: [[u, v], ...]}: label columns that are an object's position in that camera's frame."""
    chunk_size: int = 8
    """K, actions per chunk."""
    instruction_length: int = 24
    """I, tokens to which instructions are padded."""
    history_length: int = 0
    """n, past observations in the input besides the current one (vla_model/inputs/history.py)."""
    history_stride: int = 1
    """Control steps between successive observations of the history, and from the last to the current one."""
    foreseen_steps: list[int] = field(default_factory=list)
    """While training, the model also predicts the state this many control steps ahead (heads/foresight.py),"""
    foreseen_keyframes: bool = False
    """and, if True, at the episode's next keyframe and at its end,"""
    foreseen_waypoints: bool = False
    """and at its next waypoint. At keyframes and waypoints it also points at the gripper's future position in the
    frames of calibrated cameras. Without any of the three these heads are not built."""
    calibrated_cameras: list[str] = field(default_factory=list)
    """Cameras with a projection."""

    vision: str = "conv"
    """Vision tower: a name in `vision.TOWERS`."""
    image_encoder: dict[str, Any] | PretrainedConfig | None = None
    """Of vision "pretrained": the transformers vision model shared by all cameras."""
    image_size_px: list[int] = field(default_factory=lambda: [224, 224])
    """Height and width to which frames are resized for it."""
    image_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """Of red, green and blue in [0, 1]; the image encoder's input is (x - mean) / std."""
    image_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """See `image_mean`."""
    vision_layers: int = 4
    """Of vision "vit"."""
    vision_patch_px: int = 8
    """Of vision "vit": side of a square patch."""
    vision_channels: int = 96
    """Channels of each camera's last feature map."""
    vision_blocks: int = 2
    """Residual blocks, modulated by the instruction, on the last feature map."""
    num_keypoints: int = 48
    """Soft-argmax heatmaps per camera."""
    image_token_grid: int = 4
    """Side g of the grid: a camera has g x g image tokens, each a mean over its cell."""
    image_queries: int = 0
    """Q, learned queries that attend to a camera's features and replace the means; 0 for means."""
    random_shift_px: int = 4
    """Augmentation: each frame is shifted by up to this many pixels in each direction; 0 for none."""
    random_light: list[float] | None = field(default_factory=lambda: [0.5, 1.2])
    """Augmentation: the brightness of all frames of a sample is scaled by a factor between these two, with a little
    colour jitter; None for neither."""

    moe_layers: int = 2
    """Mixture-of-experts layers of the action head."""
    num_experts: int = 4
    """E, experts per layer."""
    top_k_experts: int = 2
    """k, experts per token."""
    expert_size: int = 128
    """Hidden size of an expert."""
    shared_expert: bool = False
    """Whether every token also passes a shared expert that is not routed."""
    decoupled_weights: bool = False
    """Whether an expert's weight is decoupled from its routing probability (AdaMoE)."""
    balancing_rate: float = 0.0
    """Step size of the biases of auxiliary-loss-free load balancing; 0 for no biases."""
    action_distribution: str = "laplace"
    """A name in `action_head.DISTRIBUTIONS`."""
    action_limits: list[Any] | None = None
    """Of "tokens": normalised -1 and 1 of every action dimension, `[A][2]`; None in older models, whose bins span 5
    standard deviations each way."""
    flow_steps: int = 4
    """Integration steps of `flow` from noise to an action."""
    flow_noise_level: float = 0.5
    """c of vla_model/heads/flow.py: noise that `flow` injects when it samples."""
    min_log_scale: float = -5.0
    """Of "laplace": lower bound of the log-scale. A higher one keeps a policy exploring."""
    value_head: bool = False
    """Whether the model has a value head, as the policy-gradient algorithms need."""

    def __post_init__(self, **kwargs: Any) -> None:
        # config.json holds the nested configs as dicts, and the parent class reads the backbone's.
        if isinstance(self.backbone, dict):
            self.backbone = AutoConfig.for_model(**self.backbone)
        if isinstance(self.image_encoder, dict):
            self.image_encoder = AutoConfig.for_model(**self.image_encoder)
        super().__post_init__(**kwargs)

    @property
    def num_tokens(self) -> int:
        """Length of the longest sequence: the instruction, n + 1 observations, and the action queries."""
        per_camera = (self.image_queries or self.image_token_grid**2) + 1
        per_observation = per_camera * len(self.cameras or ()) + 1
        return self.instruction_length + per_observation * (self.history_length + 1) + self.chunk_size

    @property
    def history(self) -> tuple[int, int]:
        """(n, stride), as the dataset reader takes them."""
        return self.history_length, self.history_stride

    @property
    def foreseen(self) -> Foreseen:
        """As the dataset reader takes it."""
        return Foreseen(self.foreseen_steps, self.foreseen_keyframes, self.foreseen_waypoints)

    @property
    def num_foreseen(self) -> int:
        """F, predicted future states."""
        return len(self.foreseen_steps) + self.foreseen.num_places

    @property
    def hand_columns(self) -> dict[str, list[list[int]]]:
        """{camera: [[u, v], ...]}: columns of that camera in the gripper's future positions in the frames of all
        calibrated cameras, [B, 2 num_places * cameras].
        """
        n = self.foreseen.num_places
        cameras = self.calibrated_cameras if n else []
        return {name: [[2 * p, 2 * p + 1] for p in range(n * i, n * (i + 1))] for i, name in enumerate(cameras)}

    @property
    def position_columns(self) -> list[int]:
        """Label columns that are not positions in a frame."""
        in_frames = {column for pairs in (self.pointing or {}).values() for pair in pairs for column in pair}
        return [column for column in range(self.localization_size) if column not in in_frames]

    @property
    def hidden_size(self) -> int:
        """d, width of the decoder."""
        assert isinstance(self.backbone, PretrainedConfig)
        return self.backbone.hidden_size

    @property
    def vocab_size(self) -> int:
        """Size of the decoder's vocabulary; 0 in an empty config, of which transformers asks it too."""
        return self.backbone.vocab_size if isinstance(self.backbone, PretrainedConfig) else 0
