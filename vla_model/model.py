"""VLA: frames + instruction + proprioception -> a distribution over the next K actions.

    sequence: [instruction][n past observations][current observation][K action queries] -> causal LLaMA-family decoder
        an observation is [image tokens, camera by camera][state token]; past ones have an age embedding added
    the queries' hidden states -> Mixture-of-Experts action head -> actions
    the queries' hidden states -> value head, if there is one -> estimated returns
    auxiliary heads, training only: positions of the objects in the instruction, and future states

Shape letters, here and in the files it uses:

    B batch   I instruction tokens   R other tokens   V tokens of an observation   n past observations
    K chunk size   A action dims   S state dims   L localization dims   H x W pixels   M keypoints per camera
    d decoder width   E experts   k experts per token
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from envs.errors import UserError
from vla_model.backbones.decoder import Backbone, InstructionPrefix
from vla_model.config import VLAConfig
from vla_model.heads.action_head import ActionHead
from vla_model.heads.distributions import ActionDistribution
from vla_model.heads.foresight import Foresight
from vla_model.heads.moe import Routing
from vla_model.heads.pointing import Pointing, pointing_loss, take_columns
from vla_model.heads.value_head import ValueHead
from vla_model.inputs.inputs import ModelInputs
from vla_model.numerics.means import mean
from vla_model.vision.image_encoder import ImageEncoder
from vla_model.vision.tower import TOWERS, CameraFeatures


@dataclass(frozen=True, kw_only=True)
class EncodedObservation:
    """An observation as input of the decoder and the auxiliary heads."""

    tokens: Tensor
    """[B, V, d]: what a policy with history keeps of it."""
    views: dict[str, CameraFeatures]
    """Features of each camera."""


@dataclass(frozen=True, kw_only=True)
class VLAOutput:
    """All predictions of a VLA."""

    actions: ActionDistribution
    """Distribution of normalised actions, [B, K, A]."""
    routing: tuple[Routing, ...]
    """Per layer of the action head; leading dimensions [B, K]."""
    values: Tensor | None
    """Estimated return-to-go at each action of the chunk, float32 [B, K]; None without a value head."""
    localization_from_vision: Tensor
    """float32 [B, position columns], normalised: predicted from the keypoints and the state."""
    localization_from_queries: Tensor
    """float32 [B, position columns], normalised: predicted from the action queries."""
    position_columns: list[int]
    """The columns of the localization label that the two above predict."""
    pointing: tuple[Pointing, ...]
    """One per camera in whose frame the labels have positions."""
    foresight: Foresight | None
    """None for a model that predicts no future states."""

    def localization_loss(self, target: Tensor) -> Tensor:
        """Smooth L1 of both predictions, summed; target is normalised, [B, L].

        The prediction from vision is deep supervision: its gradient reaches the vision towers without passing the
        decoder. The other trains the queries to encode the positions.
        """
        if not self.position_columns:
            return target.new_zeros(())
        target = take_columns(target, self.position_columns)
        total = F.smooth_l1_loss(self.localization_from_vision, target, reduction="sum") + F.smooth_l1_loss(
            self.localization_from_queries, target, reduction="sum"
        )
        return mean(total, target.new_full((), target.numel()))

    def pointing_loss(self, localization: Tensor) -> Tensor:
        """Of the labelled objects, see vla_model/heads/pointing.py.

        Args:
            localization: in the world's units, float32 [B, L].
        """
        return pointing_loss(self.pointing, localization)

    def foresight_loss(self, future: Tensor | None, known: Tensor | None) -> Tensor:
        """Of the future states, see heads/foresight.py; 0 without foresight heads or without targets.

        Args:
            future: float32 [B, F, S], normalised.
            known: bool [B], whether a row has a target.
        """
        if self.foresight is None or future is None or known is None:
            return self.localization_from_vision.new_zeros(())
        return self.foresight.loss(future, known)

    def hand_pointing_loss(self, future_places: Tensor | None) -> Tensor:
        """Of the gripper's future positions in the frames, likewise.

        Args:
            future_places: float32 [B, 2 num_places * calibrated cameras].
        """
        if self.foresight is None or future_places is None:
            return self.localization_from_vision.new_zeros(())
        return self.foresight.pointing_loss(future_places)

    def load_balancing_loss(self) -> Tensor:
        """Mean over the layers; 1 at perfect balance."""
        return torch.stack([routing.load_balancing_loss() for routing in self.routing]).mean()

    def router_z_loss(self) -> Tensor:
        """Mean over the layers."""
        return torch.stack([routing.router_z_loss() for routing in self.routing]).mean()

    def expert_usage(self) -> Tensor:
        """float32 [B, layers, E]: fraction of the top-k choices of the K queries that went to each expert."""
        return torch.stack([routing.usage() for routing in self.routing], dim=1)


class VLA(nn.Module):
    """The model. Training calls `forward`. A policy prefills the instruction once per episode, then calls
    `encode_observation` and `decode` with the tokens that it kept of past observations.
    """

    def __init__(
        self,
        config: VLAConfig,
        decoder: PreTrainedModel | None = None,
        image_encoder: PreTrainedModel | None = None,
    ) -> None:
        """
        Args:
            decoder: a pretrained one of config.backbone's shape; a random one where None.
            image_encoder: likewise, of config.image_encoder's shape.

        Raises:
            UserError: the config has no camera or action, an unknown vision tower, no layer of experts,
                fewer keypoints than positions to point at, a foreseen step below 1, or more tokens than the decoder
                has positions for.
        """
        super().__init__()
        if not config.cameras or config.action_size < 1:
            raise UserError(
                "a VLA needs at least one camera and one action dimension; "
                f"the config has cameras {config.cameras}, action_size {config.action_size}"
            )
        if config.vision not in TOWERS:
            raise UserError(f"vision {config.vision!r} does not exist; vision: {', '.join(TOWERS)}")
        if config.moe_layers < 1:
            raise UserError(f"an action head has at least one layer of experts, got moe_layers {config.moe_layers}")
        things, hands = config.pointing or {}, config.hand_columns
        num_places = max(len(things.get(name, ())) + len(hands.get(name, ())) for name, _, _ in config.cameras)
        if config.num_keypoints < num_places:
            raise UserError(
                f"the model learns to point at {num_places} places in a frame, each by a keypoint of its own; "
                f"num_keypoints is {config.num_keypoints}"
            )
        if any(step < 1 for step in config.foreseen_steps):
            raise UserError(
                f"a foreseen step must be at least 1 control step, got foreseen_steps {config.foreseen_steps}"
            )
        self.config = config
        size = config.hidden_size
        self.backbone = Backbone(config, decoder)
        self.image_encoder = _image_encoder(config, image_encoder)
        tower = TOWERS[config.vision]
        self.cameras = nn.ModuleDict({name: tower(config, name, self.image_encoder) for name, _, _ in config.cameras})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of a policy without a state
            self.to_state_token = nn.Linear(config.state_size, size)
        self.queries = nn.Parameter(torch.randn(config.chunk_size, size) * 0.02)
        self.action_head = ActionHead(config)
        seen = 2 * config.num_keypoints * len(config.cameras) + config.state_size
        self.localize_from_vision = _auxiliary_head(seen, size, len(config.position_columns))
        self.localize_from_queries = _auxiliary_head(size, size, len(config.position_columns))
        self.value_head = ValueHead(size) if config.value_head else None
        # Age embeddings, added to the tokens of each past observation, oldest first.
        past = config.history_length
        self.ages = nn.Parameter(torch.randn(past, 1, size) * 0.02) if past else None
        num_foreseen = config.num_foreseen * config.state_size
        self.foresee_from_vision = _auxiliary_head(seen, size, num_foreseen)
        self.foresee_from_queries = _auxiliary_head(size, size, num_foreseen)

    def encode_instruction(self, inputs: ModelInputs) -> InstructionPrefix:
        """The prefix of the inputs' instructions, padded to the longest; equal ones are prefilled once.

        While a CUDA graph is captured, it is padded to the full length and every row is prefilled, because the graph is
        replayed for other instructions.
        """
        if inputs.instruction_ids.is_cuda and torch.cuda.is_current_stream_capturing():
            return self.backbone.prefill(inputs.instruction_ids, inputs.instruction_mask)
        longest = int(inputs.instruction_mask.sum(1).max())
        ids = inputs.instruction_ids.where(inputs.instruction_mask, -1)[:, :longest]
        distinct, which = ids.unique(dim=0, return_inverse=True)
        return self.backbone.prefill(distinct.clamp(min=0), distinct >= 0).rows(which)

    def forward(
        self, inputs: ModelInputs, prefix: InstructionPrefix | None = None, mask: Tensor | None = None
    ) -> VLAOutput:
        """
        Args:
            inputs: of B worlds or samples, with their history.
            prefix: of the same B instructions, if it was computed before; the inputs' instructions are then ignored.
            mask: bool [B, K], the actions in the loss, over which experts are balanced; None for all.
        """
        if prefix is None:
            prefix = self.encode_instruction(inputs)
        return self.decode(
            inputs, prefix, self.encode_observation(inputs, prefix), self.encode_history(inputs, prefix), mask
        )

    def encode_observation(self, inputs: ModelInputs, prefix: InstructionPrefix) -> EncodedObservation:
        """The inputs' current observations, conditioned on the instructions."""
        return self._encode(inputs.frames, inputs.state, prefix.summary, inputs.shift_px or {}, inputs.light)

    def encode_history(self, inputs: ModelInputs, prefix: InstructionPrefix) -> Tensor | None:
        """The tokens of the inputs' past observations, [B, n, V, d]; None for a model without history."""
        n = self.config.history_length
        if not n:
            return None
        if inputs.past_frames is None or inputs.past_state is None:
            raise UserError(f"the model uses {n} past observations, and the inputs have none")

        def each(rows: Tensor) -> Tensor:  # one row per past observation
            return rows.repeat_interleave(n, 0)

        encoded = self._encode(
            {name: frames.flatten(0, 1) for name, frames in inputs.past_frames.items()},
            inputs.past_state.flatten(0, 1),
            each(prefix.summary),
            {name: each(shift) for name, shift in (inputs.shift_px or {}).items()},
            None if inputs.light is None else each(inputs.light),
        )
        return encoded.tokens.unflatten(0, (-1, n))

    def decode(
        self,
        inputs: ModelInputs,
        prefix: InstructionPrefix,
        encoded: EncodedObservation,
        past: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> VLAOutput:
        """The distribution of actions, and all other predictions.

        Args:
            inputs: whose current observation was encoded.
            prefix: of the same B instructions.
            encoded: what `encode_observation` gave.
            past: tokens of past observations, [B, n, V, d], oldest first; None for a model without history.
            mask: as `forward` takes it.
        """
        queries = self.queries.expand(len(inputs.state), -1, -1)  # [B, K, d]
        rest = torch.cat([encoded.tokens, queries], dim=1)  # [B, R, d]
        if past is not None and self.ages is not None:
            rest = torch.cat([(past + self.ages).flatten(1, 2), rest], dim=1)
        hidden = self.backbone(prefix, rest)[:, -self.config.chunk_size :]  # [B, K, d]
        actions, routing = self.action_head(hidden, inputs.action_noise, mask)
        seen = torch.cat([*(view.keypoints for view in encoded.views.values()), inputs.state], dim=1)
        things: dict[str, list[list[int]]] = self.config.pointing or {}
        return VLAOutput(
            actions=actions,
            routing=routing,
            values=None if self.value_head is None else self.value_head(hidden),
            localization_from_vision=_predict(self.localize_from_vision, seen),
            localization_from_queries=_predict(self.localize_from_queries, hidden.mean(1)),
            position_columns=self.config.position_columns,
            pointing=_pointing(encoded.views, things, first={}),
            foresight=Foresight(
                from_vision=_predict(self.foresee_from_vision, seen),
                from_queries=_predict(self.foresee_from_queries, hidden.mean(1)),
                pointing=_pointing(encoded.views, self.config.hand_columns, first=things),
            )
            if self.config.num_foreseen
            else None,
        )

    def _encode(
        self,
        frames: dict[str, Tensor],
        state: Tensor,
        summary: Tensor,
        shift_px: dict[str, Tensor],
        light: Tensor | None,
    ) -> EncodedObservation:
        views = {name: tower(frames[name], summary, shift_px.get(name), light) for name, tower in self.cameras.items()}
        state_token = self.to_state_token(state)[:, None]  # [B, 1, d]
        return EncodedObservation(
            tokens=torch.cat([*(view.tokens for view in views.values()), state_token], dim=1), views=views
        )


def _pointing(
    views: dict[str, CameraFeatures], pointed: dict[str, list[list[int]]], first: dict[str, list[list[int]]]
) -> tuple[Pointing, ...]:
    """The heatmaps that point: the first of each camera, those for `first` before those for `pointed`."""
    found = []
    for name, columns in pointed.items():
        if columns:
            before, view = len(first.get(name, ())), views[name]
            logits = view.heatmaps[:, before : before + len(columns)]
            found.append(Pointing(logits=logits, shift=view.shift, columns=columns))
    return tuple(found)


def _image_encoder(config: VLAConfig, model: PreTrainedModel | None) -> ImageEncoder | None:
    """The encoder shared by all cameras, if the config has one."""
    if config.image_encoder is None:
        return None
    assert isinstance(config.image_encoder, PretrainedConfig)
    return ImageEncoder(config.image_encoder, config.image_size_px, config.image_mean, config.image_std, model)


def _auxiliary_head(size: int, hidden_size: int, num_outputs: int) -> nn.Sequential:
    """Two layers; none for zero outputs."""
    layers = (nn.Linear(size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, num_outputs)) if num_outputs else ()
    return nn.Sequential(*layers)


def _predict(head: nn.Sequential, x: Tensor) -> Tensor:
    return head(x).float() if len(head) else x.new_zeros(len(x), 0, dtype=torch.float32)  # [B, num_outputs]
