"""`python -m envs.suites.metaworld`: checks that Meta-World runs and renders here; last step of `make metaworld`."""

from __future__ import annotations

from envs.suites.hosted.ready import check_ready
from envs.suites.metaworld.world import INTERPRETER, MetaworldWorld

if __name__ == "__main__":
    check_ready(INTERPRETER.title, MetaworldWorld(1))
