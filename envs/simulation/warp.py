"""N simulations of one model on MuJoCo Warp: physics and ray-traced frames of all of them in one launch each.

Runs on a CUDA device, and on Warp's CPU device, where it is slow and gives the same results to float32 precision.
Kernels are compiled at first use (a minute or two) and cached in the user's cache directory.

Every launch covers all simulations. Those that should not move are restored on the device afterwards; those whose state
becomes invalid are restored to their last valid state. All simulations share one contact buffer, so on overflow the
affected simulations are unknown, and an error is raised. Constraint buffers are per simulation: an overflow fails only
that simulation.

A control step is thousands of small launches, so `launch` captures what it launches as a graph, on both devices; on the
CPU too this is ten times faster, with bit-identical results. A suite may put its own kernels between those of `guard`
and `advance`, into one graph with them.

Stream rule: torch and Warp use one CUDA stream, torch's current one, so no synchronization is needed between them.

Shape letters: N simulations, n of them in a call, V a vector's length, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from envs.simulation import warp_guard
from envs.simulation.simulator import SimulatorSpec
from envs.types import Array

_STATE = tuple(warp_guard.PhysicsState.vars)


class _StaticGeoms:
    """Geoms of static bodies: Warp's kinematics skips them, but their poses may differ between simulations."""

    def __init__(self, model: mujoco.MjModel, body_pos: Tensor, geom_pos: Tensor) -> None:
        """body_pos: xpos [N, bodies, 3], geom_pos: geom_xpos [N, geoms, 3], both live."""
        static = np.flatnonzero(model.body_weldid[model.geom_bodyid] == 0)
        self._geoms = torch.as_tensor(static, device=body_pos.device)
        self._bodies = torch.as_tensor(model.geom_bodyid[static], device=body_pos.device).long()
        self._body_pos, self._geom_pos = body_pos, geom_pos
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        offset = data.geom_xpos[static] - data.xpos[model.geom_bodyid[static]]
        self._offset = torch.as_tensor(offset, dtype=geom_pos.dtype, device=geom_pos.device)

    def move(self, sims: Tensor) -> None:
        """Move these simulations' static geoms to their bodies' positions."""
        self._geom_pos[sims[:, None], self._geoms] = self._body_pos[sims[:, None], self._bodies] + self._offset


