"""The batch that broke a training, kept for whoever looks into it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vla_model.files.weight_files import write_tensors
from vla_model.numerics.tensors import named_tensors

OFFENDING_FILE = "offending_batch.safetensors"


@contextmanager
def kept_if_not_finite(batch: object, folder: Path, rank: int = 0) -> Generator[None]:
    """Write the batch into the folder if a FloatingPointError comes, and name the file in what is raised.

    Args:
        batch: or this process's share of it.
        folder: of the run.
        rank: of this process; each has a file of its own, for the gradient that is not finite is that of all.
    """
    try:
        yield
    except FloatingPointError as error:
        path = folder / (f"process_{rank}_{OFFENDING_FILE}" if rank else OFFENDING_FILE)
        write_tensors(path, dict(named_tensors(batch, "batch")))
        raise FloatingPointError(f"{error}; its batch is kept in {path}") from error
