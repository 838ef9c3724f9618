"""The rate-limited log of clients' errors."""

from __future__ import annotations

import logging

import pytest

from agent.serve.notices import LINES, PERIOD_S, Notices, address


def test_the_log_is_rate_limited(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    notices = Notices(lambda: now_s)
    for number in range(1_000_000):
        notices.say("refused", "10.0.0.1:5", f"bad {number}")
    assert [record.getMessage() for record in caplog.records] == [
        f"refused: client 10.0.0.1:5: bad {number}" for number in range(LINES)
    ]
    caplog.clear()
    now_s = PERIOD_S
    notices.say("refused", "10.0.0.2:6", "later")
    assert [record.getMessage() for record in caplog.records] == [
        "refused: 999990 more within 60 s were not written here",
        "refused: client 10.0.0.2:6: later",
    ]


def test_each_kind_has_its_own_limit_and_suppressed_lines_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notices = Notices(lambda: 0.0)
    for _ in range(LINES + 3):
        notices.say("refused", "10.0.0.1:5", "bad")
    notices.say("not admitted", "10.0.0.1:5", "no key was sent")
    assert caplog.records[-1].getMessage() == "not admitted: client 10.0.0.1:5: no key was sent"
    notices.close()
    notices.close()
    assert [r.getMessage() for r in caplog.records[LINES + 1 :]] == [
        "refused: 3 more within 60 s were not written here"
    ]


def test_text_from_clients_is_logged_printable_and_shortened(caplog: pytest.LogCaptureFixture) -> None:
    Notices().say("refused", "10.0.0.1:5", "a\nERROR\x1b[31m" + "b" * 1000)
    (record,) = caplog.records
    assert record.getMessage() == "refused: client 10.0.0.1:5: a ERROR [31m" + "b" * 488 + "..."


def test_failures_of_the_server_are_logged_with_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    Notices().say("failed", "10.0.0.1:5", "a message on /", RuntimeError("the policy failed"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "RuntimeError: the policy failed" in caplog.text


def test_addresses_are_logged_as_host_and_port() -> None:
    assert address(("10.0.0.1", 5)) == "10.0.0.1:5"
    assert address(("::1", 5, 0, 0)) == "[::1]:5"
    assert address(None) == "unknown"
