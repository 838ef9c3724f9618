"""Refused instructions, actions that are not finite, and their log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from serving import client, infer, metric, page, said, served, status, tiny_policy
from test_vla_eval import receive, say, seen
from tiny_model import SENTENCES, observe
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent.serve import openpi
from agent.serve.client import ServedPolicy
from agent.serve.link import LimitsConfig
from agent.serve.notices import LINES
from vla_model.policy import VLAPolicy


def damaged(value: float) -> VLAPolicy:
    """A policy of which one weight is that."""
    policy = tiny_policy()
    with torch.no_grad():
        next(p for name, p in policy.model.named_parameters() if name.startswith("action_head"))[0] = value
    return policy


def refusal(url: str, observation: dict[str, Any]) -> str:
    """openpi's text frame."""
    with client(url) as connection:
        connection.send(openpi.pack(observation))
        answer = connection.recv(timeout=30)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=30)
    assert isinstance(answer, str)
    return answer


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_never_sent(value: float, caplog: pytest.LogCaptureFixture) -> None:
    with served(damaged(value)) as url:
        assert refusal(url, said(0)) == "internal error, which the server's log describes"
        with connect(url + "/vla-eval") as connection:
            say(connection, "observation", seen(0), 1)
            reply = receive(connection)
        assert reply["payload"] == {"error": "observation_failed: internal error, which the server's log describes"}
        with ServedPolicy(url) as policy:
            policy.begin([0], (SENTENCES[0],), (0,))
            with pytest.raises(ValueError, match="internal error"):
                policy.act([0], observe(1))
        assert metric(url, 'llamarm_requests_total{outcome="failed",path="/"}') == 2
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(failures) == 3
    assert failures[0].getMessage().startswith("failed: client 127.0.0.1:")
    assert failures[1].getMessage().endswith(": a message on /vla-eval")
    assert "the policy" in caplog.text


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u2003"])
def test_a_blank_instruction_is_refused_on_every_path(blank: str) -> None:
    with served() as url:
        assert refusal(url, said(0, blank)).startswith("the instruction ")
        with connect(url + "/vla-eval") as connection:
            say(connection, "observation", seen(0, blank), 1)
            assert receive(connection)["payload"]["error"].startswith("observation_failed: the instruction ")


def test_an_instruction_above_the_token_limit_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    long = "push the red cube " * 12 + "but never touch the vase"
    with served() as url:
        text = refusal(url, said(0, long))
        assert "24 tokens that the policy reads" in text
        with client(url) as connection:
            infer(connection, said(0, "push the red cube"))
    (record,) = caplog.records
    assert record.getMessage().startswith("refused: client 127.0.0.1:")
    assert "a message on /: the instruction" in record.getMessage()


def test_refused_connections_are_logged_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "key").write_text("secret")
    with served(api_key_file=tmp_path / "key", limits=LimitsConfig(max_clients=1)) as url:
        key = {"Authorization": "Api-Key secret"}
        assert status(url) == 401
        assert status(url, additional_headers={"Authorization": "Api-Key secre"}) == 401
        assert status(url + "/policy", additional_headers=key) == 404
        assert status(url, additional_headers=key, origin="http://evil.example") == 403
        with client(url, additional_headers=key):
            assert status(url, additional_headers=key) == 503
        assert page(url, "/healthz") == "OK\n"
    said = [record.getMessage() for record in caplog.records if record.name.startswith("agent.")]
    assert [text.split(": ", 2)[0] for text in said] == ["not admitted"] * 5
    assert all(text.split(": ", 2)[1].startswith("client 127.0.0.1:") for text in said)
    assert [text.split(": ", 2)[2] for text in said] == [
        "'/': no key was sent (401)",
        "'/': the key is wrong (401)",
        "'/policy': the path does not exist (404)",
        "'/': a page in a browser may not connect (403)",
        "'/': --max-clients are connected (503)",
    ]
    assert "secre" not in caplog.text.replace("secret", ""), "a key that failed is nobody's business"


def test_a_flood_of_invalid_messages_is_counted_and_rate_limited_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        served(limits=LimitsConfig(max_rate_hz=1e6)) as url,
        connect(url + "/vla-eval") as connection,
    ):
        for seq in range(200):
            say(connection, "observation", {}, seq)
            assert receive(connection)["type"] == "error"
        assert metric(url, 'llamarm_requests_total{outcome="refused",path="/vla-eval"}') == 200
    said = [record.getMessage() for record in caplog.records if record.name.startswith("agent.")]
    assert len(said) == LINES + 1
    assert said[-1] == "refused: 190 more within 60 s were not written here"


def test_a_message_above_the_limit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with served(limits=LimitsConfig(max_message_mb=0.1)) as url, client(url) as connection:
        connection.send(bytes(100_001))
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=30)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("agent.")]
    assert len(said) == 1
    assert said[0].startswith("cut off: client 127.0.0.1:")
    assert said[0].endswith(": on /: a message is larger than --max-message-mb allows")
