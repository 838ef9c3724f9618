"""An address is checked before anything that takes time."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent import cli
from agent.runs.addresses import check_address


def test_a_port_in_use_and_a_foreign_host_are_refused_and_the_probe_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"nothing can be served on 127\.0\.0\.1, port {port}: Address already in"
        ):
            check_address("127.0.0.1", port)
    for _ in range(2):
        check_address("127.0.0.1", port)
    with pytest.raises(ValueError, match=r"nothing can be served on 203\.0\.113\.7, port 0: "):
        check_address("203.0.113.7", 0)


def test_an_invalid_page_config_is_refused_before_loading_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for args, text in {
        ("--port", "80808"): "port is 80808, expected a finite number at least 0 and at most 65535",
        ("--host", "203.0.113.7"): "nothing can be served on 203.0.113.7, port 0: ",
        ("--rate-hz", "nan"): "rate-hz is nan, expected",
    }.items():
        with pytest.raises(SystemExit) as exit_:
            cli.main(["console", str(tmp_path / "nothing"), *args])
        assert exit_.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert text in line
