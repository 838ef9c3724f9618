"""How much memory this process has held; what workers are judged by and what runs record."""

from __future__ import annotations

import platform
import resource


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far, in GB (1e9 bytes); its children are other processes."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
