"""Folders and small files are written whole or not at all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vla_model.files.folders import fresh_folder, read_json, write_json, write_whole

ROOT = Path(__file__).parents[3]
ROOMS = ("agent", "envs", "rollout", "vla_model")


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"\x00\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"


def test_json_is_written_atomically(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": [1, 0.1]})
    assert read_json(file) == {"a": [1, 0.1]}
    for unfit in (float("nan"), Path("b")):
        with pytest.raises((ValueError, TypeError), match=r"not JSON (compliant|serializable)"):
            write_json(file, {"a": unfit})
    assert read_json(file) == {"a": [1, 0.1]}
    assert list(tmp_path.iterdir()) == [file]


def test_all_packages_write_json_and_text_through_these_functions() -> None:
    written = re.compile(r"\bjson\.dump\(|\.write_(text|bytes)\(|\bwrite_whole\([^\n]*json\.dumps")
    sources = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.name != "folders.py"]
    assert len(sources) > 100
    assert not [path for path in sources if written.search(path.read_text())]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1', "damaged"),
        ("", "damaged"),
        ("\xff", "damaged"),
        ("[1]", "expected a JSON object, got list"),
        ("{}", "it lacks a"),
    ],
)
def test_a_damaged_json_file_is_named_with_the_remedy(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        read_json(file, ("a",), "make it again")
    assert str(file) in str(caught.value)
    assert str(caught.value).endswith("; make it again")
    assert "\n" not in str(caught.value)
    file.write_text('{"a": 1}')
    assert read_json(file, ("a",)) == {"a": 1}


def test_of_two_writers_the_first_to_finish_wins_and_the_other_gets_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "000002"

    def both() -> None:
        with fresh_folder(folder) as slow:
            (slow / "weights").write_text("slow")
            with fresh_folder(folder) as quick:
                (quick / "weights").write_text("quick")
            assert (slow / "weights").read_text() == "slow", "the other one left it alone"

    with pytest.raises(FileExistsError, match="000002 was written by another process"):
        both()
    assert (folder / "weights").read_text() == "quick"
    assert list(folder.parent.iterdir()) == [folder]


WRITERS = {
    "fresh_folder": "with fresh_folder(path): os.kill(os.getpid(), 9)",
    "temporary_folder": "with temporary_folder(path): os.kill(os.getpid(), 9)",
    "write_whole": "Path.replace = lambda *_: os.kill(os.getpid(), 9); write_whole(path, 'half')",
    "write_json": "Path.replace = lambda *_: os.kill(os.getpid(), 9); write_json(path, {})",
}


@pytest.mark.parametrize("killed", WRITERS)
@pytest.mark.parametrize("following", ["fresh_folder", "write_whole"])
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path, killed: str, following: str) -> None:
    path = tmp_path / "[a]"
    imports = f"import os, sys; from pathlib import Path; from vla_model.files.folders import {killed}\n"
    code = f"{imports}path = Path(sys.argv[1])\n{WRITERS[killed]}"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1, "what it had begun"
    (tmp_path / ".[a].new").mkdir()  # as earlier versions named it
    if following == "fresh_folder":
        with fresh_folder(path):
            pass
    else:
        write_whole(path, "whole")
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with fresh_folder(tmp_path / "a"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())
