"""openpi's protocol byte for byte."""

from __future__ import annotations

import re

import msgpack
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from serving import client, in_process, infer, looked_back, page, said, served, tiny_policy
from tiny_model import SENTENCES
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from agent.serve import openpi, wire


def test_an_array_is_packed_as_openpi_packs_it() -> None:
    # fixmap of 4; bin8 keys; then true, bin8 of the data, fixstr "<i2", fixarray of 2
    marker, data, dtype, shape = (
        b"\xc4" + bytes([len(key)]) + key for key in (b"__ndarray__", b"data", b"dtype", b"shape")
    )
    expected = (
        b"\x84" + marker + b"\xc3" + data + b"\xc4\x04\x01\x00\x02\x00" + dtype + b"\xa3<i2" + shape + b"\x92\x02\x01"
    )
    assert openpi.pack(np.array([[1], [2]], "<i2")) == expected
    assert openpi.pack({"x": 1}) == b"\x81\xa1x\x01"


def test_arrays_without_numbers_are_not_packed() -> None:
    for value in (np.array([object()]), np.array([1j])):
        with pytest.raises(ValueError, match="cannot be packed, only numbers can"):
            openpi.pack(value)


@pytest.mark.parametrize("dtype", ["|b1", "|u1", "<i8", ">f4", "<f2"])
def test_a_packed_array_is_unpacked_unchanged(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    read = openpi.array("x", wire.unpack(openpi.pack({"x": array}))["x"])
    assert read.dtype == array.dtype
    assert_array_equal(read, array)


def test_the_server_first_sends_its_metadata() -> None:
    with served() as url, connect(url, open_timeout=None) as connection:
        metadata = msgpack.unpackb(connection.recv(timeout=30))
    assert metadata["observation"] == {
        "observation/front": [32, 48, 3],
        "observation/wrist": [16, 16, 3],
        "observation/state": [4],
        "prompt": "a sentence",
    }
    assert (metadata["action_horizon"], metadata["action_dim"], metadata["n_action_steps"]) == (4, 3, 2)
    assert metadata["control_hz"] == pytest.approx(10.0)
    assert metadata["policy_version"] == 7


def test_actions_are_those_of_the_policy_in_process_bit_for_bit() -> None:
    here = tiny_policy()
    with served() as url, client(url) as connection:
        for seed, sentence in enumerate((*SENTENCES, SENTENCES[0], SENTENCES[0])):
            assert_array_equal(infer(connection, said(seed, sentence)), in_process(here, seed, sentence))


def test_the_observation_history_follows_the_clients_steps_or_the_servers_count() -> None:
    changes = {"history_length": 1, "history_stride": 2}
    here, there = tiny_policy(**changes), tiny_policy(**changes)
    with served(there) as url, client(url) as connection:
        counted = [infer(connection, said(seed)) for seed in range(3)]
        explicit = [
            infer(connection, said(seed) | {"observation/step": step}) for seed, step in ((0, 0), (1, 1), (2, 2))
        ]
        again = infer(connection, said(3) | {"observation/step": 0})
        connection.send(openpi.pack(said(3) | {"observation/step": -1}))
        assert "the step is -1, expected 0 to 1000000000 control steps" in str(connection.recv(timeout=30))
    for actions, expected in zip(counted, looked_back(here, (0, 0), (1, 2), (2, 4)), strict=True):
        assert_array_equal(actions, expected)
    for actions, expected in zip(explicit, looked_back(here, (0, 0), (1, 1), (2, 2)), strict=True):
        assert_array_equal(actions, expected)
    assert np.abs(counted[2] - explicit[2]).max() > 1e-5
    assert_array_equal(again, looked_back(here, (3, 0))[0])


def test_every_array_of_an_answer_has_a_row_per_step_and_times_are_numbers() -> None:
    with served() as url, client(url) as connection:
        for expected in ({"infer_ms"}, {"infer_ms", "prev_total_ms"}):
            connection.send(openpi.pack(said(0)))
            answer = msgpack.unpackb(connection.recv(timeout=30))
            assert answer["actions"][b"shape"] == [4, 3]
            assert answer["actions"][b"dtype"] == "<f4"
            assert answer["server_timing"].keys() == expected
            assert all(time_ms > 0 for part in ("policy_timing", "server_timing") for time_ms in answer[part].values())


def test_an_instruction_is_encoded_once_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, read = tiny_policy(), []
    begin = policy.begin
    monkeypatch.setattr(policy, "begin", lambda worlds, texts, seeds: (read.append(texts), begin(worlds, texts, seeds)))
    with served(policy) as url, client(url) as connection:
        for seed, sentence in enumerate(("lift it", "lift it", "push it", "push it", "lift it")):
            infer(connection, said(seed, sentence))
    assert read == [("lift it",), ("push it",), ("lift it",)]


def test_an_error_is_a_text_frame_and_the_end_of_the_connection() -> None:
    observation = said(0)
    del observation["observation/wrist"]
    with served() as url, client(url) as connection:
        connection.send(openpi.pack(observation))
        assert connection.recv(timeout=30) == (
            "'observation/wrist' is missing; what came: 'observation/front', 'observation/state', 'prompt'"
        )
        with pytest.raises(ConnectionClosedError) as closed:
            connection.recv(timeout=30)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    assert closed.value.rcvd.reason == "Internal server error. Traceback included in previous frame."


def test_a_policys_error_is_sent_without_a_traceback_unless_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    for debug, pattern in (
        (False, r"internal error, which the server's log describes"),
        (True, r"(?s)Traceback.*broken"),
    ):
        policy = tiny_policy()
        monkeypatch.setattr(policy, "act", lambda *_: [].index("broken"))
        with served(policy, debug=debug) as url, client(url) as connection:
            connection.send(openpi.pack(said(0)))
            assert re.match(pattern, str(connection.recv(timeout=30)))


def test_health_checks_of_both_protocols_are_answered() -> None:
    with served() as url:
        assert page(url, "/healthz") == "OK\n"
        assert page(url, "/health") == '{"status": "ok"}\n'
