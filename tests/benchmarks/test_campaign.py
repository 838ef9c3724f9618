"""The campaign in its smallest form, and that its detector detects."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.campaign import disk, episodes, kills, serve, together
from benchmarks.campaign.__main__ import document, status, table
from benchmarks.campaign.commands import REFUSED, Done, collect_args, command, episodes_of
from benchmarks.campaign.hostile import MUST_FAIL, hostile, observation_of, vla_eval_request
from benchmarks.campaign.sides import SPEC, SidesWorld
from benchmarks.campaign.tally import Tally, Work, compare, digest, trajectory_digest
from benchmarks.campaign.undisturbed import undisturbed
from benchmarks.untrained import untrained
from rollout.collect import collect
from vla_model.weights.checkpoint import save_policy


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("campaign"))


@pytest.fixture(scope="module", autouse=True)
def ray_ends_with_the_tests() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


def faults(tally: Tally) -> tuple[int, int, int]:
    return tally.lost, tally.twice, tally.wrong


def test_what_is_lost_twice_wrong_or_unknown_is_counted_and_named() -> None:
    tally = compare({"a": "1", "b": "2", "c": "3"}, [("a", "1"), ("b", "9"), ("a", "1"), ("a", "1"), ("d", "4")])
    assert faults(tally) == (1, 2, 2)
    assert sorted(tally.notes) == [
        "a came 3 times",
        "b is wrong",
        "c is lost",
        "d is unknown to the undisturbed run",
    ]
    assert faults(compare({"a": "1"}, [("a", "1")])) == (0, 0, 0)


def test_a_planted_duplicate_and_a_changed_bit_of_an_episode_are_found() -> None:
    world, specs = SidesWorld(2), episodes.specs_of(0, 4)
    expert = episodes.make_expert(world)
    ran = {t.spec.id: t for t in collect(expert, world, specs, all_frames=True)}
    expected = {name: trajectory_digest(t) for name, t in ran.items()}
    first, second, third, last = ran.values()
    second.reward[-1] = np.nextafter(second.reward[-1], np.float32(9))
    third.frames["wrist"][0, 0, 0, 0] ^= 1
    found = [(t.spec.id, trajectory_digest(t)) for t in (first, second, third, third)]
    assert faults(compare(expected, found)) == (1, 1, 3), "the last is lost, the third came twice and is wrong twice"
    assert status([Tally(), compare(expected, found)]) == 1
    assert status([Tally(), compare(expected, expected.items())]) == 0
    assert last.spec.id in compare(expected, found).notes[-2]


def test_digests_tell_types_and_shapes_apart() -> None:
    values = (np.zeros(4, np.float32), np.zeros(4, np.int32), np.zeros((2, 2), np.float32), b"", "", 0, None)
    assert len({digest(value) for value in values}) == len(values)


def test_a_piece_is_done_once_and_again_with_other_settings(tmp_path: Path) -> None:
    done: list[int] = []

    def do() -> Tally:
        done.append(0)
        return Tally(lost=1, counts=Counter(kills=3), notes=["a is lost"])

    for count in (5, 5, 6):
        tally = Work(tmp_path).once("kills/0", {"count": count}, do)
        assert (tally.lost, tally.counts["kills"], tally.notes) == (1, 3, ["a is lost"])
    assert len(done) == 2
    assert json.loads((tmp_path / "kills/0.json").read_text())["settings"] == {"count": 6}
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "run.json").write_text("{}")
    assert len(Work(tmp_path).commits()) == 1


def test_episodes_through_disturbed_workers_are_all_there_once_and_right() -> None:
    tally = episodes.piece(0, 24)
    assert faults(tally) == (0, 0, 0), tally.notes
    assert tally.counts["episodes"] == 24
    assert sum(tally.counts[kind] for kind in episodes.DISTURBANCES) >= 1


def test_a_collection_that_is_killed_makes_what_an_undisturbed_one_makes(work: Work) -> None:
    tally = kills.chain(work, "collect", undisturbed(work, "collect"), number=0, most=2)
    assert faults(tally) == (0, 0, 0), tally.notes
    # Where the second is one from outside, it may come after the end.
    assert 1 <= tally.counts["kills in collect"] <= 2
    assert tally.counts["collect runs compared"] == 1


def test_an_episode_planted_in_a_dataset_is_found(work: Work, tmp_path: Path) -> None:
    quiet = undisturbed(work, "collect")
    assert command(collect_args(tmp_path / "fewer", 39)).status == 0
    tally = compare(quiet.made, episodes_of(tmp_path / "fewer"))
    assert tally.lost >= 2, "the fortieth episode of either task"
    assert "totals is wrong" in tally.notes


def test_a_collection_on_a_full_disk_says_so_in_one_line_and_goes_on_with_room(work: Work) -> None:
    tally = disk.runs(work, "collect", 0.5)
    assert faults(tally) == (0, 0, 0), tally.notes
    assert tally.counts["reported in one line"] == 1
    assert tally.counts["episodes finished before the disk was full"] >= 1
    assert tally.counts["results compared"] == len(undisturbed(work, "collect").made)


def test_a_reason_is_one_line_beside_what_was_said_of_the_work() -> None:
    reason, ahead = "llamarm: no space left; make room\n", "llamarm collect: 4 demonstrations of 2 tasks\n"
    judged = {
        reason: (True, True),
        ahead + "demonstrations 1/4\n" + reason: (True, False),
        ahead: (False, False),
        reason + reason: (False, False),
        f"Traceback (most recent call last):\n{reason}": (False, False),
    }
    found = {said: Done(REFUSED, said, 1.0) for said in judged}
    assert {said: (done.one_line, done.refused_at_once) for said, done in found.items()} == judged
    assert not Done(0, reason, 1.0).one_line


def test_one_of_two_collections_at_once_proceeds(work: Work) -> None:
    tally = together.at_once(work, "collect", 0)
    assert faults(tally) == (0, 0, 0), tally.notes
    assert tally.counts["exactly one proceeded"] == 1


def test_hostile_messages_are_refused_and_right_ones_answered(work: Work, tmp_path: Path) -> None:
    save_policy(tmp_path / "policy", *untrained(SPEC))
    tally = serve.piece(work, tmp_path / "policy", 0, 900)
    assert faults(tally) == (0, 0, 0), tally.notes
    assert tally.counts["messages"] == 900
    assert tally.counts["right answers"] == tally.counts["right requests"] >= 1
    assert tally.counts["right answers to the robot"] >= 1


def test_the_same_seed_sends_the_same_messages() -> None:
    request = observation_of(np.random.default_rng(0))
    drawn = [[hostile(rng, vla_eval_request(request, 7)) for _ in range(300)] for rng in map(random.Random, (0, 0, 1))]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sum(message.fate == MUST_FAIL for message in drawn[0]) > 200


def test_the_table_shows_each_part_s_faults(tmp_path: Path) -> None:
    tally = Tally(lost=1, twice=2, wrong=3, counts=Counter({"episodes": 10_000, "killed": 5}), notes=["x is lost"])
    assert table({"episodes": tally})[-1] == (
        "| episodes | episodes through Ray workers of which one is killed, stopped or starved every few seconds "
        "| 10,000 episodes | 1 | 2 | 3 |"
    )
    lines = document({"episodes": tally}, Work(tmp_path))
    assert "| killed | 5 |" in lines
    assert "- x is lost" in lines


def test_memory_that_grows_is_a_fault_and_memory_that_is_flat_is_none() -> None:
    flat, grown = Tally(), Tally()
    serve.judge_memory([100.0] * 100, 50_000, 30.0, flat)
    serve.judge_memory([100.0 + n for n in range(100)], 50_000, 30.0, grown)
    assert (flat.wrong, grown.wrong) == (0, 1)
    # Half of 50,000 messages over 50 samples that rise by 49 MB: 25,000 of them, so 196 MB for 100,000.
    assert grown.notes[0] == (
        "memory of a server over 50000 messages in 30 s: 114.5 MB to 194.5 MB, "
        "+196.00 MB per 100,000 messages in its second half"
    )