class WarpSim:
    """A Simulator on Warp. Fields are float32 torch views of Warp's arrays, without copies."""

    def __init__(self, spec: SimulatorSpec, *, max_contacts: int, max_constraints: int, device: str = "cpu") -> None:
        """
        Args:
            max_contacts: average per simulation, including candidate pairs that turn out not to touch.
            max_constraints: maximum constraint rows per simulation.
            device: "cpu" or "cuda".
        """
        wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)  # otherwise every kernel load is logged
        wp.init()
        self._torch_device = torch.empty(0, device=device).device  # includes the GPU index
        self._warp_device = wp.device_from_torch(self._torch_device)
        model, self._num_sims, self._cameras = spec.model, spec.num_sims, spec.cameras
        self._max_contacts, self._max_constraints = max_contacts, max_constraints
        with wp.ScopedDevice(self._warp_device):
            self._model = mjw.put_model(model, batch_sizes=dict.fromkeys(spec.per_sim_model_fields, self._num_sims))
            self._model.opt.warn_overflow = 0  # `step` checks for overflow
            self._data = mjw.make_data(model, self._num_sims, nconmax=max_contacts, njmax=max_constraints)
            self._camera = self._render_context(model) if self._cameras else None
        data = mujoco.MjData(model)
        self.field = {name: self._view(self._data, name, getattr(data, name).shape) for name in spec.fields}
        self.model_field = {
            name: self._view(self._model, name, getattr(model, name).shape) for name in spec.per_sim_model_fields
        }
        self.state = {name: wp.to_torch(getattr(self._data, name)) for name in _STATE}
        self._overflow = wp.to_torch(self._data.overflow)
        self._default_qpos = self.on_device(model.qpos0)
        self.moving = torch.zeros(self._num_sims, dtype=torch.bool, device=self._torch_device)
        self.broken = torch.zeros_like(self.moving)
        self.full = torch.zeros(1, dtype=torch.int32, device=self._torch_device)
        self._static = _StaticGeoms(model, wp.to_torch(self._data.xpos), wp.to_torch(self._data.geom_xpos))
        self._sound = {name: values.clone() for name, values in self.state.items()}
        sound = SimpleNamespace(**{name: wp.from_torch(values) for name, values in self._sound.items()})
        self._now_and_sound = warp_guard.physics_state(self._data), warp_guard.physics_state(sound)
        self._graphs: dict[Hashable, Any] = {}

    def on_device(self, array: Array) -> Tensor:
        """See Simulator.on_device."""
        tensor = torch.as_tensor(array, device=self._torch_device)
        return tensor.float() if tensor.dtype == torch.float64 else tensor

    def begin(self, sims: Sequence[int], rows: Mapping[str, NDArray[Any]]) -> None:
        """See Simulator.begin."""
        at = self.on_device(np.array(sims))
        for name, values in self.state.items():
            values[at] = self._default_qpos if name == "qpos" else 0.0
        for name, values in rows.items():
            (self.field if name in self.field else self.model_field)[name][at] = self.on_device(values)
        self._overflow[at] = 0
        self._place()
        for name, values in self.state.items():
            self._sound[name][at] = values[at]
        self._static.move(at)

    def step(self, sims: Tensor, num_steps: int) -> Tensor:
        """See Simulator.step.

        Raises:
            RuntimeError: the contact buffer overflowed.
        """
        if not len(sims):
            return torch.zeros(0, dtype=torch.bool, device=self._torch_device)
        self.moving.zero_()
        self.moving[sims] = True
        self.broken.zero_()
        self.launch(("step", num_steps), lambda: (self.guard(), self.advance(num_steps)))
        self.refuse_full(bool(self.full))
        return self.broken[sims]

    def guard(self) -> None:
        """Kernels: mark the simulations as broken whose state is invalid, and restore their last valid one."""
        self._kernel(warp_guard.put_back_unsound, *self._now_and_sound, wp.from_torch(self.broken))

    def advance(self, num_steps: int) -> None:
        """Kernels: physics and kinematics of the simulations that are `moving` and not `broken`; sets `broken` where
        physics failed, and `full` if the contact buffer overflowed.
        """
        self._steps(num_steps)
        flags = (self.moving, self._overflow, self.broken, self.full)
        self._kernel(warp_guard.settle, *self._now_and_sound, *map(wp.from_torch, flags))
        self._kinematics()

    def refuse_full(self, full: bool) -> None:
        """
        Raises:
            RuntimeError: `full`, which is the flag of that name; it is reset.
        """
        if full:
            self.full.zero_()
            raise RuntimeError(
                f"{self._num_sims} simulations had more contacts than max_contacts={self._max_contacts} of each leaves "
                "room for, so the physics of some of them is wrong; give them more"
            )

    def render(self, sims: Sequence[int]) -> dict[str, Tensor]:
        """See Simulator.render. All simulations are rendered, in one launch."""
        if self._camera is None:
            return {}
        self.launch_frames()
        at = self.on_device(np.array(sims, np.int64))
        # A pixel is 0xAARRGGBB, so its bytes are blue, green, red and alpha.
        pixels = wp.to_torch(self._camera.rgb_data).view(torch.uint8).view(self._num_sims, -1, 4)[at]
        frames, start = {}, 0
        for camera in self._cameras:
            stop = start + camera.height * camera.width
            rgb = pixels[:, start:stop, :3].flip(-1)
            frames[camera.name], start = rgb.view(len(sims), camera.height, camera.width, 3), stop
        return frames

    def launch(self, name: Hashable, kernels: Callable[[], object]) -> None:
        """Launch these kernels: individually the first time, which compiles them, then as one captured graph.

        Args:
            name: of the graph; the same name launches the same kernels with the same arguments.
            kernels: launches Warp kernels, and nothing else, on arrays that stay where they are.
        """
        with self._scope():
            if name in self._graphs:
                wp.capture_launch(self._graphs[name])
            else:
                kernels()
                self._graphs[name] = self._captured(kernels)

    def launch_frames(self) -> None:
        """Render the current states of all simulations."""
        self._place()
        with self._scope():  # not as a graph: it refits a BVH, which is not a kernel launch
            mjw.refit_bvh(self._model, self._data, self._camera)
            mjw.render(self._model, self._data, self._camera)

    def close(self) -> None:
        """Free the renderer's buffers; rendering is impossible afterwards."""
        self._camera = None

    def _render_context(self, model: mujoco.MjModel) -> Any:
        return mjw.create_render_context(
            model,
            self._num_sims,
            cam_res=[(camera.width, camera.height) for camera in self._cameras],
            cam_active=[camera.name for camera in self._cameras],
            render_rgb=True,
            render_depth=False,
            render_seg=False,
        )

    def _view(self, owner: Any, name: str, shape: tuple[int, ...]) -> Tensor:
        """A field as a torch view in MuJoCo's shape, [N, *shape]."""
        return wp.to_torch(getattr(owner, name)).view(self._num_sims, *shape)

    def _steps(self, num_steps: int) -> None:
        for _ in range(num_steps):
            mjw.step(self._model, self._data)

    def _kinematics(self) -> None:
        mjw.kinematics(self._model, self._data)
        mjw.camlight(self._model, self._data)

    def _place(self) -> None:
        self.launch("place", self._kinematics)

    def _kernel(self, kernel: Any, *inputs: Any) -> None:
        wp.launch(kernel, self._num_sims, inputs)

    def _captured(self, kernels: Callable[[], object]) -> Any:
        stream = wp.Stream(self._warp_device) if self._warp_device.is_cuda else None  # torch's own cannot capture
        with wp.ScopedStream(stream), wp.ScopedCapture(stream=stream) as capture:
            kernels()
        return capture.graph

    @contextmanager
    def _scope(self) -> Generator[None]:
        """Directs Warp's launches to this device and, on CUDA, to torch's stream."""
        stream = wp.stream_from_torch(self._torch_device) if self._warp_device.is_cuda else None
        with wp.ScopedDevice(self._warp_device), wp.ScopedStream(stream):
            yield
