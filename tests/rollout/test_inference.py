"""One process that decides for many workers: the trajectories of local policies, from batches of several workers."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from descendants import descendants
from fake_world import ACTION, WORLD_SPEC, CountingPolicy, FakeWorld, contents, fake_spec
from transformers import LlamaConfig

from envs.types import Observation
from envs.world import World
from rollout.inference import InferenceConfig, InferenceServer
from rollout.types import Trajectory
from rollout.workers.workers import Workers, WorkersConfig
from vla_model.config import VLAConfig
from vla_model.inputs.processor import Processor
from vla_model.model import VLA
from vla_model.policy import VLAPolicy
from vla_model.sizes import sizes_of
from vla_model.types import ActionChunk, Policy

SHARED = WorkersConfig(workers=2, inference=InferenceConfig(max_batch_size=6, max_wait_ms=200))


class BatchingPolicy(CountingPolicy):
    """Decides in any of its worlds, and notes for how many in a file."""

    def __init__(self, log: Path) -> None:
        super().__init__(chunk_size=2)
        self.log = log

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        with self.log.open("a") as file:
            print(len(worlds), file=file)
        return super().act(worlds, observation)

    def forget(self, worlds: Iterable[int]) -> None:
        for world in worlds:
            del self.seeds[world]


def batching(log: Path, _: World) -> BatchingPolicy:
    return BatchingPolicy(log)


def batch_sizes(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


def observe(*steps: int) -> Observation:
    return Observation(
        frames={"front": np.zeros((len(steps), 2, 2, 3), np.uint8)},
        state=np.array([[step, 0] for step in steps], np.float32),
        instruction=("count",) * len(steps),
    )


def expected(*seeds_and_steps: tuple[int, int]) -> list[list[float]]:
    """First action of each world: 0.01 seed and 0.1 step."""
    return [[0.01 * seed, 0.1 * step, 0.0] for seed, step in seeds_and_steps]


def test_requests_of_all_workers_make_one_batch_and_each_gets_its_own_rows(tmp_path: Path) -> None:
    async def talk() -> None:
        server = InferenceServer(lambda: BatchingPolicy(tmp_path / "log"), InferenceConfig(max_wait_ms=60_000), None)
        await server.begin("a", [0, 1], ("", ""), (3, 4))
        await server.begin("b", [0], ("",), (7,))
        a, b = await asyncio.gather(server.act("a", [0, 1], observe(1, 2)), server.act("b", [0], observe(5)))
        np.testing.assert_allclose(a.actions[:, 0], expected((3, 1), (4, 2)), atol=1e-6)
        np.testing.assert_allclose(b.actions[:, 0], expected((7, 5)), atol=1e-6)
        await server.forget("a")
        await server.begin("c", [4], ("",), (9,))
        b, c = await asyncio.gather(server.act("b", [0], observe(6)), server.act("c", [4], observe(8)))
        np.testing.assert_allclose(b.actions[:, 0], expected((7, 6)), atol=1e-6)
        np.testing.assert_allclose(c.actions[:, 0], expected((9, 8)), atol=1e-6)

    asyncio.run(talk())
    assert batch_sizes(tmp_path / "log") == [3, 2]


def test_a_batch_waits_at_most_max_wait_ms_and_has_at_most_max_batch_size_rows(tmp_path: Path) -> None:
    async def talk() -> None:
        config = InferenceConfig(max_batch_size=2, max_wait_ms=20)
        server = InferenceServer(lambda: BatchingPolicy(tmp_path / "log"), config, None)
        for worker in "abcd":
            await server.begin(worker, [0], ("",), (1,))
        await server.act("a", [0], observe(1))
        await asyncio.gather(*(server.act(worker, [0], observe(2)) for worker in "abc"))

    asyncio.run(talk())
    assert batch_sizes(tmp_path / "log") == [1, 2, 1]


class FailsAtFirst(BatchingPolicy):
    """Raises when it is asked for the first time."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        chunk = super().act(worlds, observation)
        if len(batch_sizes(self.log)) == 1:
            raise ValueError("no such action")
        return chunk


def test_an_error_reaches_only_the_worker_that_caused_it(tmp_path: Path) -> None:
    async def talk() -> None:
        config = InferenceConfig(max_batch_size=2, max_wait_ms=20)
        server = InferenceServer(lambda: FailsAtFirst(tmp_path / "log"), config, None)
        for worker, worlds in (("a", [0]), ("b", [0, 1]), ("idle", [0])):
            await server.begin(worker, worlds, ("",) * len(worlds), (1,) * len(worlds))
        a, b = await asyncio.wait_for(
            asyncio.gather(
                server.act("a", [0], observe(1)), server.act("b", [0, 1], observe(1, 2)), return_exceptions=True
            ),
            timeout=10,
        )
        assert isinstance(a, ValueError)
        assert isinstance(b, ActionChunk)

    asyncio.run(talk())
    assert batch_sizes(tmp_path / "log") == [1, 2]


class PickyPolicy(BatchingPolicy):
    """Refuses what is not finite, as a VLA does."""

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        chunk = super().act(worlds, observation)
        if not np.isfinite(observation["state"]).all():
            raise ValueError("the state has numbers that are not finite")
        return chunk


