"""VLA: frames + instruction + proprioception -> a distribution over the next K actions.

    sequence: [instruction][n earlier observations][the present one][K action queries] -> causal LLaMA-family decoder
        an observation is [image tokens, camera by camera][state]; an earlier one says how old it is
    the queries' hidden states -> Mixture-of-Experts action head -> actions
    the queries' hidden states -> value head, if there is one -> expected returns
    auxiliary heads, training only: where the things are that the instruction names, and what the state will be

Shape letters, here and in the files it joins:
    B batch   I instruction tokens   R other tokens   V tokens of an observation   n earlier observations
    K chunk length   A action dims   S state dims   L localization dims   H x W pixels   M keypoints per camera
    d decoder width   E experts   k experts per token
"""

from __future__ import annotations

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
    """What an observation looks like to the decoder."""

    tokens: Tensor
    """[B, V, d]: what is kept of it where the model looks back."""
    views: dict[str, CameraFeatures]
    """By camera."""


@dataclass(frozen=True, kw_only=True)
class VLAOutput:
    """What a VLA answers."""

    actions: ActionDistribution
    """Distribution of normalised actions, [B, K, A]."""
    routing: tuple[Routing, ...]
    """Per layer of the action head; leading dimensions [B, K]."""
    values: Tensor | None
    """Expected return-to-go at each action of the chunk, float32 [B, K]; None without a value head."""
    localization_from_vision: Tensor
    """float32 [B, position columns], normalised: read from the keypoints and the state."""
    localization_from_queries: Tensor
    """float32 [B, position columns], normalised: read from the action queries."""
    position_columns: list[int]
    """Which columns of a localization label the two above are."""
    pointing: tuple[Pointing, ...]
    """Of every camera whose frame the labels have positions in."""
    foresight: Foresight | None
    """None for a model that foresees nothing."""

    def localization_loss(self, target: Tensor) -> Tensor:
        """Smooth L1 of both readings, summed; target is normalised, [B, L].

        The first reading is deep supervision: its gradient reaches the convolutions without passing the decoder. The
        second asks that the queries know too.
        """
        if not self.position_columns:
            return target.new_zeros(())
        target = take_columns(target, self.position_columns)
        total = F.smooth_l1_loss(self.localization_from_vision, target, reduction="sum") + F.smooth_l1_loss(
            self.localization_from_queries, target, reduction="sum"
        )
        return mean(total, target.new_full((), target.numel()))

    def pointing_loss(self, localization: Tensor) -> Tensor:
        """Of the things of the labels, see vla_model/heads/pointing.py.

        Args:
            localization: in the world's units, float32 [B, L].
        """
        return pointing_loss(self.pointing, localization)

    def foresight_loss(self, future: Tensor | None, known: Tensor | None) -> Tensor:
        """Of the states to come, see heads/foresight.py; 0 where none is foreseen or where what came is not told.

        Args:
            future: float32 [B, F, S], normalised.
            known: bool [B].
        """
        if self.foresight is None or future is None or known is None:
            return self.localization_from_vision.new_zeros(())
        return self.foresight.loss(future, known)

    def hand_pointing_loss(self, future_places: Tensor | None) -> Tensor:
        """Of the hand's places to come, likewise.

        Args:
            future_places: float32 [B, 2 num_places * calibrated cameras].
        """
        if self.foresight is None or future_places is None:
            return self.localization_from_vision.new_zeros(())
        return self.foresight.pointing_loss(future_places)

    def load_balancing_loss(self) -> Tensor:
        """Mean over the layers; 1 where perfectly balanced."""
        return torch.stack([routing.load_balancing_loss() for routing in self.routing]).mean()

    def router_z_loss(self) -> Tensor:
        """Mean over the layers."""
        return torch.stack([routing.router_z_loss() for routing in self.routing]).mean()

    def expert_usage(self) -> Tensor:
        """float32 [B, layers, E]: fraction of the top-k choices of the K queries that went to each expert."""
        return torch.stack([routing.usage() for routing in self.routing], dim=1)


