"""`llamarm eval vla-eval+ws://...`: our own server's /vla-eval, and peers that break its protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from numpy.testing import assert_allclose
from peers import peer
from serving import EXECUTE_STEPS, in_process, served, tiny_policy
from test_foreign_policies import evaluated, failures
from tiny_model import SENTENCES, observe, tiny_processor
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from agent.serve.foreign.adapter import Adapter
from agent.serve.foreign.config import AdapterConfig
from agent.serve.foreign.vla_eval_policy import VlaEvalPolicy
from agent.serve.vla_eval import pack


def test_observations_are_answered_with_the_actions_of_a_chunk_one_by_one() -> None:
    here = tiny_policy()
    adapter = Adapter(AdapterConfig(preset="vla-eval"), tiny_processor().world_spec)
    with served() as url:
        policy = VlaEvalPolicy(f"{url}/vla-eval", adapter)
        for seed, sentence in enumerate(SENTENCES):
            policy.begin([0], (sentence,), (0,))
            chunk = in_process(here, seed, sentence)
            for step in range(EXECUTE_STEPS):
                actions = policy.act([0], observe(1, seed, (sentence,))).actions
                assert_allclose(actions[0, 0], chunk[step], atol=1e-6)
        assert policy.hello["model_server"] == "llamarm"
        policy.close()


def walking(answer: Callable[[dict[str, Any]], Any]) -> Callable[[ServerConnection], None]:
    """A model server of vla-eval whose answers to observations are these payloads, or whole frames."""

    def handler(connection: ServerConnection) -> None:
        try:
            while True:
                message = msgpack.unpackb(connection.recv())
                if message["type"] == "hello":
                    connection.send(pack("hello", {"protocol_version": 1, "model_server": "walk"}, message["seq"]))
                elif message["type"] == "observation":
                    reply = answer(message["payload"])
                    whole = isinstance(reply, bytes | str)
                    connection.send(reply if whole else pack("action", reply, message["seq"]))
        except ConnectionClosed:
            pass

    return handler


def step_of(payload: dict[str, Any]) -> dict[str, Any]:
    assert set(payload) == {"images", "state", "task_description"}
    assert set(payload["images"]) == {"front", "wrist"}
    return {"actions": np.array([1.0 if "right" in payload["task_description"] else -1.0])}


def test_a_model_server_is_measured(tmp_path: Path) -> None:
    with peer(walking(step_of)) as url:
        info = evaluated(f"vla-eval+{url}", tmp_path, "--videos", "0", "--num-worlds", "3")
    assert info["overall"]["pc_success"] == 100.0
    assert info["protocol"]["n_action_steps"] == 1
    assert info["overall"]["decision_ms"]["decisions"] == 36


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"actions": np.zeros((2, 1))}, "answers with an action of shape (2, 1), expected one dimension"),
        ({"actions": np.array([np.nan])}, "answers with actions that are not finite numbers"),
        ({"actions": np.zeros(3)}, "the answer has 3 columns; the world's action has 1: dx (--adapter.columns)"),
        ({"action": np.zeros(1)}, "answers with something other than an action: 'actions' is missing; what came: 'act"),
        (pack("error", {"error": "observation_failed: no GPU"}, 0), "refuses the observation: observation_failed: no"),
        (pack("action", {"actions": np.zeros(1)}, 99_999), "with action 99999"),
        ("text", "a text frame came, expected a binary frame of msgpack"),
    ],
    ids=["two actions", "NaN", "wide", "another key", "an error", "another observation's", "text"],
)
def test_a_wrong_answer_ends_its_own_episode_by_name_and_no_other(answer: Any, message: str, tmp_path: Path) -> None:
    def sometimes(payload: dict[str, Any]) -> Any:
        return answer if payload["task_description"] == "go left, number 1000003" else step_of(payload)

    with peer(walking(sometimes)) as url:
        info = evaluated(f"vla-eval+{url}", tmp_path, "--videos", "0", "--num-worlds", "3")
    ((id_, why),) = [(id_, why) for id_, why in failures(info).items() if why is not None]
    assert id_ == "sides/left/train/1000003"
    assert why.startswith("its policy failed: ")
    assert message in why


def test_an_episode_whose_connection_breaks_is_set_aside_and_the_next_begins_anew(tmp_path: Path) -> None:
    broken = threading.Event()

    def handler(connection: ServerConnection) -> None:
        count = 0

        def break_once(payload: dict[str, Any]) -> Any:
            nonlocal count
            count += 1
            if count == 2 and not broken.is_set():
                broken.set()
                connection.close()
            return step_of(payload)

        walking(break_once)(connection)

    with peer(handler) as url:
        info = evaluated(f"vla-eval+{url}", tmp_path, "--videos", "0", "--num-worlds", "1")
    (why,) = [why for why in failures(info).values() if why is not None]
    assert why == f"its policy failed: {url} broke the connection within the episode, which it had begun"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (pack("hello", {"protocol_version": 9}, 0), "answers hello of protocol 9 to a hello of vla-eval's protocol 1"),
        (msgpack.packb({"model": "pi0"}), "does not speak vla-eval's protocol: 'payload' is missing"),
        ("hello", "does not speak vla-eval's protocol: a text frame came"),
    ],
    ids=["another version", "another message", "a text frame"],
)
def test_who_does_not_speak_the_protocol_is_refused_at_once(first: bytes | str, message: str) -> None:
    def handler(connection: ServerConnection) -> None:
        connection.recv()
        connection.send(first)

    began_s = time.monotonic()
    with peer(handler) as url, pytest.raises(ConnectionError, match=message):
        VlaEvalPolicy(url, None, timeout_s=600.0, patience_s=600.0)
    assert time.monotonic() - began_s < 300
