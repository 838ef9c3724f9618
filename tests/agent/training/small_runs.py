"""Cloning runs of a few updates, and those that are refused before they begin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.recipes import sft_tiny
from agent.runs.run_folder import start_run
from agent.training.config import RunConfig
from agent.training.loop import train


def small(**changes: object) -> RunConfig:
    """sft_tiny without controls and videos."""
    config = sft_tiny()
    config = replace(config, evaluation=replace(config.evaluation, controls=False, videos_per_task=0))
    return replace(config, **changes)


def assert_refused_before_collection(config: RunConfig, folder: Path, message: str) -> None:
    """Training into that folder is refused with a message that matches, and collects nothing."""
    run = start_run(folder, config)
    with pytest.raises(ValueError, match=message):
        train(config, run)
    assert not run.dataset.exists()
