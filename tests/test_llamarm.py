"""The public API: `import llamarm` has every documented name and imports lazily, and the docs use it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llamarm

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.py")])
SHOWN = re.compile(r"^from llamarm import (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_importing_it_loads_no_other_module_but_the_standard_library_s() -> None:
    code = (
        "import sys; before = {*sys.modules}; import llamarm; dir(llamarm); found = {*sys.modules} - before; "
        "print(*sorted(name for name in found if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["llamarm"]


def test_a_specification_and_an_error_need_no_simulator_and_no_torch() -> None:
    code = (
        "import sys; from llamarm import Agent, EpisodeSpec, RobotSpec, ServedPolicy, UserError, make_world; "
        "print(*{'mujoco', 'ray', 'torch', 'transformers'} & {*sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


@pytest.mark.parametrize("name", llamarm.__all__)
def test_every_name_is_there_and_in_the_package_s_docstring(name: str) -> None:
    assert getattr(llamarm, name).__doc__
    assert name in dir(llamarm)
    assert re.search(rf"^    .*\b{name}\b", llamarm.__doc__ or "", re.MULTILINE)


def test_type_checkers_and_python_find_every_name_in_the_same_module() -> None:
    (checked,) = [node for node in ast.parse(Path(llamarm.__file__).read_text()).body if isinstance(node, ast.If)]
    read = {
        alias.asname: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    assert read == llamarm._HOME


def test_an_unknown_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(
        AttributeError, match=r"has no attribute 'load_polcy'; it has ActionChunk, Agent, .*, load_policy, "
    ):
        llamarm.__getattr__("load_polcy")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_from_it_is_there(page: Path) -> None:
    shown = [name.strip() for names in SHOWN.findall(page.read_text()) for name in names.split(",")]
    assert set(shown) <= {*llamarm.__all__}


def test_pages_show_it_in_place_of_the_modules_behind_it() -> None:
    wire = "agent.serve import openpi, wire"  # needs neither torch nor MuJoCo, for servers in another interpreter
    behind = re.compile(rf"^from (?!{re.escape(wire)}$)(agent|rollout|vla_model)\b", re.MULTILINE)
    assert not [page for page in PAGES if behind.search(page.read_text())]
    assert sum(len(SHOWN.findall(page.read_text())) for page in PAGES) > 5


@pytest.mark.parametrize("page", ["worlds", "specs"])
def test_the_examples_of_concepts_run(page: str) -> None:
    (code,) = BLOCK.findall((ROOT / "docs" / "concepts" / f"{page}.md").read_text())
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.long
def test_the_page_for_python_runs(tmp_path: Path) -> None:
    measure, train = BLOCK.findall((ROOT / "docs" / "python.md").read_text())
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{train}\n{measure}"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "\n4 [" in ran.stdout, "so many episodes were demonstrated"
