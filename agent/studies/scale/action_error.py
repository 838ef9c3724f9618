"""Error of a policy's actions on held-out demonstrations: the loss that grids are fitted to.

The mean absolute difference of normalised actions between the demonstrated chunk and the mode of the policy's
distribution, within the episode. Unlike losses it is above 0 and comparable between action distributions.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch

from agent.algorithms.sft import SFTEncoder
from agent.runs.run_folder import PRETRAINED, RunFolder
from rollout.dataset.batches import TrainingData
from vla_model.config import VLAConfig
from vla_model.weights.checkpoint import load_policy

ROWS = 2048
"""Maximum number of rows, evenly spaced; neighbours are nearly equal."""
_BATCH = 64


@torch.inference_mode()
def action_error(run: RunFolder, held_out: Path, cache: str = "") -> tuple[float, VLAConfig]:
    """Error of a run's last checkpoint on the demonstrations in `held_out`, and the model's config."""
    last = run.last_checkpoint()
    assert last is not None, "the run has been trained"
    model, processor = load_policy(last / PRETRAINED)
    config = model.config
    plain = copy.deepcopy(config)
    plain.random_shift_px, plain.random_light = 0, None
    data = TrainingData([held_out], world_spec=processor.world_spec, cache=cache)
    encode = SFTEncoder(processor, data.instructions, plain, seed=0)
    rows = np.unique(np.linspace(0, data.num_rows - 1, ROWS).round().astype(np.int64))
    total, count = 0.0, 0
    for part in np.array_split(rows, max(len(rows) // _BATCH, 1)):
        batch = encode(data.gather(part, config.chunk_size, config.history), 0)
        difference = (model(batch.inputs).actions.mode() - batch.actions).abs().mean(-1)  # [B, K]
        total += float(difference[batch.mask].sum())
        count += int(batch.mask.sum())
    return total / count, config
