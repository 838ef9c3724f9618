"""A policy on disk: one folder with config.json, model.safetensors, processor.json and tokenizer.json.

Written beside its place and moved there whole, so a kill leaves the old folder or the new one, never half of one. Read
only when complete: every part is opened before anything is built. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vla_model.config import VLAConfig
from vla_model.model import VLA
from vla_model.processor import PROCESSOR_FILE, TOKENIZER_FILE, Processor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_PARTS = (CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE, TOKENIZER_FILE)


def save_policy(folder: str | Path, model: VLA, processor: Processor) -> None:
    """Write the folder; one that was there is replaced.

    Raises:
        ValueError: the path holds something that is not such a folder.
    """
    folder = Path(folder)
    if folder.exists() and any(not (folder / part).is_file() for part in _PARTS):
        raise ValueError(f"{folder} exists and is not a saved policy; it is left as it is")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        model.config.save_pretrained(fresh)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, fresh / WEIGHTS_FILE)
        processor.save(fresh)
        _move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def load_policy(folder: str | Path) -> tuple[VLA, Processor]:
    """The model, in eval mode on the CPU, and its processor.

    Raises:
        ValueError: a part is missing, truncated or does not fit the others; the message names it.
    """
    folder = Path(folder)
    _check_parts(folder)
    processor = Processor.load(folder)
    model = VLA(VLAConfig.from_pretrained(folder))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE} in {folder}: {error}") from error
    return model.eval(), processor


def _check_parts(folder: Path) -> None:
    missing = [part for part in _PARTS if not (folder / part).is_file()]
    if missing:
        raise ValueError(f"{folder} is not a saved policy: it lacks {', '.join(missing)}")
    for part in (CONFIG_FILE, PROCESSOR_FILE, TOKENIZER_FILE):
        try:
            json.loads((folder / part).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{part} in {folder} is broken: {error}") from error
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            weights.keys()
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS_FILE} in {folder} is broken: {error}") from error


def _move_into_place(fresh: Path, folder: Path) -> None:
    """Rename; a folder cannot be renamed over a full one, so the old one steps aside for a moment."""
    for path in fresh.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old / folder.name)
    fresh.rename(folder)
    shutil.rmtree(old)
