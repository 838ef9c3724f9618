"""Behaviour cloning: supervised fine-tuning on demonstrated action chunks.

    L = L_action(a | o, l) + the losses of agent/auxiliary.py

    L_action   the action distribution's own loss against the demonstrated chunk, over actions within the episode

Left out: a term on the validation loss. It does not predict success; rollouts on separate seeds do.

Shape letters: B batch, K chunk length, A action dims, L localization dims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agent.auxiliary import AuxiliaryConfig, with_auxiliary
from rollout.batches import Batch
from vla_model.config import VLAConfig
from vla_model.inputs import ModelInputs, draw_action_noise, draw_light, draw_shifts
from vla_model.model import VLA
from vla_model.processor import Processor


@dataclass(frozen=True, kw_only=True)
class SFTBatch:
    """A batch of demonstrations as the model takes it."""

    inputs: ModelInputs
    actions: Tensor
    """Normalised, float32 [B, K, A]."""
    mask: Tensor
    """bool [B, K], False after the episode's end."""
    localization: Tensor
    """In the world's units, float32 [B, L]."""
    normalised_localization: Tensor
    """float32 [B, L]"""

    def part(self, index: int, count: int) -> SFTBatch:
        """The index-th of `count` interleaved parts of the batch."""
        rows = torch.arange(index, len(self.actions), count)
        return SFTBatch(
            inputs=self.inputs.rows(rows),
            actions=self.actions[rows],
            mask=self.mask[rows],
            localization=self.localization[rows],
            normalised_localization=self.normalised_localization[rows],
        )

    def to(self, device: torch.device) -> SFTBatch:
        return SFTBatch(
            inputs=self.inputs.to(device),
            actions=self.actions.to(device),
            mask=self.mask.to(device),
            localization=self.localization.to(device),
            normalised_localization=self.normalised_localization.to(device),
        )


class SFTEncoder:
    """Turns rows of a dataset into augmented batches for the model; each sentence is tokenised once."""

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
            processor: of the model.
            instructions: which a Batch names by position.
            config: of the model.
            seed: of the augmentation.
            part: (index, count) if the batches are one of `count` interleaved parts of equal size; it is augmented as
                within the whole.
        """
        self._processor = processor
        self._ids, self._mask = processor.encode_instructions(instructions)
        self._config = config
        self._seed = seed
        self._part = part

    def __call__(self, batch: Batch, update: int) -> SFTBatch:
        """The batch of that update; its augmentation is drawn from (seed, update) alone."""
        processor = self._processor
        rows = torch.from_numpy(batch.instruction_id)
        state = np.random.SeedSequence([self._seed, update]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> 1))
        index, count = self._part
        shifts = draw_shifts(self._config, len(rows) * count, generator) or {}
        light = draw_light(self._config, len(rows) * count, generator)
        noise = draw_action_noise(self._config, len(rows) * count, generator)
        return SFTBatch(
            inputs=ModelInputs(
                frames=processor.encode_frames(batch.frames),
                state=processor.encode_state(batch.state),
                instruction_ids=self._ids[rows],
                instruction_mask=self._mask[rows],
                shift_px={name: shift[index::count] for name, shift in shifts.items()},
                light=None if light is None else light[index::count],
                action_noise=None if noise is None else noise[index::count],
            ),
            actions=processor.normalise_actions(batch.action),
            mask=torch.from_numpy(batch.mask),
            localization=torch.from_numpy(batch.localization),
            normalised_localization=processor.normalise_localization(batch.localization),
        )


def sft_loss(model: VLA, batch: SFTBatch, config: AuxiliaryConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss above, and its terms for the log."""
    output = model(batch.inputs)
    action = output.actions.loss(batch.actions, batch.mask)
    loss, terms = with_auxiliary(action, output, batch, config)
    return loss, terms | {"loss/action": action.detach(), "loss/total": loss.detach()}
