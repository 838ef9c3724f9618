"""vla-eval's protocol: a client that requests every step gets the chunk's actions one by one."""

from __future__ import annotations

import io
import time
from typing import Any

import msgpack
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image
from serving import in_process, looked_back, served, tiny_policy
from tiny_model import SENTENCES, observe, vector
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from agent.serve.vla_eval import action_spec
from envs.suites.metaworld.sensor import ACTION as METAWORLD
from envs.tabletop.arm import control
from envs.tabletop.arm.panda import PANDA


def array(value: NDArray[Any]) -> dict[str, Any]:
    return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}


def image(value: NDArray[np.uint8], kind: str) -> dict[str, Any]:
    if kind == "array":
        return array(value)
    if kind == "raw":
        return {"__image__": True, "format": "raw"} | {k: v for k, v in array(value).items() if k != "__ndarray__"}
    file = io.BytesIO()
    Image.fromarray(value).save(file, format=kind)
    return {"__image__": True, "format": kind, "data": file.getvalue(), "shape": list(value.shape)}


def seen(seed: int, instruction: str = "lift it", kind: str = "png") -> dict[str, Any]:
    world = observe(1, seed)
    images = {name: image(frames[0], kind) for name, frames in world["frames"].items()}
    return {"images": images, "state": array(world["state"][0]), "task_description": instruction}


