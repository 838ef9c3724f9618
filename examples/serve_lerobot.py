"""Serve a LeRobot policy by openpi's protocol, so that `llamarm eval ws://HOST:PORT` measures it in our worlds.

The interpreter that has lerobot (tried: 0.4.4) runs this file; of llamarm it imports the wire format alone:

    PYTHONPATH=LLAMARM_REPOSITORY python examples/serve_lerobot.py RUN/checkpoints/last/pretrained_model --port 8001

It needs numpy, msgpack, websockets, Pillow and gymnasium besides. The policy is any PreTrainedPolicy folder with its
saved processors, whose actions depend on one observation and the task's sentence: ACT, SmolVLA, pi0 and others with
n_obs_steps 1.

    observation.images.<camera>, observation.image   from observation/<camera>, observation/image: uint8 [H, W, 3]
    observation.state                                from observation/state
    task                                             from prompt
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
import traceback
from concurrent.futures import Future
from http import HTTPStatus
from pathlib import Path

import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

from agent.serve import openpi, wire

IMAGES = "observation.images."


class LeRobotPolicy:
    """A policy with its processors, which answers the observations that several clients have pending in one batch."""

    def __init__(self, folder: Path, device: str, n_action_steps: int | None, max_wait_ms: float) -> None:
        config = PreTrainedConfig.from_pretrained(folder)
        if config.n_obs_steps != 1:
            raise SystemExit(
                f"{folder}: this {config.type} policy needs {config.n_obs_steps} successive observations "
                "(n_obs_steps), and this server answers each observation by itself"
            )
        config.device = device
        self.policy = get_policy_class(config.type).from_pretrained(folder, config=config).to(device).eval()
        self.pre, self.post = make_pre_post_processors(
            config,
            pretrained_path=str(folder),
            preprocessor_overrides={"device_processor": {"device": device}},
        )
        self.shapes = {self.key_of(name): list(feature.shape) for name, feature in config.input_features.items()}
        self.names = {self.key_of(name): name for name in config.input_features}
        steps = n_action_steps or config.n_action_steps
        (action,) = config.output_features.values()
        self.metadata = {
            "server": "serve_lerobot",
            "policy": config.type,
            "n_action_steps": steps,
            "action_dim": action.shape[0],
            "observation": {
                key: [*shape[1:], shape[0]] if len(shape) == 3 else shape for key, shape in self.shapes.items()
            }
            | {openpi.PROMPT: "a sentence"},
        }
        self.clients = 0
        self.max_wait_s = max_wait_ms / 1000
        self.waiting = queue.Queue()
        threading.Thread(target=self.run, daemon=True).start()

    @staticmethod
    def key_of(name: str) -> str:
        """The request's key of a feature."""
        return openpi.PREFIX + name.removeprefix(IMAGES).removeprefix("observation.")

    def read(self, message: bytes | str) -> dict:
        """An observation of one client, checked: a wrong one must not reach the batch."""
        said = wire.unpack(message)
        read = {"task": wire.text(said, openpi.PROMPT) if openpi.PROMPT in said else ""}
        for key, shape in self.shapes.items():
            value = openpi.array(key, wire.entry(said, key))
            if len(shape) == 3:
                if value.dtype != np.uint8 or list(value.shape) != [*shape[1:], shape[0]]:
                    raise ValueError(f"{key} is {value.dtype} {value.shape}, expected uint8 {(*shape[1:], shape[0])}")
                read[self.names[key]] = torch.from_numpy(value).permute(2, 0, 1).float() / 255
            else:
                if list(value.shape) != shape or not np.isfinite(value).all():
                    raise ValueError(f"{key} has shape {value.shape}, expected {tuple(shape)} finite numbers")
                read[self.names[key]] = torch.from_numpy(value.astype(np.float32))
        return read

    def infer(self, message: bytes | str) -> np.ndarray:
        """Actions [K, D] of one client's observation."""
        answer = Future()
        self.waiting.put((self.read(message), answer))
        return answer.result()

    def run(self) -> None:
        """Answer batches: of all clients, or of those whose observation came within max_wait_ms of the first."""
        while True:
            batch, deadline_s = [self.waiting.get()], time.monotonic() + self.max_wait_s
            while len(batch) < self.clients and (left_s := deadline_s - time.monotonic()) > 0:
                try:
                    batch.append(self.waiting.get(timeout=left_s))
                except queue.Empty:
                    break
            try:
                for (_, answer), actions in zip(batch, self.act([read for read, _ in batch]), strict=True):
                    answer.set_result(actions)
            except Exception as error:  # told to every client of the batch
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)

    @torch.inference_mode()
    def act(self, observations: list[dict]) -> np.ndarray:
        """Actions [n, K, D] of n observations."""
        batch = {name: torch.stack([each[name] for each in observations]) for name in self.names.values()}
        chunk = self.policy.predict_action_chunk(self.pre(batch | {"task": [each["task"] for each in observations]}))
        flat = self.post(chunk.reshape(-1, chunk.shape[-1]))  # [n K, D]
        return flat.reshape(chunk.shape[:2] + flat.shape[-1:]).float().cpu().numpy()

    def handle(self, connection) -> None:
        """One client of openpi's protocol."""
        self.clients += 1
        try:
            connection.send(openpi.pack(self.metadata))
            while True:
                message = connection.recv()
                began_s = time.perf_counter()
                actions = self.infer(message)
                timing = {"infer_ms": 1000 * (time.perf_counter() - began_s)}
                connection.send(openpi.pack({"actions": actions, "server_timing": timing}))
        except ConnectionClosed:
            pass
        except Exception as error:
            traceback.print_exc()
            connection.send(f"{type(error).__name__}: {error}")
            connection.close(1011, "Internal server error. Traceback included in previous frame.")
        finally:
            self.clients -= 1


def health(connection, request):
    """The answer to openpi's health check; None for everything else."""
    return connection.respond(HTTPStatus.OK, "OK\n") if request.path == "/healthz" else None


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-action-steps", type=int, help="actions to execute of each chunk; default: the policy's")
    parser.add_argument("--max-wait-ms", type=float, default=5.0, help="how long a batch waits for other clients")
    args = parser.parse_args()
    policy = LeRobotPolicy(args.folder, args.device, args.n_action_steps, args.max_wait_ms)
    options = {"compression": None, "max_size": None, "ping_timeout": None, "process_request": health}
    with serve(policy.handle, args.host, args.port, **options) as server:
        print(f"ws://{args.host}:{server.socket.getsockname()[1]} serves {args.folder}: {json.dumps(policy.metadata)}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("Stopped.")


if __name__ == "__main__":
    main()
