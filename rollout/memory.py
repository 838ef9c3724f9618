"""How much memory this process has held; what workers are judged by and what runs record."""

from __future__ import annotations

import platform
import re
import resource
from pathlib import Path


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB (1e9 bytes); its children are other processes."""
    if platform.system() == "Linux":
        # getrusage's figure begins with that of the process which forked this one, so a small child of a large parent
        # looks large for ever.
        peak = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        assert peak is not None, "every Linux process with memory of its own has this line"
        return int(peak[1]) * 1024 / 1e9
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
