"""Processor: observations -> model inputs, model outputs -> actions, and the statistics that both need.

Both directions are one object, saved with the weights, so a policy is always used with the normalisation it was trained
with. It belongs to one WorldSpec, and `check` reports how another differs. The deployment
(vla_model/files/deployment.py) is saved with it.

Shape letters: B batch, I instruction tokens, K chunk size, A action dims, S state dims, L localization dims, H x W
pixels.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer
from torch import Tensor

from envs.errors import UserError
from envs.types import MAX_INSTRUCTION_CHARS, Observation, VectorSpec, WorldSpec
from vla_model.files.deployment import PROCESSOR_FILE, Deployment
from vla_model.files.folders import read_json, write_json
from vla_model.inputs.conversion import Conversion
from vla_model.inputs.inputs import ModelInputs
from vla_model.inputs.instructions import check_text

TOKENIZER_FILE = "tokenizer.json"
DEFAULT_TOKENIZER = Path(__file__).parent / TOKENIZER_FILE
"""Of the small models; benchmarks/make_tokenizer.py made it."""

_CHARS_PER_TOKEN = 8
"""Characters per token: a policy may take longer instructions than MAX_INSTRUCTION_CHARS."""
_STATE_LIMIT = 10.0
"""Standard deviations to which states are clipped."""
_LABEL_LIMIT = 5.0
"""Standard deviations to which labels are clipped, e.g. of an object that fell off the table."""
_CONSTANT_STD = 1e-3
_CONSTANT_SHARE = 1e-4
_CONSTANT_UNBOUNDED = 1e-6
"""An element counts as constant if its standard deviation in training is below the smaller of _CONSTANT_STD and
_CONSTANT_SHARE of half its range, or below _CONSTANT_UNBOUNDED if its range is unknown."""
_LARGEST = 1e30
"""A bound beyond this means no bound."""
_FORMAT_1_FLOOR = np.float32(1e-3)
"""Files of format 1 have this standard deviation for elements that moved by less."""
_FORMAT = 2
_REMEDY = "take another copy of the policy"
_MAX_INSTRUCTION_LENGTH = 10_000
"""Tokens: the limit for a policy's folder, which may be untrusted."""
_FEATURES = {"state": "observation.state", "action": "action", "localization": "label.localization"}
"""LeRobot's names in a dataset's statistics."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(x - mean) / std of one vector.

    Elements that were constant in training become 0, whatever their value, as in training; the inverse gives their
    mean, whatever the model's output.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    """Finite, at least 0; 0 for constant elements."""

    _on: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Mean, standard deviation and divisor on each device that asked: copied once, not with every batch."""

    def __getstate__(self) -> dict[str, Any]:
        """Another process may have other devices."""
        return {"mean": self.mean, "std": self.std, "_on": {}}

    def __call__(self, values: ArrayLike | Tensor) -> Tensor:
        tensor = torch.as_tensor(values, dtype=torch.float32)
        mean, _, divisor = self._tensors(tensor.device)
        return (tensor - mean) / divisor

    def inverse(self, values: Tensor) -> Tensor:
        """Normalised -> original units, float32."""
        mean, std, _ = self._tensors(values.device)
        return values.detach().float() * std + mean

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        if device not in self._on:
            with torch.inference_mode(False):  # usable in training too
                mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
                self._on[device] = mean, std, torch.where(std > 0, std, torch.inf)
        return self._on[device]

    @property
    def constant(self) -> list[int]:
        """Indices of the constant elements."""
        return np.flatnonzero(self.std == 0).tolist()


