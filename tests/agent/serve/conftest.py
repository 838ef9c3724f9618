"""These models are too small for more than one thread, and a handshake may take long on a busy machine."""

from __future__ import annotations

import pytest
import torch

from agent.serve import server

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _handshakes_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the server closes a connection whose first bytes come seconds late."""
    monkeypatch.setattr(server, "_OPEN_TIMEOUT_S", None)
