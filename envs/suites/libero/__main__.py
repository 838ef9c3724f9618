"""`python -m envs.suites.libero`: checks that LIBERO runs and renders here; last step of `make libero`."""

from __future__ import annotations

from envs.suites.hosted.ready import check_ready
from envs.suites.libero.world import INTERPRETER, LiberoWorld

if __name__ == "__main__":
    check_ready(INTERPRETER.title, LiberoWorld(1))
