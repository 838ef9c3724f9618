"""The choice of a rendering backend, asked of the real libraries, and of a loader that hides some of them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from envs.simulation import gl


@pytest.fixture(autouse=True)
def no_choice_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "LP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)


@pytest.fixture
def only_libraries(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every shared library but the named ones missing."""
    real = ctypes.CDLL

    def install(*present: str) -> None:
        def load(name: str, *args: Any, **kwargs: Any) -> ctypes.CDLL:
            if not name.startswith(present or "\0"):
                raise OSError(f"{name}: cannot open shared object file")
            return real(None) if name.startswith("libOSMesa") else real(name, *args, **kwargs)

        monkeypatch.setattr(ctypes, "CDLL", load)

    return install


def run_python(code: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "LP_NUM_THREADS")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_chosen_backend_draws_even_when_mujoco_was_imported_first() -> None:
    assert (
        run_python("import mujoco; from envs.simulation.gl import _red_frame; print(_red_frame()[0].mean((0, 1)))")
        == "[255.   0.   0.]"
    )


def test_choosing_does_not_import_mujoco_or_opengl() -> None:
    code = "import sys; from envs.simulation.gl import choose_backend; choose_backend(); print(*sys.modules)"
    assert not {"mujoco", "OpenGL"} & set(run_python(code).split())


def test_the_backend_is_chosen_once_and_inherited_by_child_processes() -> None:
    backend = gl.choose_backend()
    assert os.environ["MUJOCO_GL"] == backend
    assert os.environ["LP_NUM_THREADS"] == "0"
    assert gl.choose_backend() == backend


def test_a_backend_set_by_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "OSMesa")
    monkeypatch.setenv("LP_NUM_THREADS", "3")
    assert gl.choose_backend() == "osmesa"
    assert os.environ["LP_NUM_THREADS"] == "3"


def test_osmesa_is_chosen_where_egl_is_missing(only_libraries: Callable[..., None]) -> None:
    only_libraries("libOSMesa", "libOpenGL", "libGL")
    assert gl.choose_backend() == "osmesa"


def test_egl_without_desktop_opengl_is_not_chosen(only_libraries: Callable[..., None]) -> None:
    only_libraries("libOSMesa", "libEGL")
    assert gl.choose_backend() == "osmesa"


def test_egl_without_a_device_that_starts_is_not_chosen(
    only_libraries: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_libraries("libOSMesa", "libEGL", "libOpenGL", "libGL")
    monkeypatch.setattr(gl, "_egl_device_displays", lambda egl: iter(()))
    assert gl.choose_backend() == "osmesa"


def test_a_machine_without_opengl_is_told_what_to_install(only_libraries: Callable[..., None]) -> None:
    only_libraries()
    with pytest.raises(RuntimeError, match=r"apt-get install -y libegl1 libopengl0 libgl1-mesa-dri"):
        gl.choose_backend()
    assert "MUJOCO_GL" not in os.environ


def test_an_unknown_backend_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(ValueError, match=r"'vulkan'.*egl, osmesa, glfw, cgl"):
        gl.gl_context(8, 8)