def test_an_invalid_state_of_one_worker_does_not_affect_the_others_in_its_batch(tmp_path: Path) -> None:
    async def talk() -> None:
        server = InferenceServer(lambda: PickyPolicy(tmp_path / "log"), InferenceConfig(max_wait_ms=60_000), None)
        await server.begin("a", [0], ("",), (3,))
        await server.begin("b", [0], ("",), (7,))
        broken = observe(1)
        broken["state"][0, 1] = np.nan
        a, b = await asyncio.gather(
            server.act("a", [0], broken), server.act("b", [0], observe(5)), return_exceptions=True
        )
        assert isinstance(a, ValueError)
        assert isinstance(b, ActionChunk)
        np.testing.assert_allclose(b.actions[:, 0], expected((7, 5)), rtol=1e-6)

    asyncio.run(talk())
    assert batch_sizes(tmp_path / "log") == [2, 1, 1]


def test_batched_inference_gives_the_trajectories_of_local_policies(tmp_path: Path) -> None:
    specs = [fake_spec(s) for s in range(40)]
    with Workers(partial(FakeWorld, 3), partial(batching, tmp_path / "log"), SHARED) as workers:
        found = contents(workers.collect(specs))
        while max(batch_sizes(tmp_path / "log")) <= 3:  # until the second worker is there too
            assert contents(workers.collect(specs)) == found
        workers.publish(5, {"push": 0.5})
        again = list(workers.collect(specs[:6]))
    assert {t.policy_version for t in again} == {5}
    assert {float(a) for t in again for a in t.action[:, 2]} == {0.5}
    with Workers(partial(FakeWorld, 3), lambda _: CountingPolicy(2), WorkersConfig(workers=0)) as workers:
        assert found == contents(workers.collect(specs))


@pytest.mark.parametrize("victim", ["ray::Collector", "ray::InferenceServer"])
def test_killing_a_worker_or_the_server_loses_no_episode(tmp_path: Path, victim: str) -> None:
    specs = [fake_spec(s) for s in range(40)]

    def disturbed(trajectories: Iterator[Trajectory]) -> Iterator[Trajectory]:
        for count, trajectory in enumerate(trajectories):
            yield trajectory
            if count == 10:
                found = [pid for pid, name in descendants(os.getpid()).items() if name.startswith(victim)]
                os.kill(found[0], signal.SIGKILL)

    with Workers(partial(FakeWorld, 2), partial(batching, tmp_path / "log"), SHARED) as workers:
        workers.publish(5, {"push": 0.5})
        found = contents(disturbed(workers.collect(specs)))
    with Workers(partial(FakeWorld, 2), lambda _: CountingPolicy(2), WorkersConfig(workers=0)) as alone:
        alone.publish(5, {"push": 0.5})
        assert found == contents(alone.collect(specs))
    assert not workers.report.set_aside
    causes = {death.cause for death in workers.report.deaths}
    assert causes == ({"inference"} if "Server" in victim else {"killed"})


def test_a_policy_that_cannot_be_created_raises_an_error() -> None:
    def fail(_: World) -> Policy:
        raise ValueError("no such weights")

    with (
        Workers(partial(FakeWorld, 2), fail, SHARED) as workers,
        pytest.raises(RuntimeError, match="inference process could not create its policy") as caught,
    ):
        list(workers.collect([fake_spec(0)]))
    assert "no such weights" in str(caught.value.__cause__)


def tiny_vla(_: World | None = None, history_length: int = 0) -> VLAPolicy:
    backbone = LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    torch.manual_seed(0)
    config = VLAConfig(
        backbone=backbone,
        chunk_size=2,
        vision_channels=16,
        num_keypoints=6,
        image_token_grid=2,
        expert_size=24,
        history_length=history_length,
        history_stride=2,
        **sizes_of(WORLD_SPEC),
    )
    statistics = {
        "observation.state": {"mean": [0.0, 0.0], "std": [4.0, 1.0]},
        "action": {"mean": [0.0] * ACTION.size, "std": [0.5] * ACTION.size},
        "label.localization": {"mean": [0.0] * 3, "std": [1.0] * 3},
    }
    processor = Processor.from_statistics(WORLD_SPEC, statistics)
    return VLAPolicy(VLA(config).eval(), processor, sample=True, dtype="float32")


@pytest.mark.parametrize("history_length", [0, 2])
def test_a_sampling_vla_acts_the_same_remotely_as_locally(history_length: int) -> None:
    specs = [fake_spec(s) for s in range(12)]
    policy = partial(tiny_vla, history_length=history_length)
    with Workers(partial(FakeWorld, 3), policy, WorkersConfig(workers=0)) as workers:
        alone = {t.spec: t for t in workers.collect(specs)}
    with Workers(partial(FakeWorld, 3), policy, SHARED) as workers:
        shared = {t.spec: t for t in workers.collect(specs)}
    assert alone.keys() == shared.keys()
    for spec, t in alone.items():
        np.testing.assert_allclose(shared[spec].action, t.action, atol=1e-3, err_msg=spec.id)
        assert t.expert_usage is not None
        usage = shared[spec].expert_usage
        assert usage is not None and usage.shape == t.expert_usage.shape
