"""Small files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from vla_model.folders import read_json, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    write_whole(file, "new")
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_leaves_the_old_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", b"\x00\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"


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
def test_a_damaged_json_file_is_named_with_what_to_do(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        read_json(file, ("a",), "make it again")
    assert str(file) in str(caught.value)
    assert str(caught.value).endswith("; make it again")
    assert "\n" not in str(caught.value)
    file.write_text('{"a": 1}')
    assert read_json(file, ("a",)) == {"a": 1}
