"""For the tests that start and kill Ray workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def ray_ends_with_the_tests() -> Iterator[None]:
    """Ray prints what it kept about killed workers when it ends; that must not come after pytest's closing line."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