def say(connection: Connection, kind: str, payload: dict[str, Any], seq: int) -> None:
    connection.send(msgpack.packb({"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}))


def receive(connection: Connection) -> dict[str, Any]:
    message = msgpack.unpackb(connection.recv(timeout=30))
    assert message.keys() == {"type", "payload", "seq", "timestamp"}
    return message


def act(connection: Connection, observation: dict[str, Any], seq: int) -> NDArray[np.float32]:
    say(connection, "observation", observation, seq)
    reply = receive(connection)
    assert (reply["type"], reply["seq"]) == ("action", seq), reply
    actions = reply["payload"]["actions"]
    assert (actions["__ndarray__"], actions["dtype"], actions["shape"]) == (True, "<f4", [3])
    return np.frombuffer(actions["data"], np.float32)


def test_hello_is_answered_with_the_policys_observation_and_action_specs() -> None:
    with served() as url, connect(url + "/vla-eval") as connection:
        say(connection, "hello", {"harness_version": "0.8.0", "protocol_version": 1}, 1)
        reply = receive(connection)
    assert (reply["type"], reply["seq"]) == ("hello", 1)
    payload = reply["payload"]
    assert payload["protocol_version"] == 1
    assert payload["capabilities"] == {}
    assert payload["observation_params"] == {"send_state": True}
    assert payload["action_spec"] == {
        "action": {"name": "action", "dims": 3, "format": "dx dy gripper", "range": [-1.0, 1.0]}
    }
    assert payload["observation_spec"]["state"] == {"name": "state", "dims": 4, "format": "x y z opening"}
    assert payload["observation_spec"]["front"]["format"] == "rgb_hwc_uint8"


def test_the_action_spec_has_vla_evals_parts() -> None:
    """vla_eval 0.8.0's POSITION_DELTA and GRIPPER_CLOSE_POS, whose formats a benchmark compares."""
    position = {"name": "position", "dims": 3, "format": "delta_xyz", "range": [-1.0, 1.0]}
    rotation = {"name": "rotation", "dims": 3, "format": "axis_angle", "range": [-1.0, 1.0]}
    gripper = {"name": "gripper", "dims": 1, "format": "binary_close_positive", "range": [-1.0, 1.0]}
    assert action_spec(control.action_spec(PANDA)) == {"position": position, "rotation": rotation, "gripper": gripper}
    assert action_spec(METAWORLD) == {"position": position, "gripper": gripper | {"format": "raw"}}
    joints = vector("shoulder", "elbow", "gripper")
    assert list(action_spec(joints)) == ["action"], "joint targets have no such parts"
    assert action_spec(joints)["action"]["format"] == "shoulder elbow gripper"


def test_an_episode_start_clears_the_observation_history() -> None:
    changes = {"history_length": 1, "history_stride": 4}
    here, there = tiny_policy(**changes), tiny_policy(**changes)
    with served(there) as url, connect(url + "/vla-eval") as connection:
        # Of every two observations, the second is not looked at.
        *_, last = [act(connection, seen(seed, SENTENCES[0]), seq) for seq, seed in enumerate((0, 9, 1, 9, 2))]
        assert_array_equal(last, looked_back(here, (0, 0), (1, 2), (2, 4))[-1][0])
        act(connection, seen(9, SENTENCES[0]), 5)
        say(connection, "episode_start", {"task": {"name": "lift"}}, 6)
        first = act(connection, seen(2, SENTENCES[0]), 7)
    assert_array_equal(first, looked_back(here, (2, 0))[0][0])
    assert np.abs(first - last).max() > 1e-5


def test_a_chunk_answers_n_action_steps_observations_and_an_episode_begins_with_a_new_one() -> None:
    here = tiny_policy()
    first, second, third = (in_process(here, seed, "lift it") for seed in (0, 2, 3))
    with served() as url, connect(url + "/vla-eval") as connection:
        say(connection, "episode_start", {"task": {"name": "lift"}}, 1)
        actions = [act(connection, seen(seed), 2 + seed) for seed in range(3)]
        assert_array_equal(actions, [first[0], first[1], second[0]])
        say(connection, "episode_end", {"metrics": {"success": True}, "steps": 3, "elapsed_sec": 0.1}, 5)
        say(connection, "episode_start", {"task": {"name": "lift"}}, 6)
        assert_array_equal(act(connection, seen(3), 7), third[0])


def test_another_instruction_ends_a_chunk() -> None:
    with served() as url, connect(url + "/vla-eval") as connection:
        act(connection, seen(0, "lift it"), 1)
        assert_array_equal(act(connection, seen(1, "push it"), 2), in_process(tiny_policy(), 1, "push it")[0])


@pytest.mark.parametrize("kind", ["array", "raw", "png"])
def test_images_without_loss_give_the_same_actions(kind: str) -> None:
    with served() as url, connect(url + "/vla-eval") as connection:
        assert_array_equal(act(connection, seen(0, kind=kind), 1), in_process(tiny_policy(), 0, "lift it")[0])


def test_jpeg_images_are_accepted() -> None:
    with served() as url, connect(url + "/vla-eval") as connection:
        action = act(connection, seen(0, kind="jpeg"), 1)
    assert_array_equal(np.abs(action) <= 1.0, [True] * 3)


def test_an_error_has_the_seq_of_its_message_and_the_connection_stays_open() -> None:
    small = seen(0)
    small["images"]["wrist"] = image(np.zeros((8, 8, 3), np.uint8), "png")
    blind = seen(0)
    del blind["images"]["front"]
    wrong = {
        3: ("observation", small, "observation_failed: 'wrist' is RGB of 8x8 pixels, expected RGB of 16x16"),
        4: ("observation", blind, "observation_failed: 'front' is missing; what came: 'wrist'"),
        5: ("observation", seen(0) | {"state": [0.0] * 4}, "observation_failed: 'state' is list, expected an array"),
        6: ("obsevration", {}, "obsevration_failed: type 'obsevration' does not exist; types: hello, observation"),
    }
    with served() as url, connect(url + "/vla-eval") as connection:
        for seq, (kind, payload, text) in wrong.items():
            say(connection, kind, payload, seq)
            reply = receive(connection)
            assert (reply["type"], reply["seq"]) == ("error", seq)
            assert reply["payload"]["error"].startswith(text)
        connection.send(b"\xc1")
        reply = receive(connection)
        assert (reply["type"], reply["seq"]) == ("error", 0)
        act(connection, seen(0), 9)
