"""Behaviour cloning: supervised fine-tuning on demonstrated action chunks.

    L = L_action(a | o, l) + w_loc * L_loc + w_point * L_point + w_see * L_see + w_hand * L_hand
        + w_bal * L_balance + w_z * L_z

    L_action   the action distribution's own loss against the demonstrated chunk, over actions within the episode; with
               `hold_gripper` also over the gripper dimensions after its end, with the last command as the label. A
               demonstration that ends by opening the gripper has that label in its last row alone; without the hold,
               later actions of earlier chunks have no label there and keep it closed (docs/results/demo.md)
    L_loc      smooth L1 between predicted and simulated positions of the named objects, summed over two predictions,
               from the keypoints and from the action queries: a training label from privileged state, never an input;
               weight 0 trains without it
    L_point    cross-entropy of heatmaps against the objects' pixels in each camera's frame
               (vla_model/heads/pointing.py): a privileged training label too
    L_see      smooth L1 between predicted and recorded future states (heads/foresight.py): every recording has it
    L_hand     cross-entropy of heatmaps against the hand's pixel in each calibrated camera's frame at future
               keyframes and waypoints: every recording has it too
    L_balance  Switch Transformer load balancing (Fedus et al. 2021, eq. 4), L_z router z-loss (Zoph et al. 2022, eq. 5)

Left out: a term on the validation loss. It does not predict success; rollouts on separate seeds do.

Shape letters: B batch, K chunk size, A action dims, L localization dims.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from agent.algorithms.sft_config import SFTConfig
from agent.learning.generators import seeded_generator
from envs.types import OUTSIDE
from rollout.dataset.batches import Batch
from vla_model.config import VLAConfig
from vla_model.inputs.inputs import ModelInputs, fake_inputs, sample_action_noise, sample_light, sample_shifts
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.numerics.tensors import TensorBatch


@dataclass(frozen=True, kw_only=True)
class SFTBatch(TensorBatch):
    """A batch of demonstrations as the model takes it."""

    inputs: ModelInputs
    actions: Tensor
    """Normalised, float32 [B, K, A]."""
    mask: Tensor
    """bool [B, K], False after the episode's end."""
    gripper_at_end: Tensor
    """bool [B, K, A], True for gripper dimensions after the end of an episode that succeeded."""
    localization: Tensor
    """In the world's units, float32 [B, L]."""
    normalised_localization: Tensor
    """float32 [B, L]"""
    future_state: Tensor | None = None
    """Label of foresight, normalised, float32 [B, F, S]."""
    future_known: Tensor | None = None
    """bool [B], whether future_state is known."""
    future_places: Tensor | None = None
    """float32 [B, 2 num_places * calibrated cameras]: see Foresight.pointing_loss."""


