"""The batch whose loss or gradient was not finite, saved for debugging."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vla_model.files.weight_files import write_tensors
from vla_model.numerics.tensors import named_tensors

BAD_BATCH_FILE = "bad_batch.safetensors"


@contextmanager
def saved_if_not_finite(batch: object, folder: Path, rank: int = 0) -> Generator[None]:
    """Save the batch if a FloatingPointError is raised inside, and name the file in the error.

    Args:
        batch: or this process's share of it.
        folder: of the run.
        rank: of this process; each saves its own share, as the gradient that is not finite is summed over all.

    Raises:
        FloatingPointError: with the file's path.
    """
    try:
        yield
    except FloatingPointError as error:
        path = folder / (f"process_{rank}_{BAD_BATCH_FILE}" if rank else BAD_BATCH_FILE)
        write_tensors(path, dict(named_tensors(batch, "batch")))
        raise FloatingPointError(f"{error}; its batch is saved in {path}") from error
