"""Which specs a worker is told, and in whose company: without processes, so that the order of events is given."""

from __future__ import annotations

from collections import deque
from typing import cast

from fake_world import fake_spec

from envs.types import EpisodeSpec
from rollout.workers.handle import Remote
from rollout.workers.process import Call
from rollout.workers.queue import WorkerQueue


class Told:
    """What the queue sees of a worker."""

    def __init__(self, num_worlds: int = 2, *, ready: bool = True) -> None:
        self.num_worlds = num_worlds
        self.hello = object() if ready else None
        self.calls: deque[Call] = deque()
        self.told: list[EpisodeSpec] = []
        self.expects_more = False

    def tell(self, call: Call) -> None:
        self.calls.append(call)
        self.told.extend(call.specs)
        self.expects_more = call.more_follow

    @property
    def blocks(self) -> list[int]:
        return [len(call.specs) for call in self.calls if call.specs]


def a_queue(specs: list[EpisodeSpec]) -> WorkerQueue:
    return WorkerQueue(Call(specs, False, None, None, False))


def tell(queue: WorkerQueue, *workers: Told) -> None:
    queue.tell(cast("list[Remote]", list(workers)))


def blocks(num_specs: int, *workers: Told) -> list[list[int]]:
    """Sizes of what each is told at first."""
    tell(a_queue([fake_spec(s) for s in range(num_specs)]), *workers)
    return [worker.blocks for worker in workers]


def test_worlds_begin_together_as_long_as_there_is_enough_for_all() -> None:
    assert blocks(128, Told(64)) == [[64, 64]]
    assert blocks(256, Told(64), Told(64)) == [[64, 64], [64, 64]]
    assert blocks(1000, Told(64), Told(64)) == [[64, 64], [64, 64]]


def test_what_is_left_is_shared() -> None:
    assert blocks(120, Told(32), Told(32)) == [[32, 28], [32, 28]]
    assert blocks(100, Told(64), Told(64)) == [[50], [50]]
    assert blocks(1, Told(64), Told(64)) == [[1], []]


def test_a_worker_that_still_starts_finds_what_it_can_begin_at_once() -> None:
    first, second = Told(32), Told(32, ready=False)
    queue = a_queue([fake_spec(s) for s in range(120)])
    tell(queue, first, second)
    assert (first.blocks, second.blocks) == ([32, 28], [])
    second.hello = object()
    tell(queue, first, second)
    assert second.blocks == [32, 28]


def test_a_worker_goes_on_though_another_never_starts() -> None:
    worker, never = Told(2), Told(2, ready=False)
    queue = a_queue(specs := [fake_spec(s) for s in range(9)])
    for _ in specs:
        tell(queue, worker, never)
        worker.calls.clear()
    assert worker.told == specs


def test_a_suspect_stays_alone_though_another_workers_death_refills_the_queue() -> None:
    specs = [fake_spec(s) for s in range(6)]
    queue = a_queue(specs)
    first, other = Told(), Told()
    tell(queue, first, other)
    assert (first.told, other.told) == (specs[:3], specs[3:])
    queue.take_back(first.told, running=specs[:2])
    tell(queue, second := Told(), other)
    assert second.told == [specs[2]], "it had not begun"
    tell(queue, alone := Told(), other)
    assert alone.told == [specs[0]]
    queue.take_back(other.told, running=specs[3:5])
    tell(queue, alone)
    assert alone.told == [specs[0]]
    tell(queue, alone, third := Told())
    assert third.told == [specs[5]]