class SFTEncoder:
    """Turns rows of a dataset into augmented batches for the model; each instruction is tokenised once."""

    def __init__(
        self,
        processor: Processor,
        instructions: list[str],
        config: VLAConfig,
        *,
        seed: int,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """
        Args:
            instructions: which a Batch refers to by index.
            part: (index, count) if the batches are one of `count` interleaved parts of equal size; augmentation is
                that of the whole batch.
        """
        self._processor = processor
        self._ids, self._mask = processor.encode_instructions(instructions)
        self._is_gripper = torch.from_numpy(processor.world_spec.action.is_gripper)  # [A]
        self._config = config
        self._seed = seed
        self._part = part

    def __call__(self, batch: Batch, update: int) -> SFTBatch:
        """The batch of that update; its augmentation is sampled from (seed, update) alone."""
        processor = self._processor
        rows = torch.from_numpy(batch.instruction_id)
        generator = seeded_generator(self._seed, update)
        index, count = self._part
        shifts = sample_shifts(self._config, len(rows) * count, generator) or {}
        light = sample_light(self._config, len(rows) * count, generator)
        noise = sample_action_noise(self._config, len(rows) * count, generator)
        past_frames, past_state = None, None
        if batch.past_frames is not None and batch.past_state is not None:
            past_frames, past_state = processor.encode_past(batch.past_frames, batch.past_state)
        return SFTBatch(
            inputs=ModelInputs(
                frames=processor.encode_frames(batch.frames),
                state=processor.encode_state(batch.state),
                instruction_ids=self._ids[rows],
                instruction_mask=self._mask[rows],
                past_frames=past_frames,
                past_state=past_state,
                shift_px={name: shift[index::count] for name, shift in shifts.items()},
                light=None if light is None else light[index::count],
                action_noise=None if noise is None else noise[index::count],
            ),
            actions=processor.normalise_actions(batch.action),
            mask=torch.from_numpy(batch.mask),
            gripper_at_end=torch.from_numpy(batch.ended)[:, :, None] & self._is_gripper,
            localization=torch.from_numpy(batch.localization),
            normalised_localization=processor.normalise_localization(batch.localization),
            future_state=None if batch.future_state is None else processor.normalise_state(batch.future_state),
            future_known=None if batch.future_known is None else torch.from_numpy(batch.future_known),
            future_places=self._hand_places(batch) if self._config.hand_columns else None,
        )

    def _hand_places(self, batch: Batch) -> Tensor:
        """Future pixels of the hand in the calibrated cameras' frames, OUTSIDE where they are not known."""
        assert batch.future_state is not None and batch.future_known is not None
        spec = self._processor.world_spec
        hand_m = batch.future_state[:, -self._config.foreseen.num_places :, spec.state.position]
        places = np.concatenate([camera.project(hand_m) for camera in spec.calibrated_cameras], axis=1)
        return torch.from_numpy(np.where(batch.future_known[:, None], places.reshape(len(places), -1), OUTSIDE))


def fake_batch(config: VLAConfig, batch_size: int, seed: int = 0) -> SFTBatch:
    """Random samples, augmented, with instructions of maximum length: for timing and measuring memory."""
    generator = torch.Generator().manual_seed(seed)
    inputs = fake_inputs(config, batch_size, seed)
    localization = torch.rand(batch_size, config.localization_size, generator=generator)
    num_places = config.foreseen.num_places * len(config.hand_columns)
    return SFTBatch(
        inputs=replace(
            inputs,
            instruction_mask=torch.ones_like(inputs.instruction_mask),
            shift_px=sample_shifts(config, batch_size, generator),
            light=sample_light(config, batch_size, generator),
            action_noise=sample_action_noise(config, batch_size, generator),
        ),
        actions=torch.randn(batch_size, config.chunk_size, config.action_size, generator=generator),
        mask=torch.ones(batch_size, config.chunk_size, dtype=torch.bool),
        gripper_at_end=torch.zeros(batch_size, config.chunk_size, config.action_size, dtype=torch.bool),
        localization=localization,
        normalised_localization=localization,
        future_state=torch.randn(batch_size, config.num_foreseen, config.state_size, generator=generator),
        future_known=torch.ones(batch_size, dtype=torch.bool),
        future_places=2 * torch.rand(batch_size, 2 * num_places, generator=generator) - 1,
    )


def sft_loss(model: VLA, batch: SFTBatch, config: SFTConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its terms as metrics: those with a weight that the model and the labels have."""
    output = model(batch.inputs, mask=batch.mask)
    labelled = batch.mask[:, :, None] | batch.gripper_at_end if config.hold_gripper else batch.mask
    foresight = output.foresight if batch.future_known is not None else None
    hand = foresight is not None and bool(foresight.pointing)
    weighed: list[tuple[str, float, Callable[[], Tensor]]] = [
        ("action", 1.0, lambda: output.actions.loss(batch.actions, labelled)),
        (
            "localization",
            config.localization_weight * bool(output.position_columns),
            lambda: output.localization_loss(batch.normalised_localization),
        ),
        (
            "pointing",
            config.pointing_weight * bool(output.pointing),
            lambda: output.pointing_loss(batch.localization),
        ),
        (
            "foresight",
            config.foresight_weight * (foresight is not None),
            lambda: output.foresight_loss(batch.future_state, batch.future_known),
        ),
        ("hand_pointing", config.hand_pointing_weight * hand, lambda: output.hand_pointing_loss(batch.future_places)),
        ("load_balancing", config.load_balancing_weight, output.load_balancing_loss),
        ("router_z", config.router_z_weight, output.router_z_loss),
    ]
    terms = {name: (weight, term()) for name, weight, term in weighed if weight}
    loss = sum((weight * term for weight, term in terms.values()), start=batch.actions.new_zeros(()))
    metrics = {f"loss/{name}": term.detach() for name, (_, term) in terms.items()}
    return loss, metrics | {"loss/total": loss.detach()}
