"""ServedPolicy: the interface of a local policy, and reconnection."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from serving import EXECUTE_STEPS, in_process, looked_back, metric, running, served, tiny_policy
from tiny_model import SENTENCES, observe, tiny_processor

from agent.serve.client import ServedPolicy
from agent.serve.link import LimitsConfig
from agent.serve.server import PolicyServer, ServerConfig
from envs.types import Observation
from vla_model.policy import VLAPolicy


def test_a_served_policy_gives_the_actions_of_the_local_one() -> None:
    here = tiny_policy()
    with served() as url, ServedPolicy(url) as policy:
        assert policy.version == 7
        assert policy.metadata["action_horizon"] == 4
        for seed, sentence in enumerate(SENTENCES):
            policy.begin([0], (sentence,), (0,))
            actions = policy.act([0], observe(1, seed, (sentence,))).actions
            assert_array_equal(actions[0], in_process(here, seed, sentence))


def test_observations_of_several_worlds_are_batched() -> None:
    here, observation = tiny_policy(), observe(2, 0)
    worlds, sentences = [0, 2], (SENTENCES[0], SENTENCES[2])
    here.begin(worlds, sentences, (0, 0))
    with served(max_wait_ms=10_000) as url, ServedPolicy(url) as policy:
        policy.begin(worlds, sentences, (0, 0))
        policy.act(worlds, observation)
        assert_allclose(policy.act(worlds, observation).actions, here.act(worlds, observation).actions, atol=0.02)
        assert metric(url, "llamarm_batch_size_sum") / metric(url, "llamarm_batch_size_count") > 1


def test_act_before_begin_is_refused() -> None:
    with served() as url, ServedPolicy(url) as policy, pytest.raises(ValueError, match="call begin first"):
        policy.act([0], observe(1))


@pytest.mark.parametrize("history_length", [0, 2])
def test_after_a_reconnection_the_episode_continues(history_length: int) -> None:
    def make() -> VLAPolicy:
        return tiny_policy(history_length=history_length, history_stride=2)

    def serve_again() -> None:
        with running(PolicyServer(make(), ServerConfig(port=port), EXECUTE_STEPS)):
            answered.wait(timeout=600)

    seeds_and_steps = [(1, 0), (2, 2), (4, 5), (5, 6)]
    seen = [Observation(**(observe(1, seed) | {"step": np.array([step])})) for seed, step in seeds_and_steps]
    answered = threading.Event()
    with served(make()) as url:
        port = urlsplit(url).port or 0
        policy = ServedPolicy(url)
        policy.begin([0], (SENTENCES[0],), (0,))
        for observation in seen[:-1]:
            policy.act([0], observation)
    again = threading.Timer(0.5, serve_again)
    again.start()
    with policy:
        actions = policy.act([0], seen[-1]).actions
    answered.set()
    again.join()
    assert_array_equal(actions[0], looked_back(make(), *seeds_and_steps)[-1])


def test_a_policy_with_a_history_needs_a_step() -> None:
    with served(tiny_policy(history_length=1)) as url, ServedPolicy(url) as policy:
        policy.begin([0], (SENTENCES[0],), (0,))
        with pytest.raises(ValueError, match="an observation needs a 'step'"):
            policy.act([0], observe(1))


def test_after_a_refusal_no_world_gets_an_earlier_answer() -> None:
    here, worlds = tiny_policy(), [0, 1]
    sentences = SENTENCES[:2]
    seen = [observe(2, seed, sentences) for seed in (1, 2)]
    broken = Observation(**(seen[0] | {"state": np.array([[np.nan] * 4, [0.0] * 4], np.float32)}))
    here.begin(worlds, sentences, (0, 0))
    with served() as url, ServedPolicy(url) as policy:
        policy.begin(worlds, sentences, (0, 0))
        with pytest.raises(ValueError, match="refuses the observation"):
            policy.act(worlds, broken)
        assert_allclose(policy.act(worlds, seen[1]).actions, here.act(worlds, seen[1]).actions, atol=0.02)


def test_concurrent_calls_get_their_own_answers() -> None:
    here = tiny_policy()
    with served() as url, ServedPolicy(url) as policy, ThreadPoolExecutor(4) as threads:
        policy.begin([0], (SENTENCES[0],), (0,))
        answers = threads.map(lambda seed: policy.act([0], observe(1, seed)).actions[0], range(12))
        for seed, actions in enumerate(answers):
            assert_allclose(actions, in_process(here, seed), atol=0.02)


def test_close_ends_a_wait_in_another_thread() -> None:
    """The server is down, so the other thread is reconnecting."""
    with served() as url:
        policy = ServedPolicy(url, patience_s=600.0)
    policy.begin([0], (SENTENCES[0],), (0,))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(policy.act, [0], observe(1))
        time.sleep(0.3)
        policy.close()
        with pytest.raises(ConnectionError, match=r"were closed"):
            waiting.result(timeout=60)


def test_a_different_world_is_refused_with_every_difference() -> None:
    spec = tiny_processor().world_spec
    with served() as url, ServedPolicy(url) as policy:
        policy.check(spec)
        other = replace(spec, control_dt_s=0.5, cameras=spec.cameras[1:])
        with pytest.raises(ValueError, match="made for another world") as refused:
            policy.check(other)
    lines = str(refused.value).splitlines()[1:]
    rate, missing = 1.0 / spec.control_dt_s, spec.cameras[0]
    assert lines == [
        f"  control_hz is 2.0, expected {rate}",
        f"  observation/{missing.name} is None, expected {[missing.height, missing.width, 3]}",
    ]


def test_a_proxy_without_its_server_is_retried() -> None:
    """A listener that closes every connection at once, as `ssh -L` does with nothing behind it."""
    with socket.create_server(("127.0.0.1", 0)) as tunnel:
        port = tunnel.getsockname()[1]

        def close_at_once() -> None:
            for _ in range(3):
                tunnel.accept()[0].close()

        closing_thread = threading.Thread(target=close_at_once)
        closing_thread.start()
        with pytest.raises(ConnectionError, match="cannot be reached"):
            ServedPolicy(f"ws://127.0.0.1:{port}", patience_s=0.4)
        while closing_thread.is_alive():
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
            closing_thread.join(0.05)


def test_an_unreachable_server_is_an_error() -> None:
    with served() as url:
        pass
    with pytest.raises(ConnectionError, match=f"{url} cannot be reached: .*refused"):
        ServedPolicy(url, patience_s=0.3)


def test_a_wrong_key_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("right")
    with served(api_key_file=tmp_path / "key") as url:
        with pytest.raises(ConnectionError, match=r"refuses this client: .*401; This server requires"):
            ServedPolicy(url, api_key="wrong")
        with ServedPolicy(url, api_key="right") as policy:
            assert policy.version == 7


def test_a_refusal_has_the_servers_message_and_the_next_observation_is_answered() -> None:
    observation = observe(1, 0, SENTENCES[:1])
    broken = Observation(**(observation | {"state": np.full((1, 4), np.nan, np.float32)}))
    with served() as url, ServedPolicy(url) as policy:
        policy.begin([0], (SENTENCES[0],), (0,))
        with pytest.raises(
            ValueError, match="refuses the observation: the state has numbers that are not finite: x, y"
        ):
            policy.act([0], broken)
        assert_array_equal(policy.act([0], observation).actions[0], in_process(tiny_policy(), 0))


def test_an_oversized_observation_is_an_error_and_not_retried() -> None:
    with served(limits=LimitsConfig(max_message_mb=0.001)) as url, ServedPolicy(url) as policy:
        policy.begin([0], (SENTENCES[0],), (0,))
        with pytest.raises(ValueError, match=r"takes no message of \d+ bytes"):
            policy.act([0], observe(1))
