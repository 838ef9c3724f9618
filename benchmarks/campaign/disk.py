"""A disk that becomes full during collect, train, eval and a drive's recording, and is freed afterwards.

The disk is a small tmpfs, mounted for the purpose; where that is not permitted, no file may grow beyond a limit
(RLIMIT_FSIZE), which fails in the same calls with another error number. Each command meets a disk of several shares of
what it needs, so that it runs out of it at several places. It must say so in one line; what was finished is still
there; with room again the same command goes on, to the result of an undisturbed run.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.campaign.commands import (
    command,
    drive_args,
    episodes_of,
    eval_args,
    evaluation_of,
    made_by,
    size_of,
)
from benchmarks.campaign.kills import again
from benchmarks.campaign.tally import Tally, Work, compare
from benchmarks.campaign.undisturbed import args_of, undisturbed

SHARES = (0.15, 0.35, 0.55, 0.75, 0.95)
"""Of what a command needs; a small campaign takes the middle one."""
_ROOM = 1 << 30
_PAGE = 4096


class Disk:
    """A folder that holds so many bytes."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.mounted = _mount(root, size)
        self._size = size

    @property
    def limits(self) -> list[str]:
        """The driver's options under which a command meets its end."""
        return [] if self.mounted else ["--most", str(max(_PAGE, self._size // 50))]

    def make_room(self) -> None:
        """From now on nothing fills it."""
        if self.mounted:
            subprocess.run(["mount", "-o", f"remount,size={_ROOM}", self.root], check=True)


@contextmanager
def disk(root: Path, size: int) -> Iterator[Disk]:
    """One that is gone at the end."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    made = Disk(root, size)
    try:
        yield made
    finally:
        if made.mounted:
            # Lazily: a killed command's processes may take a moment to close their files.
            subprocess.run(["umount", "--lazy", root], check=True)
        shutil.rmtree(root, ignore_errors=True)


def _mount(root: Path, size: int) -> bool:
    whole = -(-size // _PAGE) * _PAGE
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={whole}", "none", root], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def run(work: Work, size: float) -> Tally:
    """Every command with every share, from a tenth of the full size on; below, with one share."""
    tally = Tally()
    for share in SHARES if size >= 0.1 else SHARES[2:3]:
        for name, do in (
            ("collect", partial(runs, work, "collect", share)),
            ("train", partial(runs, work, "train", share)),
            ("improve", partial(runs, work, "improve", share)),
            ("eval", partial(evaluates, work, share)),
            ("drive", partial(drives, work, share)),
        ):
            tally.add(work.once(f"disk/{name}-{share:.2f}", {}, do))
    return tally


def runs(work: Work, kind: str, share: float) -> Tally:
    """collect, train or improve."""
    tally, quiet = Tally(), undisturbed(work, kind)
    where = f"{kind}, disk of {share:.0%}: "
    with disk(work.root / "scratch" / "disk", round(share * size_of(quiet.root))) as full:
        out = full.root / "out"
        _fill(args_of(kind, out, work), full, where, tally)
        finished = [pair for pair in episodes_of(out) if pair[0].startswith("episode ")]
        expected = {name: quiet.made.get(name, "") for name, _ in finished}
        tally.counts["episodes finished before the disk was full"] += len(finished)
        tally.add(compare(expected, finished, where))
        full.make_room()
        done = command(again(kind, out, work))
        if done.status != 0:
            tally.fault(f"{where}cannot go on with room again, {done.said}")
        else:
            tally.add(compare(quiet.made, made_by(out), where))
            tally.counts["results compared"] += len(quiet.made)
    return tally


def _fill(args: Sequence[str], full: Disk, where: str, tally: Tally) -> None:
    """Run out of disk."""
    done = command(args, full.limits)
    tally.counts["disks filled" if full.mounted else "disks filled (files limited: a tmpfs may not be mounted)"] += 1
    if done.status == 0:
        tally.counts["commands that had room enough"] += 1
    elif not done.one_line:
        tally.fault(f"{where}not reported in one line, {done.said}")
    else:
        tally.counts["reported in one line"] += 1


def evaluates(work: Work, share: float) -> Tally:
    """eval, into a folder that holds an earlier evaluation of the same."""
    tally, where = Tally(), f"eval, disk of {share:.0%}: "
    policy, quiet = undisturbed(work, "train").root, work.scratch("evaluated")
    if (done := command(eval_args(policy, quiet))).status != 0:
        tally.fault(f"{where}fails undisturbed, {done.said}")
        return tally
    expected = dict(evaluation_of(quiet / "eval_info.json", "evaluated"))
    with disk(work.root / "scratch" / "disk", round(share * size_of(quiet))) as full:
        out = full.root / "out"
        _fill(eval_args(policy, out), full, where, tally)
        full.make_room()
        if (done := command(eval_args(policy, out))).status != 0:
            tally.fault(f"{where}cannot be repeated with room again, {done.said}")
        tally.add(compare(expected, evaluation_of(out / "eval_info.json", "evaluated"), where))
        tally.counts["results compared"] += len(expected)
    return tally


def drives(work: Work, share: float) -> Tally:
    """A drive's recording, into a dataset that holds one drive already; its time is real, so no two are the same."""
    tally, where = Tally(), f"drive, disk of {share:.0%}: "
    policy, first = undisturbed(work, "train").root, work.scratch("driven") / "drives"
    if (done := command(drive_args(policy, first))).status != 0:
        tally.fault(f"{where}fails undisturbed, {done.said}")
        return tally
    kept = {name: value for name, value in episodes_of(first) if name.startswith("episode ")}
    with disk(work.root / "scratch" / "disk", round((1 + share / 2) * size_of(first))) as full:
        record = full.root / "drives"
        shutil.copytree(first, record)
        _fill(drive_args(policy, record), full, where, tally)
        full.make_room()
        if (done := command(drive_args(policy, record))).status != 0:
            tally.fault(f"{where}cannot record with room again, {done.said}")
        found = [(name, value) for name, value in episodes_of(record) if name.startswith("episode ")]
        tally.add(compare(kept, [pair for pair in found if pair[0] in kept], where))
        tally.counts["drives compared"] += len(kept)
        if len(found) < len(kept) + 1:
            tally.lost += 1
            tally.notes.append(f"{where}the drive with room again is lost")
    return tally
