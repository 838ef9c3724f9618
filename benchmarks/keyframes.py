"""Error of object positions predicted by a dataset's keyframes and waypoints, by task.

    python -m benchmarks.keyframes DATASET --things object goal --out docs/results/keyframes.md

    R^2 = 1 - sum_i |p_i - f_i(k_i)|^2 / sum_i |p_i - mean_i(p)|^2

p is an object's position when an episode begins, k the hand's positions at the keyframes that foresight predicts from
there (dataset/keyframes.py), f_i the linear regression of p on k over all other episodes of the task, and mean_i their
mean; so 0 or less means no information, and 1 exact prediction. Where it is low, these keyframes do not supervise
object positions in that task. It needs a dataset with labels from a simulator.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.document import finish, head
from rollout.dataset.frame_cache import open_cache
from rollout.dataset.keyframes import keyframes, next_of, waypoints
from rollout.dataset.schema import read_world_spec

FIXED_M = 0.005
"""An object whose position has a smaller standard deviation counts as fixed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to look at."""

    dataset: Annotated[Path, tyro.conf.Positional]
    things: tuple[str, ...] = ("object", "goal")
    """Objects, by the simulator's labels: THING for THING_x, THING_y, THING_z."""
    out: Path | None = None
    """File to which the table is written, in addition to the screen."""


def explained(hand: NDArray[np.float64], thing: NDArray[np.float64]) -> float | None:
    """R^2 above, None for an object at a fixed position; inputs [episodes, D], [episodes, 3]."""
    n = len(thing)
    if np.linalg.norm(thing.std(0)) < FIXED_M:
        return None
    design = np.column_stack((np.ones(n), hand))
    projector = design @ np.linalg.pinv(design)  # [episodes, episodes]
    # Leaving an episode out scales its residual by 1 / (1 - its leverage); in the mean over all, leverage is 1 / n.
    residual = (thing - projector @ thing) / np.maximum(1 - np.diag(projector), 1e-9)[:, None]
    deviation = (thing - thing.mean(0)) / (1 - 1 / n)
    return 1 - float((residual**2).sum() / (deviation**2).sum())


def main(options: Options) -> None:
    """Measure, print and write."""
    dataset = open_cache(options.dataset)
    spec = read_world_spec(dataset.info)
    hand_m, labels = dataset.vectors["state"][:, spec.state.position], dataset.vectors["localization"]
    columns = {t: [spec.localization.names.index(f"{t}_{axis}") for axis in "xyz"] for t in options.things}
    ends = np.cumsum([episode["length"] for episode in dataset.episodes])
    begins = ends - [episode["length"] for episode in dataset.episodes]
    marks = [np.minimum(next_of(rows(dataset, spec), begins), ends - 1) for rows in (keyframes, waypoints)]
    at_keyframes = np.column_stack((hand_m[marks[0]], hand_m[ends - 1])).astype(np.float64)  # [episodes, 6]
    at_all = np.column_stack((at_keyframes, hand_m[marks[1]]))  # [episodes, 9]
    of_task = defaultdict(list)
    for number, episode in enumerate(dataset.episodes):
        of_task[episode["tasks"][0]].append(number)
    lines = head(
        "Object positions predicted by keyframes",
        "keyframes",
        "Leave-one-out R^2 of an object's initial position, predicted from the hand's position at the next change of "
        "the gripper's command and at the end, and also at the next waypoint. Empty for an object with a constant "
        "position.",
    )
    lines += ["", "| instruction | " + " | ".join(f"{t} | with the waypoint" for t in options.things) + " |"]
    lines += ["|---" * (1 + 2 * len(options.things)) + "|"]
    for task, episodes in sorted(of_task.items()):
        cells = []
        for thing in options.things:
            thing_m = labels[begins[episodes]][:, columns[thing]].astype(np.float64)
            cells += [_cell(explained(places[episodes], thing_m)) for places in (at_keyframes, at_all)]
        lines.append(f"| {task} | " + " | ".join(cells) + " |")
    finish(lines, options.out)


def _cell(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
