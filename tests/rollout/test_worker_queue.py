"""Which specs a worker is told, and in whose company: without processes, so that the order of events is given."""

from __future__ import annotations

from collections import deque
from typing import cast

from fake_world import fake_spec

from envs.types import EpisodeSpec
from rollout.worker_handle import Remote
from rollout.worker_process import Call
from rollout.worker_queue import WorkerQueue


class Told:
    """What the queue sees of a worker."""

    num_worlds = 2

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self.told: list[EpisodeSpec] = []
        self.expects_more = False

    def tell(self, call: Call) -> None:
        self.calls.append(call)
        self.told.extend(call.specs)
        self.expects_more = call.more_follow


def tell(queue: WorkerQueue) -> Told:
    """Supply a worker that has nothing."""
    worker = Told()
    queue.tell(cast(Remote, worker))
    return worker


def test_a_suspect_stays_alone_though_another_workers_death_refills_the_queue() -> None:
    specs = [fake_spec(s) for s in range(6)]
    queue = WorkerQueue(Call(specs, False, None, None, False), num_workers=2)
    first, other = tell(queue), tell(queue)
    assert (first.told, other.told) == (specs[:3], specs[3:])
    queue.take_back(first.told, running=specs[:2])
    assert tell(queue).told == [specs[2]], "it had not begun"
    alone = tell(queue)
    assert alone.told == [specs[0]]
    queue.take_back(other.told, running=specs[3:5])
    queue.tell(cast(Remote, alone))
    assert alone.told == [specs[0]]
    assert tell(queue).told == [specs[5]]
