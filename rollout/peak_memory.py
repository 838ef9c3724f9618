"""Peak resident memory (RSS) of this process: workers are limited by it, and runs record it."""

from __future__ import annotations

import platform
import re
import resource
from pathlib import Path


def peak_memory_gb() -> float:
    """Peak resident memory of this process in GB (1e9 bytes), without its child processes."""
    if platform.system() == "Linux":
        # getrusage starts from the peak of the process that forked this one: a small child of a large parent would
        # report the parent's peak.
        peak = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert peak is not None, "every Linux process with memory of its own has this line"
        return int(peak[1]) * 1024 / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
