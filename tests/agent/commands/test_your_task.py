"""docs/your_task.md: FetchReach of gymnasium-robotics through the commands, in a process of its own.

MuJoCo chooses what it draws with when it is first imported, so the module needs a process in which nothing else has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

COMMANDS = """
import json, sys
import numpy as np
from agent import cli
from envs.make import make_world
from envs.types import EpisodeSpec
from rollout.dataset.read import DatasetReader

world, run, again = "examples.fetch:make_world", sys.argv[1], sys.argv[2]
cli.main(["train", "sft_tiny", "--demonstrations.world", world, "--demonstrations.tasks", "reach", "--workers", "1",
          "--evaluation.no-controls", "--out", run])
cli.main(["eval", run, "--world", world, "--episodes", "2", "--videos", "0", "--out", again])

data = DatasetReader(run + "/dataset")
numbers = {row["spec_id"]: number for number, row in enumerate(data.episodes)}
here = make_world(world, 3)
first, _ = here.reset_to([EpisodeSpec(suite="fetch", task="reach", seed=0)], [1])
recorded = data.episode(numbers["fetch/reach/train/0"]).frames["left"]
print("RESULT", json.dumps({"episodes": len(numbers), "same": np.array_equal(recorded[0], first["frames"]["left"][1])}))
"""


def test_the_documented_module_is_collected_trained_and_evaluated_by_the_commands(tmp_path: Path) -> None:
    run, again = tmp_path / "run", tmp_path / "again"
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(run), str(again)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (result,) = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert result == {"episodes": 2, "same": True}, "the first frame of a spec, in a worker and here"
    for folder, episodes in ((run, 1), (again, 2)):
        info = json.loads((folder / "eval_info.json").read_text())
        assert (info["protocol"]["suites"], info["overall"]["n_episodes"]) == (["fetch"], episodes)


def test_the_docs_show_the_modules_source() -> None:
    shown = (ROOT / "docs" / "your_task.md").read_text().split("```python\n")[1].split("```")[0]
    assert shown == (ROOT / "examples" / "fetch.py").read_text()
