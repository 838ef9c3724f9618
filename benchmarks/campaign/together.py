"""Two concurrent commands in one folder: exactly one runs, the other is refused in one line, and no file is damaged.

two collects into one dataset, two trains and two improves into one --out, from the beginning
train --resume beside a live run, from its first checkpoint on
collect into the dataset of a live collect, which has episodes already
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.campaign.commands import Done, finish, made_by, start
from benchmarks.campaign.tally import Tally, Work, compare
from benchmarks.campaign.undisturbed import KINDS, Undisturbed, args_of, undisturbed

_APART_S = 0.4
"""At most, two that start at once."""


def run(work: Work, size: float) -> Tally:
    """20 tries of each, times the size."""
    tally = Tally()
    for number in range(max(1, round(20 * size))):
        for kind in KINDS:
            do = partial(at_once, work, kind, number)
            tally.add(work.once(f"together/{kind}-{number:03d}", {}, do))
        for kind, sign in (("train", "out/checkpoints/0*"), ("collect", "out/meta/episodes/*/*.parquet")):
            do = partial(beside, work, kind, sign, number)
            tally.add(work.once(f"together/{kind}-beside-{number:03d}", {}, do))
    return tally


def at_once(work: Work, kind: str, number: int) -> Tally:
    """Two from the beginning."""
    rng, quiet = random.Random(f"{kind} {number}"), undisturbed(work, kind)
    folder = work.scratch("together")
    out = folder / "out"
    args = args_of(kind, out, work)
    both = in_parallel([args, args], lambda: time.sleep(rng.uniform(0.0, _APART_S)))
    return judged(f"two of {kind} at once, try {number}: ", both, quiet, out)


def beside(work: Work, kind: str, sign: str, number: int) -> Tally:
    """One that goes on with what another is doing, as soon as the sign of its work is there."""
    quiet, folder = undisturbed(work, kind), work.scratch("together")
    out = folder / "out"
    args = args_of(kind, out, work)
    resumed = [*args, "--resume"] if kind != "collect" else args

    def wait() -> None:
        deadline_s = time.monotonic() + 120
        while not list(folder.glob(sign)) and time.monotonic() < deadline_s:
            time.sleep(0.02)

    both = in_parallel([args, resumed], wait, holds_first=True)
    return judged(f"{kind} beside a live one, try {number}: ", both, quiet, out)


def in_parallel(
    commands: Sequence[Sequence[str]], wait: Callable[[], None], *, holds_first: bool = False
) -> list[Done]:
    """Start two commands, `wait` between their starts; both run to their ends.

    Args:
        commands: the two.
        wait: returns when the second is to start.
        holds_first: stop the first (SIGSTOP) until the second has ended: on a busy machine the second would need longer
            to start than the first to finish.
    """
    done: dict[int, Done] = {}

    def follow(number: int, process: subprocess.Popen[str], began_s: float) -> None:
        done[number] = finish(process, began_s)

    processes, threads = [], []
    for number, args in enumerate(commands):
        if number:
            wait()
            if holds_first:
                processes[0].send_signal(signal.SIGSTOP)
        began_s = time.monotonic()
        processes.append(start(args, subprocess.PIPE))
        threads.append(threading.Thread(target=follow, args=(number, processes[-1], began_s)))
        threads[-1].start()
    threads[1].join()
    processes[0].send_signal(signal.SIGCONT)
    threads[0].join()
    return [done[number] for number in sorted(done)]


def judged(where: str, both: Sequence[Done], quiet: Undisturbed, out: Path) -> Tally:
    """Exactly one proceeded, the other said why not, and the result is an undisturbed run's."""
    tally = Tally()
    tally.counts["tries"] += 1
    proceeded = [done for done in both if done.status == 0]
    refused = [done for done in both if done.refused_at_once]
    tally.counts["exactly one proceeded"] += len(proceeded) == 1
    tally.counts["the other was refused in one line"] += len(refused) == 1
    if (len(proceeded), len(refused)) != (1, 1):
        tally.fault(f"{where}{len(proceeded)} proceeded, {len(refused)} were refused in one line: " + _said(both))
    if proceeded:
        tally.add(compare(quiet.made, made_by(out), where))
        tally.counts["results compared"] += len(quiet.made)
    shutil.rmtree(out.parent)
    return tally


def _said(both: Sequence[Done]) -> str:
    return "; ".join(done.said for done in both)
