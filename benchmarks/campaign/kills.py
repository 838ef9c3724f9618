"""The driver repeatedly killed with SIGKILL in collect, train (sft) and improve (ppo), and resumed each time.

A chain is one run that is killed, resumed, killed ... until it comes to its end before its next kill, or has been
killed MOST_PER_CHAIN times and is let alone. What it made must equal what an undisturbed run made, down to the last bit
of weights and curves. A third of the kills come from outside, at a drawn time; the others right before a drawn file
operation of a drawn area (driver.py), so that they also fall into the writing of episodes, checkpoints and small files;
half of those that meet a rename leave the file cut in half.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.campaign.commands import Done, command, finish, made_by, start
from benchmarks.campaign.tally import Tally, Work, compare
from benchmarks.campaign.undisturbed import KINDS, Undisturbed, args_of, undisturbed

MOST_PER_CHAIN = 12
_SHARES = {"collect": 0.3, "train": 0.4, "improve": 0.3}
_FROM_OUTSIDE = 1 / 3
_WHEN = (0.3, 0.8)
"""Shares of an undisturbed command's time: nothing is written before, and a quiet machine may be done after."""


def run(work: Work, size: float) -> Tally:
    """100 kills times the size, at least one of each kind."""
    tally = Tally()
    for kind in KINDS:
        quiet = undisturbed(work, kind)
        wanted, number = max(1, round(100 * size * _SHARES[kind])), 0
        of_kind = Tally()
        # A chain may come to its end before its first kill.
        while (left := wanted - of_kind.counts[f"kills in {kind}"]) > 0 and number < 3 * wanted:
            settings = {"kills": min(left, MOST_PER_CHAIN)}
            do = partial(chain, work, kind, quiet, number, settings["kills"])
            of_kind.add(work.once(f"kills/{kind}-{number:03d}", settings, do))
            number += 1
        tally.add(of_kind)
    return tally


def chain(work: Work, kind: str, quiet: Undisturbed, number: int, most: int) -> Tally:
    """One run, killed up to `most` times, then compared with the undisturbed one."""
    rng, tally = random.Random(f"{kind} {number}"), Tally()
    folder = work.scratch("chain")
    out, note = folder / "out", folder / "note"
    kills = 0
    while True:
        args = again(kind, out, work)
        done = session(args, quiet, out, note, rng) if kills < most else command(args)
        if done.status != -signal.SIGKILL:
            break
        kills += 1
        tally.counts[f"kills in {kind}"] += 1
        tally.counts[f"{kind}: {held(out)}"] += 1
    where = f"{kind}, chain {number} after {kills} kills: "
    if done.status == 0:
        tally.add(compare(quiet.made, made_by(out), where))
        tally.counts[f"{kind} runs compared"] += 1
        tally.counts["results compared"] += len(quiet.made)
        shutil.rmtree(folder)
    else:
        kept = folder.with_name(f"fault-{kind}-{number:03d}")
        shutil.rmtree(kept, ignore_errors=True)
        folder.rename(kept)
        last = note.read_text().strip() if note.exists() else "from outside"
        tally.fault(f"{where}cannot go on ({done.said}); the last kill came before: {last}; the folder is {kept}")
    return tally


def again(kind: str, out: Path, work: Work) -> list[str]:
    """What its user would type to go on."""
    args = args_of(kind, out, work)
    return [*args, "--resume"] if (out / "run.json").exists() else args


def session(args: Sequence[str], quiet: Undisturbed, out: Path, note: Path, rng: random.Random) -> Done:
    """The command from its start to its kill, or to its end where that comes first."""
    note.unlink(missing_ok=True)
    if rng.random() < _FROM_OUTSIDE:
        began_s = time.monotonic()
        process = start(args, subprocess.PIPE)
        try:
            process.wait(rng.uniform(*_WHEN) * quiet.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        return finish(process, began_s)
    areas = sorted(quiet.operations)
    (area,) = rng.choices(areas, [quiet.operations[name] ** 0.5 for name in areas])
    die = ["--die", area, str(rng.randint(1, max(1, quiet.operations[area] // 3)))]
    tear = ["--tear"] if rng.random() < 0.5 else []
    return command(args, ["--below", str(out), "--note", str(note), *die, *tear])


def held(out: Path) -> str:
    """Where a kill fell, by what the folder holds after it."""
    if not out.exists():
        return "killed before anything was written"
    names = Counter(re.sub(r"\d+", "N", path.name) for path in out.rglob("*"))
    temporary = list(out.rglob(".*.new-*"))
    if any(path.is_dir() for path in temporary) or any(name.endswith(".previous") for name in names):
        return "killed within saving a policy or checkpoint"
    if any(name.endswith(".parquet.part") for name in names) or len(list(out.rglob("data/*/*.parquet"))) != len(
        list(out.rglob("meta/episodes/*/*.parquet"))
    ):
        return "killed within writing an episode"
    if temporary:
        return "killed within writing a small file"
    if (out / "eval_info.json").exists():
        return "killed after the evaluation"
    if (out / "checkpoints").exists():
        return "killed between checkpoints"
    return "killed between episodes" if names["info.json"] else "killed before the first episode or checkpoint"
