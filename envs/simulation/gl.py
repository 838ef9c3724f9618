"""Headless OpenGL: selects the MuJoCo backend that works on this machine and creates contexts with it.

The system's libraries are probed directly, in about 15 ms and without importing MuJoCo: MuJoCo reads MUJOCO_GL once, at
its first import, and the backend cannot be changed afterwards if it turns out to be missing. `gl_context` uses the
chosen backend's own class, so it does not depend on where MuJoCo was first imported.

EGL is preferred to OSMesa: it can use a GPU, Mesa's software rasterizer is as fast through either, and newer
distributions no longer ship OSMesa.

`python -m envs.simulation.gl` renders one frame and prints the backend and what draws with it, or what to install.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from envs.errors import UserError

APT_PACKAGES = ("libegl1", "libopengl0", "libgl1-mesa-dri")
"""Debian and Ubuntu packages for software rendering: EGL's loader, desktop OpenGL, Mesa's drivers."""

_GL_RENDERER = 0x1F01
_EGL_PLATFORM_DEVICE_EXT = 0x313F
_EGL_CONFIG = (0x3033, 0x0001, 0x3040, 0x0008, 0x3038)  # surface type: pbuffer, renderable type: OpenGL, end


def choose_backend() -> str:
    """Set MUJOCO_GL to the backend that works here, unless the user has set it, and return its name.

    LP_NUM_THREADS, if unset, becomes 0: Mesa's software rasterizer then renders in the calling thread and starts no
    threads of its own. For frames of 128 x 128 pixels this is 20 % faster with identical pixels, with one renderer and
    with one per core.

    Raises:
        RuntimeError: neither EGL nor OSMesa works; the message is the command that installs one.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if chosen := os.environ.get("MUJOCO_GL", "").strip().lower():
        return chosen
    if sys.platform != "linux":
        backend = "cgl" if sys.platform == "darwin" else "glfw"
    elif _egl_works():
        backend = "egl"
    elif _load("libOSMesa.so.8", "libOSMesa.so.6") is not None:
        backend = "osmesa"
    else:
        raise RuntimeError(
            "cameras need OpenGL without a display: neither EGL nor OSMesa works on this machine; on Debian or Ubuntu "
            f"install EGL with: sudo apt-get update && sudo apt-get install -y {' '.join(APT_PACKAGES)}"
        )
    os.environ["MUJOCO_GL"] = backend
    return backend


def gl_context(width: int, height: int) -> Any:
    """A MuJoCo offscreen OpenGL context on the chosen backend, at least width x height pixels.

    It belongs to the thread that calls its `make_current()`; release it with `free()`.

    Raises:
        RuntimeError: see `choose_backend`.
        UserError: MUJOCO_GL names a backend that does not exist.
    """
    backend = choose_backend()
    if backend not in ("egl", "osmesa", "glfw", "cgl"):
        raise UserError(f"MUJOCO_GL is {backend!r}; backends that render: egl, osmesa, glfw, cgl; unset, one is chosen")
    return importlib.import_module(f"mujoco.{backend}").GLContext(width, height)


def _load(*names: str) -> ctypes.CDLL | None:
    """The first of these shared libraries that exists."""
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _egl_works() -> bool:
    """Whether mujoco.egl would initialize: makes the same calls through ctypes."""
    egl = _load("libEGL.so.1")
    if egl is None or _load("libOpenGL.so.0", "libGL.so.1") is None:
        return False
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    egl.eglChooseConfig.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int, ctypes.c_void_p]
    for display in _egl_device_displays(egl):
        if egl.eglInitialize(display, None, None):
            attributes = (ctypes.c_int * len(_EGL_CONFIG))(*_EGL_CONFIG)
            num_configs = ctypes.c_int()
            found = egl.eglChooseConfig(display, attributes, None, 0, ctypes.byref(num_configs))
            return bool(found) and num_configs.value > 0
    return False


def _egl_device_displays(egl: ctypes.CDLL) -> Iterator[int]:
    """Displays of EGL's devices, which need no window system; GPUs come before the software rasterizer."""
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query_address = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query_address or not display_address:
        return
    query = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query_address)
    get_display = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)(display_address)
    count = ctypes.c_int()
    if not query(0, None, ctypes.byref(count)):
        return
    devices = (ctypes.c_void_p * count.value)()
    query(count, devices, ctypes.byref(count))
    for device in devices:
        if display := get_display(_EGL_PLATFORM_DEVICE_EXT, device, None):
            yield display


def _red_frame() -> tuple[np.ndarray, str]:
    """An offscreen buffer filled with red through MuJoCo and read back, uint8 [64, 64, 3], and what drew it: a GPU's
    name, or that of a software rasterizer.
    """
    context = gl_context(64, 64)
    context.make_current()
    import mujoco

    renderer = mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100.value)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, renderer)
    view = mujoco.MjrRect(0, 0, 64, 64)
    mujoco.mjr_rectangle(view, 1.0, 0.0, 0.0, 1.0)
    frame = np.zeros((64, 64, 3), np.uint8)
    mujoco.mjr_readPixels(frame, None, view, renderer)
    drawn_by = _renderer_name()
    renderer.free()
    context.free()
    return frame, drawn_by


def _renderer_name() -> str:
    """OpenGL's name of what draws in the current context; "" where its library has another name."""
    library = _load("libOpenGL.so.0", "libGL.so.1", "libOSMesa.so.8", "libOSMesa.so.6")
    if library is None:
        return ""
    library.glGetString.restype = ctypes.c_char_p
    return (library.glGetString(_GL_RENDERER) or b"").decode()


if __name__ == "__main__":
    try:
        red, drawn_by = _red_frame()
    except (RuntimeError, ImportError, ValueError) as error:
        sys.exit(str(error))
    if (red != (255, 0, 0)).any():
        sys.exit(f"{os.environ['MUJOCO_GL']} does not draw: a red frame came back with mean colour {red.mean((0, 1))}")
    print(os.environ["MUJOCO_GL"] + (f" by {drawn_by}" if drawn_by else ""))
