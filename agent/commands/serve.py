"""The command `llamarm serve`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated

import tyro
from annotated_types import Interval

from agent.commands.shared.options import limit_threads, parse_with
from agent.runs.addresses import check_address
from agent.runs.messages import say_next
from agent.runs.policies import load_policy, steps_to_execute
from agent.serve.server import PolicyServer, ServerConfig, log_to_stderr, serve_until_stopped
from vla_model.numerics.dtypes import DtypeName


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Inference server over a websocket: openpi's protocol on /, vla-eval's on /vla-eval."""

    policy: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="POLICY")]
    """A run (its best policy, else its last checkpoint), a checkpoint or a policy's folder."""
    n_action_steps: Annotated[int | None, Interval(ge=1, le=1_000), tyro.conf.arg(metavar="INT")] = None
    """Actions to execute of each chunk; default: the policy's."""
    dtype: DtypeName = "auto"
    """Number format of the policy's weights and computation; "auto" is bfloat16 where the hardware has it."""


def run(args: list[str]) -> None:
    """Run the command."""
    options = parse_with(Serve, "serve", args, server=ServerConfig())
    check_address(options.server.host, options.server.port)
    policy = load_policy(options.policy, options.dtype)
    limit_threads(policy, spared_cores=1)
    policy = policy.to("auto")
    n_action_steps = steps_to_execute(options.policy, policy, options.n_action_steps)
    server = PolicyServer(policy, options.server, n_action_steps)
    log_to_stderr(options.server.debug)
    made_for, is_open = policy.processor.deployment, not (options.server.api_key_file or options.server.certificate)

    def say_ready(url: str) -> None:
        print(f"{url} (openpi) and {url}/vla-eval serve {options.policy}; Ctrl-C stops", flush=True)
        if is_open and made_for is not None and made_for.world is not None:
            place = ("--world", made_for.world, "--out", f"{options.policy.rstrip('/')}_served")
            say_next("evaluate it, in another terminal", "eval", url, *place)

    asyncio.run(serve_until_stopped(server, say_ready))
    print("Stopped.")
