"""Admission and limits of clients, on real sockets."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
from numpy.testing import assert_allclose
from serving import EXECUTE_STEPS, client, in_process, infer, metric, page, said, served, settled, status, tiny_policy
from tiny_model import SENTENCES
from websockets.exceptions import ConnectionClosed, InvalidMessage

from agent import cli
from agent.runs.checks import check_config
from agent.serve import openpi
from agent.serve.client import ServedPolicy
from agent.serve.link import LimitsConfig
from agent.serve.server import PolicyServer, ServerConfig
from vla_model.weights.checkpoint import save_policy


def key_file(folder: Path) -> Path:
    file = folder / "key"
    file.write_text("secret\n")
    return file


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "robot.example", "::"])
def test_a_reachable_address_needs_a_key(host: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"host {host} can be reached from other machines, so clients need a key"):
        check_config(ServerConfig(host=host))
    check_config(ServerConfig(host=host, api_key_file=key_file(tmp_path)))


def test_a_loopback_address_needs_no_key() -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"):
        check_config(ServerConfig(host=host))


def test_an_invalid_server_config_is_refused_before_listening(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for config, steps, message in (
        (ServerConfig(api_key_file=tmp_path / "none"), 2, "none cannot be read"),
        (ServerConfig(api_key_file=tmp_path / "empty"), 2, "empty is empty, expected the key"),
        (ServerConfig(certificate=tmp_path / "empty"), 2, "TLS needs both a certificate and its private_key"),
        (ServerConfig(certificate=tmp_path / "empty", private_key=tmp_path / "empty"), 2, "cannot be used for TLS"),
        (ServerConfig(limits=LimitsConfig(max_rate_hz=0)), 2, "max-rate-hz is 0, expected a finite number above 0"),
        (ServerConfig(), 5, r"n_action_steps must be within 1\.\.4, the chunk's length, got 5"),
    ):
        with pytest.raises(ValueError, match=message):
            PolicyServer(tiny_policy(), config, steps)


def test_an_address_in_use_is_an_error_that_names_it() -> None:
    with served() as url:
        port = urlsplit(url).port
        server = PolicyServer(tiny_policy(), ServerConfig(port=port or 0), EXECUTE_STEPS)

        async def listen() -> None:
            async with server.listening():
                pass

        with pytest.raises(ValueError, match=rf"nothing can be served on 127\.0\.0\.1, port {port}: .*in use"):
            asyncio.run(listen())


def test_an_invalid_server_config_is_refused_before_loading_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The policy does not exist, but the server's config is refused first."""
    (tmp_path / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        refused = {
            ("--port", "99999"): "port is 99999, expected a finite number at least 0 and at most 65535",
            ("--port", "-1"): "port is -1, expected",
            ("--port", str(taken)): f"nothing can be served on 127.0.0.1, port {taken}: Address already in use",
            ("--host", "0.0.0.0"): "host 0.0.0.0 can be reached from other machines, so clients need a key",
            ("--host", "127.0.0.1", "--api-key-file", str(tmp_path / "none")): "none cannot be read",
            ("--api-key-file", str(tmp_path / "empty")): "empty is empty, expected the key that clients send",
            ("--max-wait-ms", "nan"): "max-wait-ms is nan, expected a finite number",
            ("--max-rate-hz", "nan"): "max-rate-hz is nan, expected a finite number above 0",
            ("--send-timeout-s", "inf"): "send-timeout-s is inf, expected a finite number above 0",
            ("--max-batch-size", "0"): "max-batch-size is 0, expected",
        }
        (tmp_path / "key").write_text("secret")
        args = ("--host", "203.0.113.7", "--api-key-file", str(tmp_path / "key"))
        refused[args] = "nothing can be served on 203.0.113.7, port 8000: "
        for args, text in refused.items():
            with pytest.raises(SystemExit) as exit_:
                cli.main(["serve", str(tmp_path / "nothing"), *args])
            assert exit_.value.code == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert text in line


def test_clients_without_the_key_are_refused(tmp_path: Path) -> None:
    with served(api_key_file=key_file(tmp_path)) as url:
        for headers in ({}, {"Authorization": "Api-Key secre"}, {"Authorization": "Bearer secret"}):
            for path in ("/", "/vla-eval"):
                assert status(url + path, additional_headers=headers) == 401
        with pytest.raises(HTTPError, match="401"):
            page(url, "/metrics")
        assert page(url, "/healthz") == "OK\n"
        with client(url, additional_headers={"Authorization": "Api-Key secret"}) as connection:
            infer(connection, said(0))


def test_unknown_paths_and_pages_in_browsers_are_refused() -> None:
    with served() as url:
        assert status(url + "/policy") == 404
        with pytest.raises(HTTPError, match="404"):
            page(url, "/metric")
        assert status(url, origin="http://evil.example") == 403


def test_tls_encrypts_with_the_given_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, private_key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", private_key, "-out", certificate], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)
    with served(certificate=certificate, private_key=private_key) as url:
        assert url.startswith("wss://")
        with client(url, ssl=trusting) as connection:
            infer(connection, said(0))
        with pytest.raises(InvalidMessage), client(url.replace("wss", "ws")):
            pass
        with pytest.raises(ConnectionError, match=r"is not trusted: self-signed certificate; .* SSL_CERT_FILE names"):
            ServedPolicy(url, patience_s=3600.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        ServedPolicy(url).close()


def test_a_client_above_the_limit_is_refused_until_one_disconnects() -> None:
    with served(limits=LimitsConfig(max_clients=2)) as url:
        with client(url) as first, client(url):
            assert status(url) == 503
            infer(first, said(0))
        with client(url) as next_one:
            infer(next_one, said(0))


def test_an_oversized_message_closes_only_its_connection() -> None:
    with served(limits=LimitsConfig(max_message_mb=0.1)) as url, client(url) as other, client(url) as connection:
        connection.send(bytes(100_001))
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        infer(other, said(0))


def test_a_client_above_the_rate_limit_waits() -> None:
    with served(limits=LimitsConfig(max_rate_hz=20)) as url, client(url) as connection:
        began_s = time.perf_counter()
        for seed in range(5):
            infer(connection, said(seed))
        # Four periods, the first of which began when the server began to wait for the first message.
        assert time.perf_counter() - began_s > 3 / 20


def test_clients_observations_are_batched_and_each_gets_its_own_actions() -> None:
    here = tiny_policy()
    barrier = threading.Barrier(4)

    def ask(number: int, url: str) -> None:
        sentence = SENTENCES[number]
        with client(url) as connection:
            infer(connection, said(number, sentence))
            for round_ in range(5):
                barrier.wait(timeout=300)
                seed = 10 * number + round_
                expected[number, round_], found[number, round_] = seed, infer(connection, said(seed, sentence))
            barrier.wait(timeout=300)

    expected, found = {}, {}
    with served(max_wait_ms=2000) as url, ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4), [url] * 4))
        large = metric(url, "llamarm_batch_size_count") - metric(url, 'llamarm_batch_size_bucket{le="2.0"}')
    assert large >= 5, "each round is one batch of four"
    for (number, round_), actions in found.items():
        assert_allclose(actions, in_process(here, expected[number, round_], SENTENCES[number]), atol=0.02)


def test_metrics_count_clients_and_requests() -> None:
    with served() as url, client(url) as good:
        infer(good, said(0))
        with client(url) as bad:
            bad.send(openpi.pack({}))
            bad.recv(timeout=30)
            with pytest.raises(ConnectionClosed):
                bad.recv(timeout=30)
        assert metric(url, 'llamarm_requests_total{outcome="answered",path="/"}') == 1
        assert metric(url, 'llamarm_requests_total{outcome="refused",path="/"}') == 1
        assert settled(url) == 1
        assert metric(url, "process_resident_memory_bytes") > 1e6


def test_the_command_serves_a_policys_folder_and_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    policy = tiny_policy()
    save_policy(tmp_path / "policy", policy.model, policy.processor)
    command = [sys.executable, "-m", "agent.cli", "serve", str(tmp_path / "policy"), "--port", "0"]
    with subprocess.Popen(
        [*command, "--n-action-steps", str(EXECUTE_STEPS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        with client(url) as connection:
            infer(connection, said(0))
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed) as closed:
                connection.recv(timeout=30)
        rest, errors = process.communicate(timeout=120)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert (process.returncode, rest, errors) == (0, "Stopped.\n", "")
