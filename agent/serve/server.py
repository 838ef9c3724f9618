"""The server: admission of clients, the paths, and each client's task.

    client's task      receives a message, validates it, runs the policy, sends the answer      one per connection
    InferenceServer    batches the clients' observations (rollout/inference.py)
    policy's thread    encodes instructions and runs inference, one request after the other

All but the last run on one event loop, which does no computation. Who waits: a client's task, for its client's next
message, for the batch, and for its client to read the answer. Who unblocks it: the client, or a limit (LimitsConfig):
the connection of one that neither reads nor answers pings is closed. To stop, the server refuses new clients, closes
the other connections (code 1001) and waits for their tasks.

Left out: batches over two models, and what a reverse proxy does better, e.g. keys of several users.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import itertools
import logging
import signal
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import tyro
from annotated_types import Interval
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from agent.runs.addresses import cannot_listen
from agent.runs.checks import check_config
from agent.serve import openpi, vla_eval
from agent.serve.client_state import ClientState
from agent.serve.link import LimitsConfig, Link
from agent.serve.metrics import MeasuredPolicy, Metrics
from agent.serve.notices import Notices, address
from envs.errors import UserError
from rollout.inference import InferenceConfig, InferenceServer
from vla_model.files.deployment import check_n_action_steps

if TYPE_CHECKING:
    from vla_model.inputs.processor import Processor
    from vla_model.policy import VLAPolicy

Converse = Callable[[Link, ClientState, dict[str, Any]], Awaitable[None]]
PROTOCOLS: dict[str, Converse] = {"/": openpi.converse, "/vla-eval": vla_eval.converse}
_HEALTH = {"/healthz": "OK\n", "/health": '{"status": "ok"}\n'}
"""Health checks of openpi and vla-eval, with their responses."""
_METRICS = "/metrics"
_WHY_REFUSED = {
    HTTPStatus.FORBIDDEN: "a page in a browser may not connect",
    HTTPStatus.NOT_FOUND: "the path does not exist",
    HTTPStatus.SERVICE_UNAVAILABLE: "--max-clients are connected",
    HTTPStatus.UPGRADE_REQUIRED: "it requests no websocket",
}
_PING_INTERVAL_S = 20.0
_OPEN_TIMEOUT_S = 5.0
"""Timeout of the handshake, so that an idle connection does not keep the server from stopping."""
_CLOSE_TIMEOUT_S = 2.0
_OFFENCES: dict[int, str] = {
    CloseCode.PROTOCOL_ERROR: "invalid websocket frame",
    CloseCode.INVALID_DATA: "a text frame is not UTF-8",
    CloseCode.MESSAGE_TOO_BIG: "a message is larger than --max-message-mb allows",
    CloseCode.INTERNAL_ERROR: "it does not answer pings within --ping-timeout-s",
}
"""{close code of websockets: reason for the log}"""


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Address, access, batching and limits of a server."""

    host: str = "127.0.0.1"
    """Address to listen on. Any but a loopback address needs a key."""
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000
    """0 for any free port."""
    api_key_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the key that clients must send."""
    certificate: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the TLS certificate and its chain (PEM)."""
    private_key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the certificate's private key (PEM)."""
    max_batch_size: Annotated[int, Interval(ge=1, le=10_000)] = 32
    """Maximum number of clients in a batch."""
    max_wait_ms: Annotated[float, Interval(ge=0, le=10_000)] = 2.0
    """How long the first request of a batch waits for other clients."""
    limits: Annotated[LimitsConfig, tyro.conf.arg(name="")] = field(default_factory=LimitsConfig)
    """Limits of each client."""
    debug: bool = False
    """Send tracebacks to clients."""

    def check(self) -> None:
        """
        Raises:
            UserError: a non-loopback address without a key, only one of certificate and private key, or an unusable
                file.
        """
        if self.api_key_file is None and not _is_loopback(self.host):
            raise UserError(
                f"host {self.host} can be reached from other machines, so clients need a key: --api-key-file names its "
                "file; without one, only 127.0.0.1, ::1 and localhost are allowed"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise UserError("TLS needs both a certificate and its private_key, and only one is given")
        _read_key(self.api_key_file)
        _tls(self)


class PolicyServer:
    """Serves one policy."""

    def __init__(self, policy: VLAPolicy, config: ServerConfig, n_action_steps: int | None = None) -> None:
        """
        Args:
            policy: takes the mode of its action distribution.
            n_action_steps: actions of each chunk that a client should execute; the policy's where None.

        Raises:
            UserError: the config is refused; n_action_steps is not within the policy's chunk.
        """
        check_config(config)
        chunk_size = policy.model.config.chunk_size
        n_action_steps = policy.n_action_steps if n_action_steps is None else n_action_steps
        check_n_action_steps(n_action_steps, chunk_size)
        self._processor = policy.processor
        self._config = config
        self._n_action_steps = n_action_steps
        self._key = _read_key(config.api_key_file)
        self._tls = _tls(config)
        self._metrics = Metrics()
        self._notices = Notices()
        inference = InferenceConfig(max_batch_size=config.max_batch_size, max_wait_ms=config.max_wait_ms)
        self._inference = InferenceServer(lambda: MeasuredPolicy(policy, self._metrics), inference, None)
        self._names = itertools.count()
        self._metadata = metadata(policy.processor, chunk_size, n_action_steps, policy.version)
        if length := policy.model.config.history_length:
            self._metadata["observation"][openpi.STEP] = "control steps since the episode began, may be left out"
            self._metadata["history_steps"] = length * policy.model.config.history_stride

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[str]:
        """Serve while this context is open; yields the URL of path /.

        Raises:
            UserError: the address is in use, or not this machine's.
        """
        limits, host, port = self._config.limits, self._config.host, self._config.port
        starting = serve(
            self._handle,
            host,
            port,
            ssl=self._tls,
            process_request=self._admit,
            process_response=self._note_refusal,
            origins=[None],  # browsers send an Origin header, clients of these protocols do not
            compression=None,
            max_size=int(limits.max_message_mb * 1e6),
            max_queue=1,  # one message is processed and one waits; further ones stay with the client
            ping_interval=_PING_INTERVAL_S,
            ping_timeout=limits.ping_timeout_s,
            open_timeout=_OPEN_TIMEOUT_S,
            close_timeout=_CLOSE_TIMEOUT_S,
        )
        async with AsyncExitStack() as stack:
            stack.callback(self._notices.close)
            try:
                server = await stack.enter_async_context(starting)
            except OSError as error:
                raise UserError(cannot_listen(host, port, error)) from error
            host, port = next(iter(server.sockets)).getsockname()[:2]
            yield f"{'ws' if self._tls is None else 'wss'}://{f'[{host}]' if ':' in host else host}:{port}"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response to health checks, metrics requests and clients that are not admitted; None to admit."""
        path = urlsplit(request.path).path
        if path in _HEALTH:
            return connection.respond(HTTPStatus.OK, _HEALTH[path])
        if not self._has_key(request):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "This server requires 'Authorization: Api-Key ...'.\n")
        if path == _METRICS:
            return connection.respond(HTTPStatus.OK, self._metrics.text())
        if path not in PROTOCOLS:
            known = ", ".join((*PROTOCOLS, *_HEALTH, _METRICS))
            return connection.respond(HTTPStatus.NOT_FOUND, f"This path does not exist; paths: {known}\n")
        if len(connection.server.connections) >= self._config.limits.max_clients:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This server has --max-clients clients.\n")
        return None

    def _note_refusal(self, connection: ServerConnection, request: Request, response: Response) -> None:
        """Count and log clients that are not admitted."""
        status = HTTPStatus(response.status_code)
        if status in (HTTPStatus.SWITCHING_PROTOCOLS, HTTPStatus.OK):
            return
        self._metrics.not_admitted(status)
        why = _WHY_REFUSED.get(status, status.phrase)
        if status == HTTPStatus.UNAUTHORIZED:
            why = "the key is wrong" if "Authorization" in request.headers else "no key was sent"
        self._notices.say("not admitted", address(connection.remote_address), f"{request.path!r}: {why} ({status})")

    def _has_key(self, request: Request) -> bool:
        if self._key is None:
            return True
        given = request.headers.get_all("Authorization")
        return len(given) == 1 and hmac.compare_digest(given[0].encode(errors="surrogateescape"), self._key)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = urlsplit(connection.request.path).path
        link = Link(connection, path, self._config.limits, self._metrics, self._notices, self._config.debug)
        client = ClientState(f"client {next(self._names)}", self._processor, self._inference, self._n_action_steps)
        with self._metrics.client(path):
            try:
                await PROTOCOLS[path](link, client, self._metadata)
            except ConnectionClosed as error:  # the end of every conversation, whoever ended it
                if error.sent is not None and not error.rcvd_then_sent and (why := _OFFENCES.get(error.sent.code)):
                    link.say_cut_off(why)
            finally:
                await client.end()


async def serve_until_stopped(server: PolicyServer, on_start: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; a second one does not wait for the end."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, end)
    async with server.listening() as url:
        on_start(url)
        await stop.wait()


def log_to_stderr(debug: bool) -> None:
    """Log our own warnings only: websockets would log every broken connection with a traceback."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    if not debug:
        logging.getLogger("websockets").setLevel(logging.CRITICAL)


def metadata(processor: Processor, chunk_size: int, n_action_steps: int, version: int) -> dict[str, Any]:
    """The metadata of a policy that a client gets first: plain values only."""
    made_for = processor.deployment
    return {
        "server": "llamarm",
        "policy_version": version,
        "action_horizon": chunk_size,
        **({} if made_for is None else made_for.to_json()),
        "n_action_steps": n_action_steps,
        **openpi.world_metadata(processor.world_spec),
        **({} if processor.conversion is None else {"conversion": processor.conversion.to_json()}),
    }


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name
        return False


def _read_key(file: Path | None) -> bytes | None:
    """The Authorization header that a client must send."""
    if file is None:
        return None
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the key in {file} cannot be read: {error}; name another with --api-key-file") from error
    if not key:
        raise UserError(f"{file} is empty, expected the key that clients send; write one into it")
    return f"Api-Key {key}".encode()


def _tls(config: ServerConfig) -> ssl.SSLContext | None:
    if config.certificate is None or config.private_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.certificate, config.private_key)
    except OSError as error:
        raise UserError(
            f"{config.certificate} and {config.private_key} cannot be used for TLS, expected a certificate and its "
            f"key in PEM: {error}"
        ) from error
    return context
