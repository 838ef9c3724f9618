"""What MODULE:FUNCTION names, and packages of a user's own that have the names of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envs.errors import UserError
from envs.imported import imported


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, a user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_module_of_the_current_folder_is_found(here: Path) -> None:
    (here / "a_world_of_mine.py").write_text("def make(num_worlds):\n    return num_worlds + 1\n")
    assert imported("world", "a_world_of_mine:make")(1) == 2


@pytest.mark.parametrize("package", ["agent", "envs", "llamarm", "rollout", "vla_model"])
@pytest.mark.parametrize("name", ["{}.my_env:make", "my_env:make"])
def test_a_user_package_with_the_name_of_one_of_ours_is_reported_as_a_clash(
    here: Path, package: str, name: str
) -> None:
    (here / package).mkdir()
    (here / package / "__init__.py").touch()
    for folder in (here, here / package):
        (folder / "my_env.py").write_text("def make(num_worlds):\n    return num_worlds\n")
    said = rf"{package}/__init__\.py is in the way of llamarm's own package '{package}', and .*; rename yours"
    with pytest.raises(UserError, match=said):
        imported("world", name.format(package))
    assert str(here) not in sys.path


@pytest.mark.parametrize("name", ["envs.my_env:make", "envs.make:my_world"])
def test_a_missing_module_in_our_package_is_reported_as_a_possible_clash(here: Path, name: str) -> None:
    (here / "envs").mkdir()  # without an __init__.py, which hides nothing of ours
    (here / "envs" / "my_env.py").write_text("def make(num_worlds):\n    return num_worlds\n")
    with pytest.raises(UserError, match="'envs' is llamarm's own and hides a package of yours, so rename yours"):
        imported("world", name)


def test_a_data_folder_with_the_name_of_one_of_our_packages_is_no_clash(here: Path) -> None:
    (here / "rollout").mkdir()
    (here / "another_world_of_mine.py").write_text("def make(num_worlds):\n    return num_worlds\n")
    assert imported("world", "another_world_of_mine:make")(3) == 3
