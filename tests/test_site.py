"""The documentation site: what is staged and generated, and what the link check finds. make docs builds it whole."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import llamarm
from agent import cli
from agent.recipes import RECIPES
from docs.site import api, commands, links, stage
from docs.site.__main__ import CONFIG, ROOT, unlisted, with_navigation

LINKS = {
    "../your_task.md#another-arm": "../your_task.md#another-arm",
    "../../README.md#use-a-policy": "../index.md",
    "../../CHANGELOG.md": "../changelog.md",
    "../../envs/arm.py": "../reference/envs.md#envs.arm",
    "../../rollout": "../reference/rollout.md",
    "../../agent/commands/eval.py": "../reference/eval.md",
    "../../agent/recipes.py": "../reference/recipes.md",
    "../../examples/fetch.py": "../source/examples/fetch.py.md",
    "https://a.b": "https://a.b",
    "#here": "#here",
}
"""Link of docs/results/demo.md: what it is on the site."""
GENERATED = {"reference/api.md", "reference/commands.md", "reference/recipes.md"}
"""Generated pages that the navigation names itself."""


def test_links_to_files_become_links_to_their_pages() -> None:
    document, page = ROOT / "docs" / "results" / "demo.md", Path("results/demo.md")
    text, sources = stage.with_site_links(" ".join(f"[x]({link})" for link in LINKS), document, page, ROOT)
    assert text == " ".join(f"[x]({link})" for link in LINKS.values())
    assert sources == {Path("examples/fetch.py")}


def test_a_link_to_no_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"docs/a.md links to nowhere.md, which does not exist"):
        stage.with_site_links("[x](nowhere.md)", ROOT / "docs" / "a.md", Path("a.md"), ROOT)


def test_every_document_is_in_the_navigation() -> None:
    listed = set(re.findall(r'"([\w/]+\.md)"', CONFIG.read_text())) - GENERATED
    added = {page for _, page in unlisted(CONFIG.read_text(), ROOT)}
    assert {page.as_posix() for _, page in stage.pages(ROOT)} == listed | added


def test_a_document_that_the_navigation_lacks_is_added_by_its_heading() -> None:
    config = CONFIG.read_text().replace('{ "Limits" = "limits.md" },', "")
    assert ("Limits and known faults", "limits.md") in unlisted(config, ROOT)


def test_the_navigation_names_every_generated_page() -> None:
    pages = {
        "@COMMANDS@": [("llamarm eval", "reference/eval.md")],
        "@PACKAGES@": [("envs", "reference/envs.md")],
        "@UNLISTED@": [],
    }
    text = with_navigation(CONFIG.read_text(), pages)
    assert "@" not in text
    assert {"llamarm eval": "reference/eval.md"} in str_entries(tomllib.loads(text)["project"]["nav"])


def str_entries(entries: list[object]) -> list[object]:
    """Every entry of a navigation, at whatever depth."""
    found: list[object] = []
    for entry in entries:
        found.append(entry)
        for below in entry.values() if isinstance(entry, dict) else ():
            found += str_entries(below) if isinstance(below, list) else []
    return found


def test_the_api_page_has_every_public_name() -> None:
    docstring = ast.get_docstring(ast.parse(Path(llamarm.__file__).read_text())) or ""
    names = [name for _, group in api.grouped_names(docstring) for name in group]
    assert sorted(names) == sorted(llamarm.__all__)


def test_an_option_s_page_says_what_its_field_says() -> None:
    options = {option.name: option for option in commands.options_of(commands.parser_of(["train", "sft_demo"]))}
    batch = options["--learner.batch-size"]
    assert (batch.values, batch.default, batch.group) == ("INT", "128", "learner")
    assert (options["--out"].values, options["--out"].default) == ("DIR", "")
    assert options["--resume"].values == ""
    assert "Continue the run" in options["--resume"].meaning


def test_every_command_and_recipe_has_its_place(tmp_path: Path) -> None:
    pages = [page for _, page in commands.write_commands(tmp_path)]
    assert pages == [f"reference/{command}.md" for command in cli.COMMANDS]
    assert set(commands.summaries()) == set(cli.COMMANDS)
    recipes = (tmp_path / "reference" / "recipes.md").read_text()
    assert all(f"\n### {name}\n" in recipes for name in RECIPES)
    train = (tmp_path / "reference" / "train.md").read_text()
    for option in ("--sft.no-hold-gripper", "--algorithm.beta", "--algorithm.max-rounds"):
        assert f"`{option}" in train


def test_help_is_shown_as_it_is_written() -> None:
    assert commands.plain("KEY[NAME] of `a_b` is *new*") == r"KEY\[NAME\] of `a_b` is \*new\*"
    assert commands.plain("(docs/your_task.md)") == "([`docs/your_task.md`](../your_task.md))"


def test_broken_links_and_other_hosts_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="#top">4</a><a href="https://a.b/c">5</a>'
        '<script src="https://cdn.example/x.js"></script><img src="missing.png"><link href="b.html" rel="stylesheet">'
    )
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2>')
    assert sorted(links.faults(tmp_path)) == [
        "a.html links to b.html#gone, which has no such heading",
        "a.html links to c.html, which does not exist",
        "a.html loads https://cdn.example/x.js from another host",
        "a.html loads missing.png, which does not exist",
    ]
