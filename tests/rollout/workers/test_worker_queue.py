"""Which specs a worker gets, and together with which: without processes, so that the order of events is fixed."""

from __future__ import annotations

from collections import deque
from typing import cast

from fake_world import fake_spec

from envs.types import EpisodeSpec
from rollout.workers.handle import Remote
from rollout.workers.process import Call
from rollout.workers.queue import WorkerQueue


class FakeRemote:
    """What the queue sees of a worker."""

    def __init__(self, num_worlds: int = 2, *, ready: bool = True) -> None:
        self.name = f"worker {id(self)}"
        self.num_worlds = num_worlds
        self.info = object() if ready else None
        self.calls: deque[Call] = deque()
        self.assigned: list[EpisodeSpec] = []
        self.expects_more = False

    def submit(self, call: Call) -> None:
        self.calls.append(call)
        self.assigned.extend(call.specs)
        self.expects_more = call.more_follow

    @property
    def blocks(self) -> list[int]:
        return [len(call.specs) for call in self.calls if call.specs]


def a_queue(specs: list[EpisodeSpec]) -> WorkerQueue:
    return WorkerQueue(Call(specs, False, None, None, False))


def dispatch(queue: WorkerQueue, *workers: FakeRemote) -> None:
    queue.dispatch(cast("list[Remote]", list(workers)))


def blocks(num_specs: int, *workers: FakeRemote) -> list[list[int]]:
    """Sizes of what each is told at first."""
    dispatch(a_queue([fake_spec(s) for s in range(num_specs)]), *workers)
    return [worker.blocks for worker in workers]


def test_all_worlds_of_a_worker_get_specs_while_enough_are_left() -> None:
    assert blocks(128, FakeRemote(64)) == [[64, 64]]
    assert blocks(256, FakeRemote(64), FakeRemote(64)) == [[64, 64], [64, 64]]
    assert blocks(1000, FakeRemote(64), FakeRemote(64)) == [[64, 64], [64, 64]]


def test_the_last_specs_are_shared_among_workers() -> None:
    assert blocks(120, FakeRemote(32), FakeRemote(32)) == [[32, 28], [32, 28]]
    assert blocks(100, FakeRemote(64), FakeRemote(64)) == [[50], [50]]
    assert blocks(1, FakeRemote(64), FakeRemote(64)) == [[1], []]


def test_specs_are_kept_for_a_worker_that_is_still_starting() -> None:
    first, second = FakeRemote(32), FakeRemote(32, ready=False)
    queue = a_queue([fake_spec(s) for s in range(120)])
    dispatch(queue, first, second)
    assert (first.blocks, second.blocks) == ([32, 28], [])
    second.info = object()
    dispatch(queue, first, second)
    assert second.blocks == [32, 28]


def test_a_worker_continues_if_another_never_starts() -> None:
    worker, never = FakeRemote(2), FakeRemote(2, ready=False)
    queue = a_queue(specs := [fake_spec(s) for s in range(9)])
    for _ in specs:
        dispatch(queue, worker, never)
        worker.calls.clear()
    assert sorted(worker.assigned) == specs


def test_each_worker_gets_neighbours_and_then_the_later_half_of_what_waits_for_another() -> None:
    first, second = FakeRemote(1), FakeRemote(1)
    queue = a_queue(specs := [fake_spec(s) for s in range(16)])
    dispatch(queue, first, second)
    assert (first.assigned, second.assigned) == (specs[:2], specs[8:10])
    for _ in range(6):
        first.calls.popleft()
        dispatch(queue, first, second)
    assert first.assigned == specs[:8], "its own half"
    first.calls.popleft()
    dispatch(queue, first, second)
    assert first.assigned == [*specs[:8], specs[13]], "of specs 10 to 15, which wait for the second"
    second.calls.popleft()
    dispatch(queue, first, second)
    assert second.assigned == specs[8:11]


def test_a_suspect_runs_alone_even_if_another_workers_death_refills_the_queue() -> None:
    specs = [fake_spec(s) for s in range(6)]
    queue = a_queue(specs)
    first, other = FakeRemote(), FakeRemote()
    dispatch(queue, first, other)
    assert (first.assigned, other.assigned) == (specs[:3], specs[3:])
    queue.requeue(first.assigned, running=specs[:2])
    dispatch(queue, second := FakeRemote(), other)
    assert second.assigned == [specs[2]], "it had not begun"
    dispatch(queue, alone := FakeRemote(), other)
    assert alone.assigned == [specs[0]]
    queue.requeue(other.assigned, running=specs[3:5])
    dispatch(queue, alone)
    assert alone.assigned == [specs[0]]
    dispatch(queue, alone, third := FakeRemote())
    assert third.assigned == [specs[5]]
