"""Build the site into build/site, strictly: an unknown link or reference is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from docs.site.api import write_api
from docs.site.commands import write_commands
from docs.site.links import faults
from docs.site.stage import pages, stage

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build"
CONFIG = Path(__file__).with_name("zensical.toml")


def main() -> None:
    """Stage the documents, write the reference, build, and check what was built."""
    staged, site = BUILD / "docs", BUILD / "site"
    stage(ROOT, staged)
    settings = CONFIG.read_text()
    navigation = {
        "@COMMANDS@": write_commands(staged),
        "@PACKAGES@": write_api(ROOT, staged),
        "@UNLISTED@": unlisted(settings, ROOT),
    }
    config = BUILD / "zensical.toml"
    config.write_text(with_navigation(settings, navigation))
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", str(config)]
    built = subprocess.run(command, cwd=BUILD, check=False, stderr=subprocess.PIPE, text=True)
    # Docstrings that do not fit their signature are reported, and are not among the warnings of --strict.
    unfit = [line for line in built.stderr.splitlines() if line.startswith("griffe: ")]
    if built.returncode or unfit:
        sys.exit(built.stderr)
    found = list(faults(site))
    if found:
        sys.exit("\n".join(found))
    print(f"{len(list(site.rglob('*.html')))} pages: {site / 'index.html'}")
    print(f"With search, at http://127.0.0.1:8000: python -m http.server --bind 127.0.0.1 --directory {site}")


def unlisted(config: str, root: Path) -> list[tuple[str, str]]:
    """Each document that the config's navigation does not name, by its first heading: a new page is found at once."""
    return [
        (document.read_text().partition("\n")[0].removeprefix("# ").replace('"', "'"), page.as_posix())
        for document, page in pages(root)
        if f'"{page.as_posix()}"' not in config
    ]


def with_navigation(config: str, navigation: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The config with the generated pages in place of their marks."""
    for mark, entries in navigation.items():
        listed = ",\n".join(f'    {{ "{title}" = "{page}" }}' for title, page in entries)
        config = config.replace(f'    "{mark}"', listed)
    return config


if __name__ == "__main__":
    main()
