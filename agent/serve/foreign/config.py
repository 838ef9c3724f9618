"""Options of a foreign server: its address's key and times, and what it calls the parts of an observation.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from annotated_types import Interval

from envs.errors import UserError

Preset = Literal["llamarm", "libero", "droid", "aloha", "vla-eval"]
Layout = Literal["hwc", "chw"]
Factor = Annotated[float, Interval(ge=-1e6, le=1e6)]


@dataclass(frozen=True, kw_only=True)
class ServerAccessConfig:
    """How a server is reached."""

    api_key_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File with the key that the server expects."""
    timeout_s: Annotated[float, Interval(gt=0, le=86_400)] = 60.0
    """Timeout of an answer, after which its connection counts as broken."""
    patience_s: Annotated[float, Interval(gt=0, le=86_400)] = 60.0
    """How long to retry a server that cannot be reached; then the running episodes are set aside, and so are all
    others until it can be reached."""

    def connection_options(self) -> dict[str, Any]:
        """For `Connections`.

        Raises:
            UserError: the key cannot be read.
        """
        try:
            key = None if self.api_key_file is None else self.api_key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the key in {self.api_key_file} cannot be read: {error}; --server.api-key-file names its file"
            ) from error
        return {"api_key": key, "timeout_s": self.timeout_s, "patience_s": self.patience_s}


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What a server calls the parts of an observation, and what its answers mean (docs/others.md)."""

    preset: Preset | None = None
    """Keys and sizes of openpi's examples, for fields that are not given; default: those of `llamarm serve`, or
    vla-eval's for vla-eval+ws://."""
    cameras: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=CAMERA[:HxW] ...")] = ()
    """Frames: the world's camera for each key, resized with padding to HxW. KEY[NAME] is the entry NAME of a map."""
    layout: Layout | None = None
    """Order of a frame's dimensions."""
    state: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=PART,... ...")] = ()
    """State: the parts of the world's state for each key. A part is a name, an index, a range FIRST..LAST of either,
    or FIRST..LAST@FROM:TO, a rotation in another convention; KEY alone has the whole state."""
    prompt: Annotated[str | None, tyro.conf.arg(metavar="KEY")] = None
    """Key of the instruction."""
    rotation: Annotated[str | None, tyro.conf.arg(metavar="COLUMN:CONVENTION")] = None
    """First column of a rotation in the answers, and its convention: it is replaced by a rotation vector."""
    columns: Annotated[tuple[Annotated[int, Interval(ge=0, le=4096)], ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Column of the answers for each dimension of the world's action, in its order; default: all, in order."""
    scale: Annotated[tuple[Factor, ...], tyro.conf.arg(metavar="FLOAT ...")] = ()
    """Factor of each dimension of the action, or one for all but grippers; default 1."""
    offset: Annotated[tuple[Factor, ...], tyro.conf.arg(metavar="FLOAT ...")] = ()
    """Added after the factor, to each dimension or to all but grippers; default 0."""
    gripper_threshold: Factor | None = None
    """Grippers become 1 above this value of the answer and -1 below it."""
    gripper_opens: bool | None = None
    """Whether greater values of the answer open the gripper; in our worlds they close it."""
    n_action_steps: Annotated[int | None, Interval(ge=1, le=1_000), tyro.conf.Suppress] = None
    """Actions executed of each answer by the preset's own client."""

    def resolved(self) -> AdapterConfig:
        """With the preset's value for every field that is not given."""
        preset = PRESETS[self.preset or "llamarm"]
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, ())}
        return replace(preset, **given)


_SIZE = ":224x224"
PRESETS: dict[Preset, AdapterConfig] = {
    "llamarm": AdapterConfig(
        cameras=("observation/*",), layout="hwc", state=("observation/state",), prompt="prompt", gripper_opens=False
    ),
    "libero": AdapterConfig(
        cameras=(f"observation/image=front{_SIZE}", f"observation/wrist_image=wrist{_SIZE}"),
        layout="hwc",
        state=("observation/state",),
        prompt="prompt",
        gripper_opens=False,
        n_action_steps=5,
    ),
    "droid": AdapterConfig(
        cameras=(f"observation/exterior_image_1_left=front{_SIZE}", f"observation/wrist_image_left=wrist{_SIZE}"),
        layout="hwc",
        state=("observation/joint_position=0..6", "observation/gripper_position=7"),
        prompt="prompt",
        gripper_threshold=0.5,
        gripper_opens=False,
        n_action_steps=8,
    ),
    "aloha": AdapterConfig(
        cameras=tuple(
            f"images[{name}]={name}{_SIZE}" for name in ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
        ),
        layout="chw",
        state=("state",),
        prompt="prompt",
        gripper_opens=False,
        n_action_steps=10,
    ),
    "vla-eval": AdapterConfig(
        cameras=("images[*]",), layout="hwc", state=("state",), prompt="task_description", gripper_opens=False
    ),
}
"""{name: what openpi's examples (openpi_client 0.1.2) or vla-eval's benchmarks (0.8.0) send}. KEY* has every camera."""
