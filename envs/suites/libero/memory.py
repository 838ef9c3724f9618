"""What compiling a LIBERO task leaves behind: 1.3 GB, of which 0.2 GB are used again.

MuJoCo keeps decoded meshes and textures of everything that it has compiled, and the last model's specification. Its
functions for the first have no Python interface in 3.3.2, so they are called in the library itself. Newer versions have
others, with which 3.3.7 crashes while it compiles.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
from pathlib import Path

import mujoco

_MADV_DONTNEED = 4


def compile_without_cache() -> None:
    """Keep no decoded meshes and textures from now on, if this MuJoCo can do without: tasks share few of them, and each
    world compiles its own.
    """
    (library,) = Path(mujoco.__file__).parent.glob("libmujoco.so*")
    functions = ctypes.CDLL(str(library))
    if hasattr(functions, "mj_globalCache"):
        functions.mj_globalCache.restype = ctypes.c_void_p
        functions.mj_setCacheSize.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        functions.mj_setCacheSize(functions.mj_globalCache(), 0)


def forget_last_model() -> None:
    """Free the specification of the last compiled model, and give free memory back to the system."""
    mujoco.MjModel.from_xml_string("<mujoco/>")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def forget_textures(model: mujoco.MjModel) -> None:
    """Give the memory of a model's textures back to the system; they read as zeros, and OpenGL has its copy."""
    first, size = model.tex_data.ctypes.data, model.tex_data.nbytes
    begin = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (first + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
