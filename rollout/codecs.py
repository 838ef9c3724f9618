"""`python -m rollout.codecs` writes and reads a video in each codec, and prints those with which it can."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import av
import numpy as np

from rollout.dataset.frames import encode_video
from rollout.dataset.schema import VideoCodec

READ_ONLY = ("hevc", "vp9", "mpeg4")
"""Codecs of other programs' recordings."""
NUM_FRAMES = 3


def writes_and_reads(codec: VideoCodec, folder: Path) -> bool:
    """Whether a video in that codec has as many frames when it is read."""
    path = folder / f"{codec}.mp4"
    frames = np.full((NUM_FRAMES, 64, 64, 3), 128, np.uint8)
    try:
        encode_video(path, frames, 10.0, codec)
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0)) == NUM_FRAMES
    except (av.error.FFmpegError, ValueError):  # of a codec that PyAV was built without, or that fails here
        return False


def reads(codec: str) -> bool:
    """Whether PyAV has a decoder of that name."""
    try:
        av.codec.Codec(codec, "r")
    except ValueError:
        return False
    return True


def main() -> None:
    """Print the line.

    Raises:
        SystemExit: a codec of datasets does not work.
    """
    with tempfile.TemporaryDirectory() as folder:
        works = {codec: writes_and_reads(codec, Path(folder)) for codec in get_args(VideoCodec)}
    for codec in (codec for codec, does in works.items() if not does):
        sys.exit(f"PyAV {version('av')} cannot write and read {codec}")
    decoders = ", ".join(codec for codec in READ_ONLY if reads(codec))
    print(f"PyAV {version('av')} writes and reads {', '.join(works)}" + (f"; reads {decoders}" if decoders else ""))


if __name__ == "__main__":
    main()