class VLA(nn.Module):
    """The model. Without gradients in mind: `read` once per episode, then `forward` with its prefix, or, where it looks
    back, `look` and `decide`, which takes what was seen before as it was kept.
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
            image_encoder: likewise of config.image_encoder's.

        Raises:
            UserError: the config has no camera, no state or action, no such vision, no layer of experts, fewer
                keypoints than things to point at, a step to foresee that is not to come, or more tokens than the
                decoder has positions for.
        """
        super().__init__()
        if not config.cameras or config.state_size < 1 or config.action_size < 1:
            raise UserError(
                "a VLA needs at least one camera, one state and one action dimension; "
                f"the config has cameras {config.cameras}, state_size {config.state_size}, "
                f"action_size {config.action_size}"
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
                f"a state is foreseen 1 control step on or more, got foreseen_steps {config.foreseen_steps}"
            )
        self.config = config
        size = config.hidden_size
        self.backbone = Backbone(config, decoder)
        self.image_encoder = _image_encoder(config, image_encoder)
        tower = TOWERS[config.vision]
        self.cameras = nn.ModuleDict({name: tower(config, name, self.image_encoder) for name, _, _ in config.cameras})
        self.to_state_token = nn.Linear(config.state_size, size)
        self.queries = nn.Parameter(torch.randn(config.chunk_size, size) * 0.02)
        self.action_head = ActionHead(config)
        seen = 2 * config.num_keypoints * len(config.cameras) + config.state_size
        self.localize_from_vision = _auxiliary_head(seen, size, len(config.position_columns))
        self.localize_from_queries = _auxiliary_head(size, size, len(config.position_columns))
        self.value_head = ValueHead(size) if config.value_head else None
        # For each earlier observation, oldest first, what its tokens have that the present one's have not.
        past = config.history_length
        self.ages = nn.Parameter(torch.randn(past, 1, size) * 0.02) if past else None
        num_foreseen = config.num_foreseen * config.state_size
        self.foresee_from_vision = _auxiliary_head(seen, size, num_foreseen)
        self.foresee_from_queries = _auxiliary_head(size, size, num_foreseen)

    def encode_instruction(self, inputs: ModelInputs) -> InstructionPrefix:
        """The prefix of the inputs' instructions, as long as the longest; one that rows share is read once.

        Recorded as a CUDA graph it is as long as they can be, and each row's is read: the graph must hold for others.
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
            inputs: of B worlds or samples, with what they look back on.
            prefix: of the same B instructions, if it was read before; then the inputs' instruction is not looked at.
            mask: bool [B, K], the actions that are learned from, so that experts are balanced over these; None for all.
        """
        if prefix is None:
            prefix = self.encode_instruction(inputs)
        return self.decode(
            inputs, prefix, self.encode_observation(inputs, prefix), self.encode_history(inputs, prefix), mask
        )

    def encode_observation(self, inputs: ModelInputs, prefix: InstructionPrefix) -> EncodedObservation:
        """The inputs' present observations, asked what the instructions ask."""
        return self._encode(inputs.frames, inputs.state, prefix.summary, inputs.shift_px or {}, inputs.light)

    def encode_history(self, inputs: ModelInputs, prefix: InstructionPrefix) -> Tensor | None:
        """The tokens of the inputs' earlier observations, [B, n, V, d]; None for a model that does not look back."""
        n = self.config.history_length
        if not n:
            return None
        if inputs.past_frames is None or inputs.past_state is None:
            raise UserError(f"the model looks back on {n} observations, and the inputs hold none")

        def each(rows: Tensor) -> Tensor:  # one row for each earlier observation
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
        """The actions to take, and what else is predicted.

        Args:
            inputs: whose present observation was encoded.
            prefix: of the same B instructions.
            encoded: what `encode_observation` gave.
            past: tokens of earlier observations, [B, n, V, d], oldest first; None for a model that does not look back.
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
            localization_from_vision=_read(self.localize_from_vision, seen),
            localization_from_queries=_read(self.localize_from_queries, hidden.mean(1)),
            position_columns=self.config.position_columns,
            pointing=_pointing(encoded.views, things, first={}),
            foresight=Foresight(
                from_vision=_read(self.foresee_from_vision, seen),
                from_queries=_read(self.foresee_from_queries, hidden.mean(1)),
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
    """A camera's first heatmaps are those that point; at what is in `first` before the others."""
    found = []
    for name, columns in pointed.items():
        if columns:
            before, view = len(first.get(name, ())), views[name]
            logits = view.heatmaps[:, before : before + len(columns)]
            found.append(Pointing(logits=logits, shift=view.shift, columns=columns))
    return tuple(found)


def _image_encoder(config: VLAConfig, model: PreTrainedModel | None) -> ImageEncoder | None:
    """What all cameras share, where they do."""
    if config.image_encoder is None:
        return None
    assert isinstance(config.image_encoder, PretrainedConfig)
    return ImageEncoder(config.image_encoder, config.image_size_px, config.image_mean, config.image_std, model)


def _auxiliary_head(size: int, hidden_size: int, num_outputs: int) -> nn.Sequential:
    """Two layers; none where there is nothing to say."""
    layers = (nn.Linear(size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, num_outputs)) if num_outputs else ()
    return nn.Sequential(*layers)


def _read(head: nn.Sequential, x: Tensor) -> Tensor:
    return head(x).float() if len(head) else x.new_zeros(len(x), 0, dtype=torch.float32)  # [B, num_outputs]
