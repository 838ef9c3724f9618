"""A run folder's lock: a second process is refused, and the lock ends with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tiny_model import tiny_processor, tiny_vla

from agent import cli
from agent.learning.config import LearnerConfig
from agent.learning.learner import Learner
from agent.runs.run_lock import locked
from agent.training.checkpoints import save_checkpoint
from vla_model.model import VLA
from vla_model.weights.config import FineTuning

HOLDER = """
import sys
from pathlib import Path
from agent.runs.run_lock import locked

with locked(Path(sys.argv[1]), ["llamarm", "train", "my run"]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_learns_who_holds_the_lock_and_sigkill_releases_it(tmp_path: Path) -> None:
    root = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"run is in use by `llamarm train 'my run'`, process {holder.pid} on "),
            locked(root, ["llamarm", "eval"]),
        ):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with locked(root, ["llamarm", "eval"]):
        assert str(os.getpid()) in (root / ".lock.json").read_text()
    assert sorted(path.name for path in root.iterdir()) == [".lock"]


def test_of_concurrent_processes_one_gets_the_lock(tmp_path: Path) -> None:
    began, ended = Barrier(8), Barrier(8)

    def begin(_: int) -> bool:
        began.wait()
        try:
            with locked(tmp_path / "run", ["llamarm"]):
                ended.wait()
                return True
        except ValueError:
            ended.wait()
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(begin, range(8))) == 1


@pytest.mark.parametrize(
    "command",
    [
        ["train", "sft_tiny"],
        ["train", "sft_tiny", "--resume"],
        ["eval", "expert", "--tasks", "reach", "--episodes", "1"],
    ],
)
def test_commands_that_write_into_a_folder_in_use_are_refused_and_write_nothing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    root.mkdir()
    if "--resume" in command:
        (root / "run.json").write_text('{"config": {}, "sessions": [], "phases": []}')
    with locked(root, ["llamarm", "scale"]):
        before = {path.name: path.read_bytes() for path in root.iterdir()}
        with pytest.raises(SystemExit) as exit_:
            cli.main([*command, "--out", str(root)])
        assert {path.name: path.read_bytes() for path in root.iterdir()} == before
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"llamarm: {root} is in use by `llamarm scale`, process {os.getpid()} on ")
    assert error.count("\n") == 1


def test_a_checkpoint_written_by_two_processes_is_complete(tmp_path: Path) -> None:
    """Without the lock, as from Python."""

    def write(learner: Learner[VLA]) -> None:
        for step in range(8):
            save_checkpoint(tmp_path / f"{step:06d}", learner, tiny_processor(), FineTuning())

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, [Learner(tiny_vla(), LearnerConfig(num_parts=1)) for _ in range(2)]))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{step:06d}" for step in range(8)]
    whole = {"pretrained_model/model.safetensors", "pretrained_model/config.json", "pretrained_model/processor.json"}
    for folder in tmp_path.iterdir():
        assert whole <= {path.relative_to(folder).as_posix() for path in folder.rglob("*")}, folder
