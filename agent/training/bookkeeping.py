"""After an iteration: evaluate where due, log, save a checkpoint and delete old ones."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass

from agent.learning.learner import Learner
from agent.runs.run_folder import RunFolder
from agent.training.checkpoints import save_checkpoint
from agent.training.collecting import Collector
from agent.training.config import ImproveConfig
from agent.training.selection import Progress, Selection
from agent.training.trackers import MetricLog
from vla_model.files.folders import read_json
from vla_model.inputs.processor import Processor
from vla_model.model import VLA

_PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Bookkeeping:
    """Evaluates, logs and saves finished iterations."""

    config: ImproveConfig
    run: RunFolder
    learner: Learner[VLA]
    processor: Processor
    selection: Selection
    collecting: Collector
    log: MetricLog

    def finish(self, metrics: dict[str, float], done: int, progress: Progress) -> Progress:
        """Evaluate where due, log, and save the checkpoint; returns the new progress.

        Args:
            done: number of finished iterations, including this one; 0 before the first.
            progress: before this iteration.
        """
        if done % self.config.evaluate_every == 0 or done == self.config.iterations:
            progress, rates = self.selection.evaluate(self.learner, self.processor, done, progress)
            metrics = metrics | rates
        self.log.add(metrics, done)
        notes = {_PROGRESS_FILE: asdict(progress)}
        folder, acted = self.run.checkpoint(done), self.collecting.acted
        save_checkpoint(folder, self.learner, self.processor, self.config.fine_tuning, notes, acted)
        for old in self.run.checkpoints.glob("*"):
            if old.name.isdecimal() and 0 < int(old.name) < done:
                shutil.rmtree(old)
        return progress


def progress_of(run: RunFolder) -> tuple[int, Progress] | None:
    """Finished iterations and progress in the last checkpoint; None if there is none."""
    last = run.last_checkpoint()
    if last is None:
        return None
    remedy = f"delete {last} if there is an earlier checkpoint: the run resumes from the last one"
    return int(last.name), Progress(**read_json(last / _PROGRESS_FILE, ("success", "best_success"), remedy))
