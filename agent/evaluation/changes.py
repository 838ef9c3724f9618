"""Videos of what an improvement changed: an episode that it fixed and one that it broke, before and after side by side.

Which episodes changed is known when both policies have been measured, so a few run once more, with every step rendered.
One is recorded if it comes out again as it was measured, before and after; of each kind the first that does. (In
another company of worlds the last bits of what a policy says are others, so an episode may come out otherwise.)
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
"""Episodes of each kind that run again."""


def write_changes(
    run: RunFolder,
    specs: Iterable[EpisodeSpec],
    rerun: Callable[[Path, list[EpisodeSpec]], Iterable[Trajectory]],
    control_dt_s: float,
) -> None:
    """Write videos/fixed.mp4 and videos/broken.mp4, as far as there are such episodes, and changes.json, naming them.

    Args:
        run: whose first and best policy have been measured.
        specs: of the episodes that measured them.
        rerun: runs episodes with the policy of a folder and records every step.
        control_dt_s: time between two control steps.
    """
    comparison = compare(read_eval_info(run.before.eval_info), read_eval_info(run.eval_info))
    of_id = {spec.id: spec for spec in specs}
    candidates = {
        kind: [of_id[id_] for id_ in ids[:CANDIDATES]]
        for kind, ids in (("fixed", comparison.won), ("broken", comparison.lost))
    }
    everything = [spec for kind in candidates.values() for spec in kind]
    folders = (run.checkpoint(0) / PRETRAINED, run.best / PRETRAINED) if everything else ()
    ways = [{trajectory.spec: trajectory for trajectory in rerun(folder, everything)} for folder in folders]
    changes = {}
    for kind, of_kind in candidates.items():
        video = run.videos / f"{kind}.mp4"
        video.unlink(missing_ok=True)
        for spec in of_kind:
            before, after = (way.get(spec) for way in ways)
            if before and after and (before.success, after.success) == (kind == "broken", kind == "fixed"):
                failures = failure_of(before), failure_of(after)
                write_comparison(video, before, after, failures=failures, control_dt_s=control_dt_s)
                changes[kind] = {"id": spec.id, "video": str(video.relative_to(run.root))}
                break
    write_json(run.changes, changes)
