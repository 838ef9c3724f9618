"""Videos of what fine-tuning changed: an episode that it fixed and one that it broke, before and after side by side.

After both policies are evaluated, a few changed episodes run again with every step rendered. Of each kind the first
whose outcomes are reproduced is recorded. (Inference in another batch of worlds changes the last bits of actions, so an
outcome may differ.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from agent.evaluation.compare import compare
from agent.evaluation.eval_info import read_eval_info
from agent.evaluation.evaluate import failure_of
from agent.evaluation.videos import write_comparison
from agent.runs.run_folder import PRETRAINED, RunFolder
from envs.types import EpisodeSpec
from rollout.types import Trajectory
from vla_model.files.folders import write_json

CANDIDATES = 3
"""Episodes of each kind that are run again."""


def write_changes(
    run: RunFolder,
    specs: Iterable[EpisodeSpec],
    rerun: Callable[[Path, list[EpisodeSpec]], Iterable[Trajectory]],
    control_dt_s: float,
) -> None:
    """Write videos/fixed.mp4 and videos/broken.mp4, where there are such episodes, and changes.json, naming them.

    Args:
        run: whose initial and best policy have been evaluated.
        rerun: runs episodes with the policy of a folder and records every step.
    """
    comparison = compare(read_eval_info(run.before.eval_info), read_eval_info(run.eval_info))
    of_id = {spec.id: spec for spec in specs}
    candidates = {
        kind: [of_id[id_] for id_ in ids[:CANDIDATES]]
        for kind, ids in (("fixed", comparison.won), ("broken", comparison.lost))
    }
    all_specs = [spec for kind in candidates.values() for spec in kind]
    folders = (run.checkpoint(0) / PRETRAINED, run.best / PRETRAINED) if all_specs else ()
    reruns = [{trajectory.spec: trajectory for trajectory in rerun(folder, all_specs)} for folder in folders]
    changes = {}
    for kind, of_kind in candidates.items():
        video = run.videos / f"{kind}.mp4"
        video.unlink(missing_ok=True)
        for spec in of_kind:
            before, after = (rerun_.get(spec) for rerun_ in reruns)
            if before and after and (before.success, after.success) == (kind == "broken", kind == "fixed"):
                failures = failure_of(before), failure_of(after)
                write_comparison(video, before, after, failures=failures, control_dt_s=control_dt_s)
                changes[kind] = {"id": spec.id, "video": str(video.relative_to(run.root))}
                break
    write_json(run.changes, changes)
