"""The log of what clients do: a few lines of each kind, and how many more there were."""

from __future__ import annotations

import logging

import pytest

from agent.serve.notices import LINES, PERIOD_S, Notices, address


def test_a_million_refusals_are_ten_lines_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
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


def test_one_kind_leaves_room_for_the_others_and_the_end_says_what_was_left_out(
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


def test_what_a_client_sends_forges_no_line_and_is_shortened(caplog: pytest.LogCaptureFixture) -> None:
    Notices().say("refused", "10.0.0.1:5", "a\nERROR\x1b[31m" + "b" * 1000)
    (record,) = caplog.records
    assert record.getMessage() == "refused: client 10.0.0.1:5: a ERROR [31m" + "b" * 488 + "..."


def test_our_own_errors_are_written_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    Notices().say("failed", "10.0.0.1:5", "a message on /", RuntimeError("the policy failed"))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "RuntimeError: the policy failed" in caplog.text


def test_addresses_are_written_as_one_types_them() -> None:
    assert address(("10.0.0.1", 5)) == "10.0.0.1:5"
    assert address(("::1", 5, 0, 0)) == "[::1]:5"
    assert address(None) == "unknown"