class Processor:
    """Converts between a world's arrays and a model's tensors."""

    def __init__(
        self,
        *,
        world_spec: WorldSpec,
        normalisations: Mapping[str, Normalisation],
        tokenizer: Tokenizer,
        instruction_length: int,
        deployment: Deployment | None = None,
        conversion: Conversion | None = None,
    ) -> None:
        """Use `from_statistics` or `load`.

        Args:
            normalisations: of "state", "action" and "localization".
            instruction_length: I, tokens to which instructions are padded or truncated.
            deployment: how the policy is meant to be used; None if unknown, as in older folders.
            conversion: of the frames and actions of the robot whose recordings it was trained on; None where they are
                the world's.
        """
        self.world_spec = world_spec
        self.deployment = deployment
        self.conversion = conversion
        self.normalisations = dict(normalisations)
        self.instruction_length = instruction_length
        self.tokenizer = tokenizer
        self.tokenizer.enable_padding(length=instruction_length, pad_id=0, pad_token="<pad>")
        self.tokenizer.enable_truncation(instruction_length)
        self._remember_tokens()

    def __getstate__(self) -> dict[str, Any]:
        """All but the cache of `_tokens_of`: a policy is sent to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "_tokens_of"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember_tokens()

    def _remember_tokens(self) -> None:
        # The same few instructions come at every step of an episode and every epoch of training.
        self._tokens_of = functools.lru_cache(maxsize=4096)(self._tokenise)

    @classmethod
    def from_statistics(
        cls,
        world_spec: WorldSpec,
        statistics: Mapping[str, Mapping[str, ArrayLike]],
        instruction_length: int = 24,
        tokenizer: Tokenizer | None = None,
    ) -> Processor:
        """A processor for a new training.

        Args:
            statistics: {"observation.state" | "action" | "label.localization": {"mean": ..., "std": ...}},
                as a LeRobot dataset's stats.json has them; the last may be absent where the world has no localization.
            tokenizer: of a pretrained decoder; that of the small models where None.

        Raises:
            UserError: statistics are missing, of another length than the world's vector, or not finite.
        """
        vectors = {name: getattr(world_spec, name) for name in _FEATURES}
        normalisations = {name: _normalisation(_FEATURES[name], vector, statistics) for name, vector in vectors.items()}
        return cls(
            world_spec=world_spec,
            normalisations=normalisations,
            tokenizer=tokenizer or Tokenizer.from_file(str(DEFAULT_TOKENIZER)),
            instruction_length=instruction_length,
        )

    def with_instruction_length(self, length: int) -> Processor:
        """The same for a model that reads instructions of `length` tokens."""
        return Processor(
            world_spec=self.world_spec,
            normalisations=self.normalisations,
            tokenizer=copy.deepcopy(self.tokenizer),
            instruction_length=length,
            deployment=self.deployment,
            conversion=self.conversion,
        )

    def encode(self, observation: Observation) -> ModelInputs:
        """Model inputs of B worlds or samples.

        Raises:
            UserError: a camera is missing, its frames have another shape or dtype, or the state has another size or is
                not finite.
        """
        ids, mask = self.encode_instructions(observation["instruction"])
        return ModelInputs(
            frames=self.encode_frames(observation["frames"]),
            state=self.encode_state(observation["state"]),
            instruction_ids=ids,
            instruction_mask=mask,
        )

    def encode_instructions(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids int64 [B, I] and mask bool [B, I], False where padded; longer instructions are truncated."""
        rows = [self._tokens_of(instruction) for instruction in instructions]
        return torch.stack([ids for ids, _ in rows]), torch.stack([mask for _, mask in rows])

    def check_instruction(self, instruction: object) -> None:
        """Check an instruction that a user gives. In training data and evaluation a truncated instruction is only
        warned of, by `warnings` and `VLAPolicy.begin`.

        Raises:
            UserError: it is no instruction (vla_model/inputs/instructions.py), or would be truncated.
        """
        text = check_text(instruction, max(MAX_INSTRUCTION_CHARS, _CHARS_PER_TOKEN * self.instruction_length))
        if (warning := self.truncation_warning(text)) is not None:
            raise UserError(f"{warning}; say it in fewer words")

    def truncation_warning(self, instruction: str) -> str | None:
        """A warning for an instruction that is truncated; None if it fits."""
        encoding = self.tokenizer.encode(instruction)
        if not encoding.overflowing:
            return None
        kept = self.tokenizer.decode(encoding.ids).strip()
        return (
            f"the instruction {instruction!r} is longer than the {self.instruction_length} tokens that the policy "
            f"reads: it reads {kept!r}"
        )

    def warnings(self, instructions: Sequence[str]) -> list[str]:
        """Warnings for training on these instructions: those that are truncated, those that become equal by it, and the
        elements of state and action that are constant in the data.
        """
        found = []
        for name in ("state", "action"):
            vector, constant = getattr(self.world_spec, name), self.normalisations[name].constant
            if constant:
                names = ", ".join(vector.names[i] for i in constant)
                what = "are ignored" if name == "state" else "always keep that value"
                found.append(f"elements of the {name} that are constant in the data {what}: {names}")
        cut = {text: warning for text in instructions if (warning := self.truncation_warning(text)) is not None}
        if cut:
            more = f"; and {len(cut) - 3} more instructions" if len(cut) > 3 else ""
            found.append(f"{'; '.join(list(cut.values())[:3])}{more}; --model.instruction-length reads more")
        same: dict[tuple[int, ...], list[str]] = {}
        for text in cut:
            same.setdefault(tuple(self.tokenizer.encode(text).ids), []).append(text)
        found += [
            f"instructions that are equal once truncated: {'; '.join(map(repr, texts))}"
            for texts in same.values()
            if len(texts) > 1
        ]
        return found

    def normalise_actions(self, actions: ArrayLike | Tensor) -> Tensor:
        """Actions in [-1, 1] -> normalised, float32 [..., A]."""
        return self.normalisations["action"](actions)

    def normalise_localization(self, localization: ArrayLike | Tensor) -> Tensor:
        """World units -> normalised and clipped, float32 [..., L]."""
        return self.normalisations["localization"](localization).clamp(-_LABEL_LIMIT, _LABEL_LIMIT)

    def decode(self, actions: Tensor) -> Tensor:
        """Normalised actions [..., A] -> float32 [..., A] in [-1, 1], on the same device."""
        return self.normalisations["action"].inverse(actions).clamp(-1.0, 1.0)

    def action_limits(self) -> list[list[float]]:
        """Normalised -1 and 1 of every action dimension, `[A][2]`: all recorded actions lie between them."""
        size = self.world_spec.action.size
        ends = self.normalise_actions(np.stack([-np.ones(size), np.ones(size)], axis=1).T).T.tolist()
        return [end if end[0] < end[1] else [-1.0, 1.0] for end in ends]  # any interval for a constant one

    def check(self, world_spec: WorldSpec) -> None:
        """
        Raises:
            UserError: the world differs from this processor's in anything that a policy depends on; the message lists
                every difference.
        """
        differences = self.world_spec.differences(world_spec, labels=False)
        if differences:
            own = self.deployment.world if self.deployment is not None else None
            remedy = f"use it in {own}" if own else "use it in a world like its own"
            raise UserError(
                "the policy was made for another world:\n  "
                + "\n  ".join(differences)
                + f"\n{remedy}, or train a policy for this world"
            )

    def save(self, folder: Path) -> None:
        """Write processor.json and tokenizer.json."""
        content = {
            "format": _FORMAT,
            "instruction_length": self.instruction_length,
            "world_spec": dataclasses.asdict(self.world_spec),
            **({} if self.deployment is None else {"deployment": self.deployment.to_json()}),
            **({} if self.conversion is None else {"conversion": self.conversion.to_json()}),
            "statistics": {
                name: {"mean": normalisation.mean.tolist(), "std": normalisation.std.tolist()}
                for name, normalisation in self.normalisations.items()
            },
        }
        write_json(folder / PROCESSOR_FILE, content)
        self.tokenizer.save(str(folder / TOKENIZER_FILE), pretty=False)

    @classmethod
    def load(cls, folder: Path) -> Processor:
        """What `save` wrote.

        Raises:
            UserError: processor.json or tokenizer.json is damaged.
        """
        path = folder / PROCESSOR_FILE
        content = read_json(path, ("world_spec", "statistics", "instruction_length"), _REMEDY)
        try:
            if (number := content.get("format", 1)) not in range(1, _FORMAT + 1):
                raise UserError(f"format {number} is not known to this version; update llamarm")
            world_spec = WorldSpec.of(content["world_spec"])
            statistics = {_FEATURES[name]: content["statistics"][name] for name in _FEATURES}
            length = content["instruction_length"]
            if type(length) is not int or not 1 <= length <= _MAX_INSTRUCTION_LENGTH:
                raise UserError(f"instruction_length is {length!r}, expected 1 to {_MAX_INSTRUCTION_LENGTH} tokens")
            return cls(
                world_spec=world_spec,
                normalisations={
                    name: _normalisation(feature, getattr(world_spec, name), statistics, format_1=number < _FORMAT)
                    for name, feature in _FEATURES.items()
                },
                tokenizer=read_tokenizer(folder / TOKENIZER_FILE),
                instruction_length=length,
                deployment=Deployment.of(content["deployment"]) if "deployment" in content else None,
                conversion=Conversion.of(content["conversion"], world_spec.action.size)
                if "conversion" in content
                else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error

    def _tokenise(self, instruction: str) -> tuple[Tensor, Tensor]:
        encoding = self.tokenizer.encode(instruction)
        if not any(encoding.attention_mask):
            raise UserError(f"the instruction {instruction!r} has no tokens, so it tells the policy nothing")
        return torch.tensor(encoding.ids), torch.tensor(encoding.attention_mask, dtype=torch.bool)  # [I] each

    def fit_frames(self, frames: Mapping[str, Any]) -> dict[str, Any]:
        """{camera: uint8 [B, h, w, 3]} at the policy's size, [B, H, W, 3], by its conversion; all else unchanged."""
        conversion, fitted = self.conversion, dict(frames)
        for camera in self.world_spec.cameras if conversion is not None else ():
            views = frames.get(camera.name)
            if conversion is not None and isinstance(views, np.ndarray) and _is_rgb(views):
                fitted[camera.name] = np.stack([conversion.frame(view, camera) for view in views])
        return fitted

    def encode_frames(self, frames: Mapping[str, Any]) -> dict[str, Tensor]:
        """{camera: uint8 [B, H, W, 3]} as tensors, checked against the cameras' specs; `fit_frames` before."""
        frames, encoded = self.fit_frames(frames), {}
        for camera in self.world_spec.cameras:
            if camera.name not in frames:
                raise UserError(f"camera {camera.name!r} is not observed; cameras: {', '.join(frames)}")
            tensor = torch.as_tensor(frames[camera.name])
            if tensor.dtype != torch.uint8 or tensor.shape[1:] != (camera.height, camera.width, 3):
                raise UserError(
                    f"camera {camera.name!r} gives {tensor.dtype} {tuple(tensor.shape)}, "
                    f"expected torch.uint8 (B, {camera.height}, {camera.width}, 3)"
                )
            encoded[camera.name] = tensor
        return encoded

    def encode_past(self, frames: Mapping[str, Any], state: ArrayLike) -> tuple[dict[str, Tensor], Tensor]:
        """Past observations, {camera: uint8 [B, n, H, W, 3]} and [B, n, S], encoded like the current ones."""
        batch = np.shape(state)[:2]
        encoded = self.encode_frames({name: views.reshape(-1, *views.shape[2:]) for name, views in frames.items()})
        states = self.encode_state(np.asarray(state).reshape(-1, np.shape(state)[2]))
        return {name: views.unflatten(0, batch) for name, views in encoded.items()}, states.unflatten(0, batch)

    def encode_state(self, state: ArrayLike | Tensor) -> Tensor:
        """[B, S] in world units -> float32 [B, S], normalised.

        Raises:
            UserError: it has another shape, or is not finite; the message names the elements.
        """
        tensor = self.state_tensor(state)
        finite = tensor.isfinite()
        if not finite.all():
            names = [
                name
                for name, sound in zip(self.world_spec.state.names, finite.all(0).tolist(), strict=True)
                if not sound
            ]
            raise UserError(f"the state has numbers that are not finite: {', '.join(names)}")
        return self.normalise_state(tensor)

    def state_tensor(self, state: ArrayLike | Tensor) -> Tensor:
        """[B, S] as a float32 tensor, in the world's units.

        Raises:
            UserError: it has another shape.
        """
        tensor = torch.as_tensor(state, dtype=torch.float32)
        size = self.world_spec.state.size
        if tensor.ndim != 2 or tensor.shape[1] != size:
            raise UserError(f"the state has shape {tuple(tensor.shape)}, expected (B, {size})")
        return tensor

    def normalise_state(self, state: ArrayLike | Tensor) -> Tensor:
        """As `encode_state`, unchecked, with any leading dimensions: float32 [..., S]."""
        return self.normalisations["state"](state).clamp(-_STATE_LIMIT, _STATE_LIMIT)


def _is_rgb(views: NDArray[Any]) -> bool:
    return views.dtype == np.uint8 and views.ndim == 4 and views.shape[3] == 3 and views.size > 0


def read_tokenizer(path: Path) -> Tokenizer:
    """
    Raises:
        UserError: the file is missing or is no tokenizer.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exceptions
        raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error


def _normalisation(
    feature: str, vector: VectorSpec, statistics: Mapping[str, Mapping[str, ArrayLike]], *, format_1: bool = False
) -> Normalisation:
    """Checked mean and std of one vector.

    Args:
        format_1: whether they are of a file of format 1, where constant elements have _FORMAT_1_FLOOR.
    """
    if not vector.size:
        return Normalisation(mean=np.zeros(0, np.float32), std=np.ones(0, np.float32))
    if feature not in statistics:
        raise UserError(f"statistics of {feature!r} are missing; there are: {', '.join(statistics) or 'none'}")
    values = {}
    for key in ("mean", "std"):
        if key not in statistics[feature]:
            raise UserError(f"statistics of {feature!r} have no {key!r}; there are: {', '.join(statistics[feature])}")
        value = np.asarray(statistics[feature][key], np.float32)
        if value.shape != (vector.size,) or not np.isfinite(value).all():
            raise UserError(f"{key} of {feature!r} must be {vector.size} finite numbers, got {value.tolist()}")
        values[key] = value
    std = values["std"]
    if (std < 0).any():
        raise UserError(f"std of {feature!r} must not be negative, got {std.tolist()}")
    half_range = (np.array(vector.high) - np.array(vector.low)) / 2
    smallest = np.where(
        half_range < _LARGEST, np.minimum(_CONSTANT_STD, _CONSTANT_SHARE * half_range), _CONSTANT_UNBOUNDED
    )
    is_constant = std <= _FORMAT_1_FLOOR if format_1 else std < smallest
    return Normalisation(mean=values["mean"], std=np.where(is_constant | (std == 0), np.float32(0), std))
