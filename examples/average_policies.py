"""Average the weights of two policies.

    .venv/bin/python -m examples.average_policies A B OUT --share 0.5

    weights = (1 - share) * weights of A + share * weights of B

For a policy B that was continued from A on other data, the mean often keeps more of what A does than B, and a part of
what B learned (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv 2109.01903). It takes no training,
but an evaluation has to show it. Policies that were trained apart have no such mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from llamarm import UserError, load_policy


def average(before: Path, after: Path, out: Path, share: float) -> None:
    """Write the policy whose weights lie between two policies', with the first's processor.

    Args:
        before: a run or a policy's folder.
        after: that of a policy of the same shape, continued from the first.
        out: a folder to make.
        share: the second's part, 0 to 1.

    Raises:
        UserError: `out` exists, the share is not between 0 and 1, or the two policies have weights of other shapes or
            another normalisation.
    """
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    if not 0.0 <= share <= 1.0:
        raise UserError(f"--share is {share}, expected 0 to 1")
    first, second = load_policy(before, dtype="float32"), load_policy(after, dtype="float32")
    weights, others = first.model.state_dict(), second.model.state_dict()
    shapes, other_shapes = ({name: tuple(value.shape) for name, value in of.items()} for of in (weights, others))
    if shapes != other_shapes:
        name = min(dict(shapes.items() ^ other_shapes.items()))
        raise UserError(
            f"{name} has shape {shapes.get(name)} in {before} and {other_shapes.get(name)} in {after}, "
            f"expected policies of one shape: {after} continued with --init {before}"
        )
    for name, ours in first.processor.normalisations.items():
        theirs = second.processor.normalisations[name]
        if not (np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.std, theirs.std)):
            raise UserError(
                f"{name} is normalised otherwise in {after} than in {before}; continue it with --init {before}"
            )
    first.model.load_state_dict({name: torch.lerp(weights[name], other, share) for name, other in others.items()})
    first.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a run or a policy's folder")
    parser.add_argument("after", type=Path, help="that of a policy that was continued from it")
    parser.add_argument("out", type=Path, help="the folder to make")
    parser.add_argument("--share", type=float, default=0.5, help="the second's part, 0 to 1")
    options = parser.parse_args()
    try:
        average(options.before, options.after, options.out, options.share)
    except UserError as error:
        raise SystemExit(f"average_policies: {error}") from error


if __name__ == "__main__":
    main()
