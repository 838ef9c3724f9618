"""VLAConfig: everything that decides the shape of a model. A config.json alone rebuilds the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PretrainedConfig


class Foreseen(NamedTuple):
    """Which states of those to come a model foresees."""

    steps: Sequence[int] = ()
    """So many control steps on,"""
    keyframes: bool = False
    """at the next keyframe and at the end,"""
    waypoints: bool = False
    """and at the next waypoint."""

    @property
    def num_places(self) -> int:
        """States at which it is said where the hand appears, the last of them."""
        return 2 * self.keyframes + self.waypoints


NOTHING = Foreseen()


@strict
class VLAConfig(PretrainedConfig):
    """Shape of a VLA. Every field has a default because transformers builds empty configs; `VLA` refuses such."""

    model_type = "llamarm_vla"
    attribute_map: ClassVar[dict[str, str]] = {"chunk_length": "chunk_size"}

    backbone: dict[str, Any] | PretrainedConfig | None = None
    """The decoder: a transformers config; its model_type names the family, its dtype that of the weights."""
    pretrained: bool = False
    """Whether the decoder had weights before the model was made."""
    attention: str = "eager"
    """How transformers computes attention. Plain softmax by default: the fused one's bf16 backward is slow on CPUs."""
    cameras: list[Any] | None = None
    """[name, height, width] of every camera, in the order of their tokens."""
    state_size: int = 0
    """S, numbers of proprioception."""
    action_size: int = 0
    """A, numbers of one action."""
    localization_size: int = 0
    """L, numbers of the auxiliary label; 0 builds no auxiliary heads."""
    pointing: dict[str, Any] | None = None
    """{camera: [[u, v], ...]}: columns of the label that say where in that camera's frame a thing is."""
    chunk_size: int = 8
    """K, actions per decision."""
    instruction_length: int = 24
    """I, tokens to which instructions are padded."""
    history_length: int = 0
    """n, earlier observations that a decision sees besides the present one (vla_model/inputs/history.py)."""
    history_stride: int = 1
    """Control steps from each of them to the next, and from the last to the present."""
    foreseen_steps: list[int] = field(default_factory=list)
    """While training the model also says what its state will be so many control steps on (heads/foresight.py),"""
    foreseen_keyframes: bool = False
    """and, where True, at the episode's next keyframe and at its end,"""
    foreseen_waypoints: bool = False
    """and at its next waypoint. At where the hand will be at the latter it points in the frames of calibrated cameras.
    Without any of the three there are no heads for it."""
    calibrated_cameras: list[str] = field(default_factory=list)
    """Those with a projection."""

    vision: str = "conv"
    """What sees: a name of `vision.TOWERS`."""
    image_encoder: dict[str, Any] | PretrainedConfig | None = None
    """Of vision "pretrained": the transformers vision model that all cameras share."""
    image_size_px: list[int] = field(default_factory=lambda: [224, 224])
    """Height and width to which frames are resized for it."""
    image_mean: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """Of red, green and blue in [0, 1]; an image encoder is given (x - mean) / std."""
    image_std: list[float] = field(default_factory=lambda: [0.5, 0.5, 0.5])
    """See `image_mean`."""
    vision_layers: int = 4
    """Of vision "vit"."""
    vision_patch_px: int = 8
    """Of vision "vit": side of a patch."""
    vision_channels: int = 96
    """Channels of each camera's last feature map."""
    vision_blocks: int = 2
    """Residual blocks, modulated by the instruction, on the last feature map."""
    num_keypoints: int = 48
    """Soft-argmax heatmaps per camera."""
    image_token_grid: int = 4
    """The image tokens of a camera are means over a square of this side."""
    image_queries: int = 0
    """Q, learned queries that gather the image tokens of a camera by attention in place of means; 0 for means."""
    random_shift_px: int = 4
    """While training each frame is shifted by up to this many pixels each way; 0 for none."""
    random_light: list[float] | None = field(default_factory=lambda: [0.5, 1.2])
    """While training all frames of a sample are darkened or brightened by a factor between these two, and tinted a
    little; None for neither."""

    moe_layers: int = 2
    """Layers of the action head."""
    num_experts: int = 4
    """E"""
    top_k_experts: int = 2
    """k"""
    expert_size: int = 128
    """Hidden size of an expert."""
    shared_expert: bool = False
    """Whether every token also passes one expert without a router."""
    decoupled_weights: bool = False
    """Whether an expert's weight is more than what its router thought of it (AdaMoE)."""
    balancing_rate: float = 0.0
    """Step of the biases that balance the experts without a loss; 0 for no biases."""
    action_distribution: str = "laplace"
    """A name of `action_head.DISTRIBUTIONS`."""
    action_limits: list[Any] | None = None
    """Of "tokens": normalised -1 and 1 of every action dimension, [A][2]; None of models of before, whose bins lie
    within 5 standard deviations."""
    flow_steps: int = 4
    """Steps in which `flow` makes an action from noise."""
    flow_noise_level: float = 0.5
    """c of vla_model/heads/flow.py: how much noise `flow` injects when it samples."""
    min_log_scale: float = -5.0
    """Of "laplace": no action's scale is narrower. Higher where a policy is to go on exploring."""
    value_head: bool = False
    """Whether the model also says what return it expects: for the algorithms that learn from rewards."""

    def __post_init__(self, **kwargs: Any) -> None:
        # A config.json holds the parts' configs as dicts, and the parent reads the backbone's.
        if isinstance(self.backbone, dict):
            self.backbone = AutoConfig.for_model(**self.backbone)
        if isinstance(self.image_encoder, dict):
            self.image_encoder = AutoConfig.for_model(**self.image_encoder)
        super().__post_init__(**kwargs)

    @property
    def num_tokens(self) -> int:
        """Longest sequence: the instruction, n + 1 observations, and the action queries."""
        per_camera = (self.image_queries or self.image_token_grid**2) + 1
        per_observation = per_camera * len(self.cameras or ()) + 1
        return self.instruction_length + per_observation * (self.history_length + 1) + self.chunk_size

    @property
    def history(self) -> tuple[int, int]:
        """(n, stride), as a reader of datasets wants them."""
        return self.history_length, self.history_stride

    @property
    def foreseen(self) -> Foreseen:
        """As a reader of datasets wants it."""
        return Foreseen(self.foreseen_steps, self.foreseen_keyframes, self.foreseen_waypoints)

    @property
    def num_foreseen(self) -> int:
        """F, states foreseen."""
        return len(self.foreseen_steps) + self.foreseen.num_places

    @property
    def hand_columns(self) -> dict[str, list[list[int]]]:
        """{camera: [[u, v], ...]}: which of the hand's places to come, in the frames of all calibrated cameras, [B, 2
        num_places * cameras], are in that camera's frame.
        """
        n = self.foreseen.num_places
        cameras = self.calibrated_cameras if n else []
        return {name: [[2 * p, 2 * p + 1] for p in range(n * i, n * (i + 1))] for i, name in enumerate(cameras)}

    @property
    def position_columns(self) -> list[int]:
        """Columns of the auxiliary label that are not positions in a frame."""
        in_frames = {column for pairs in (self.pointing or {}).values() for pair in pairs for column in pair}
        return [column for column in range(self.localization_size) if column not in in_frames]

    @property
    def hidden_size(self) -> int:
        """d, width of the decoder."""
        assert isinstance(self.backbone, PretrainedConfig)
        return self.backbone.hidden_size

    @property
    def vocab_size(self) -> int:
        """Tokens that the decoder knows; transformers asks an empty config too."""
        return self.backbone.vocab_size if isinstance(self.backbone, PretrainedConfig) else 0
