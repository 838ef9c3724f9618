"""Processor: observations -> model inputs, model outputs -> actions, and the statistics that both need.

The two directions are one object, saved with the weights, so a policy cannot be used with another normalisation than it
was trained with. It belongs to one WorldSpec and `check` says how another differs. How the policy is meant to be used
(vla_model/files/deployment.py) is saved with it, so that no copy of a policy lacks it.

Shape letters: B batch, I instruction tokens, K chunk length, A action dims, S state dims, L localization dims, H x W
pixels.
"""

from __future__ import annotations

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
from vla_model.files.deployment import Deployment
from vla_model.files.folders import read_json, write_json
from vla_model.inputs.inputs import ModelInputs
from vla_model.inputs.instructions import check_text

PROCESSOR_FILE = "processor.json"
TOKENIZER_FILE = "tokenizer.json"
DEFAULT_TOKENIZER = Path(__file__).parent / TOKENIZER_FILE
"""Of the small models; benchmarks/make_tokenizer.py made it."""

_CHARS_PER_TOKEN = 8
"""A policy of long instructions takes more characters than a world's are long."""
_STATE_LIMIT = 10.0
"""Standard deviations beyond which a state counts as broken and is clipped."""
_LABEL_LIMIT = 5.0
"""Standard deviations beyond which a label only says that something is far off, e.g. on its way to the floor."""
_STILL = 1e-3
_STILL_SHARE = 1e-4
_STILL_UNBOUNDED = 1e-6
"""A number whose standard deviation in training is below the smaller of _STILL and _STILL_SHARE of half its range, or
below _STILL_UNBOUNDED where its range is not known, did not move."""
_LARGEST = 1e30
"""A bound beyond this says that there is none."""
_FLOOR_OF_BEFORE = np.float32(1e-3)
"""Files of format 1 have this where a number moved by less."""
_FORMAT = 2
_REMEDY = "take another copy of the policy"
_MAX_INSTRUCTION_LENGTH = 10_000
"""Tokens: of a policy's folder, which may come from anyone."""
_FEATURES = {"state": "observation.state", "action": "action", "localization": "label.localization"}
"""LeRobot's names, under which a dataset's statistics come."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(x - mean) / std of one vector.

    Numbers that did not move in training are ignored: whatever they are, they become 0, as they were while a model
    learned. The other way they are their mean, whatever a model says.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    """Finite, at least 0; 0 of what did not move."""

    def __call__(self, values: ArrayLike | Tensor) -> Tensor:
        tensor = torch.as_tensor(values, dtype=torch.float32)
        mean, std = self.on(tensor.device)
        return (tensor - mean) / torch.where(std > 0, std, torch.inf)

    def inverse(self, values: Tensor) -> Tensor:
        """Normalised -> as it was, float32."""
        mean, std = self.on(values.device)
        return values.detach().float() * std + mean

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation."""
        return torch.from_numpy(self.mean).to(device), torch.from_numpy(self.std).to(device)

    @property
    def still(self) -> list[int]:
        """Which elements did not move."""
        return np.flatnonzero(self.std == 0).tolist()


class Processor:
    """Between a world and a model."""

    def __init__(
        self,
        *,
        world_spec: WorldSpec,
        normalisations: Mapping[str, Normalisation],
        tokenizer: Tokenizer,
        instruction_length: int,
        deployment: Deployment | None = None,
    ) -> None:
        """Use `from_statistics` or `load`.

        Args:
            normalisations: of "state", "action" and "localization".
            instruction_length: I, tokens to which instructions are padded or cut.
            deployment: how the policy is meant to be used; None where nobody said, as in folders of llamarm before it
                was saved.
        """
        self.world_spec = world_spec
        self.deployment = deployment
        self.normalisations = dict(normalisations)
        self.instruction_length = instruction_length
        self.tokenizer = tokenizer
        self.tokenizer.enable_padding(length=instruction_length, pad_id=0, pad_token="<pad>")
        self.tokenizer.enable_truncation(instruction_length)
        self._remember_tokens()

    def __getstate__(self) -> dict[str, Any]:
        """All but what `_tokens_of` remembers: a policy is sent to other processes."""
        return {name: value for name, value in self.__dict__.items() if name != "_tokens_of"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._remember_tokens()

    def _remember_tokens(self) -> None:
        # The same few sentences come at every decision of an episode and every epoch of a training.
        self._tokens_of = functools.lru_cache(maxsize=4096)(self._tokenise)

    @classmethod
    def from_statistics(
        cls,
        world_spec: WorldSpec,
        statistics: Mapping[str, Mapping[str, ArrayLike]],
        instruction_length: int = 24,
        tokenizer: Tokenizer | None = None,
    ) -> Processor:
        """A processor that begins a training.

        Args:
            statistics: {"observation.state" | "action" | "label.localization": {"mean": ..., "std": ...}},
                as a LeRobot dataset's stats.json has them; the last may be absent where the world has no localization.
            tokenizer: of a pretrained decoder; that of the small models where None.

        Raises:
            UserError: one is missing, has another length than the world's vector, or is not finite.
        """
        vectors = {name: getattr(world_spec, name) for name in _FEATURES}
        normalisations = {name: _normalisation(_FEATURES[name], vector, statistics) for name, vector in vectors.items()}
        return cls(
            world_spec=world_spec,
            normalisations=normalisations,
            tokenizer=tokenizer or Tokenizer.from_file(str(DEFAULT_TOKENIZER)),
            instruction_length=instruction_length,
        )

    def encode(self, observation: Observation) -> ModelInputs:
        """Model inputs of B worlds or samples.

        Raises:
            UserError: a camera is missing or its frames have another shape or dtype, or the state another size or a
                number that is not finite.
        """
        ids, mask = self.encode_instructions(observation["instruction"])
        return ModelInputs(
            frames=self.encode_frames(observation["frames"]),
            state=self.encode_state(observation["state"]),
            instruction_ids=ids,
            instruction_mask=mask,
        )

    def encode_instructions(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids int64 [B, I] and mask bool [B, I], False where padded. What does not fit is cut off."""
        rows = [self._tokens_of(instruction) for instruction in instructions]
        return torch.stack([ids for ids, _ in rows]), torch.stack([mask for _, mask in rows])

    def check_instruction(self, instruction: object) -> None:
        """Whether the policy reads all of it. Asked wherever somebody tells a policy what to do: what was collected or
        is evaluated under a sentence that is cut is told by `remarks` and `VLAPolicy.begin`, and goes on.

        Raises:
            UserError: it is no instruction (vla_model/inputs/instructions.py), or longer than the policy reads.
        """
        text = check_text(instruction, max(MAX_INSTRUCTION_CHARS, _CHARS_PER_TOKEN * self.instruction_length))
        if (remark := self.remark_on(text)) is not None:
            raise UserError(f"{remark}; say it in fewer words")

    def remark_on(self, instruction: str) -> str | None:
        """What of an instruction the policy does not read, in words; None where it reads all."""
        encoding = self.tokenizer.encode(instruction)
        if not encoding.overflowing:
            return None
        kept = self.tokenizer.decode(encoding.ids).strip()
        return (
            f"the instruction {instruction!r} is longer than the {self.instruction_length} tokens that the policy "
            f"reads: it reads {kept!r}"
        )

    def remarks(self, instructions: Sequence[str]) -> list[str]:
        """What whoever trains on these instructions should know, in words: the sentences that are cut, those that thus
        become one, and the numbers that are ignored because they did not move.
        """
        found = []
        for name in ("state", "action"):
            vector, still = getattr(self.world_spec, name), self.normalisations[name].still
            if still:
                names = ", ".join(vector.names[i] for i in still)
                what = "are ignored" if name == "state" else "will always be what they were"
                found.append(f"numbers of the {name} that did not move in the data {what}: {names}")
        cut = {text: remark for text in instructions if (remark := self.remark_on(text)) is not None}
        if cut:
            more = f"; and {len(cut) - 3} more sentences" if len(cut) > 3 else ""
            found.append(f"{'; '.join(list(cut.values())[:3])}{more}; --model.instruction-length reads more")
        same: dict[tuple[int, ...], list[str]] = {}
        for text in cut:
            same.setdefault(tuple(self.tokenizer.encode(text).ids), []).append(text)
        found += [
            f"sentences that are one to the policy: {'; '.join(map(repr, texts))}"
            for texts in same.values()
            if len(texts) > 1
        ]
        return found

    def normalise_actions(self, actions: ArrayLike | Tensor) -> Tensor:
        """Actions in [-1, 1] as the model learns them, float32 [..., A]."""
        return self.normalisations["action"](actions)

    def normalise_localization(self, localization: ArrayLike | Tensor) -> Tensor:
        """The world's units to standard deviations, limited, float32 [..., L]."""
        return self.normalisations["localization"](localization).clamp(-_LABEL_LIMIT, _LABEL_LIMIT)

    def decode(self, actions: Tensor) -> Tensor:
        """What a model says, as actions: normalised [..., A] -> float32 [..., A] in [-1, 1], on the same device."""
        return self.normalisations["action"].inverse(actions).clamp(-1.0, 1.0)

    def action_limits(self) -> list[list[float]]:
        """Normalised -1 and 1 of every action dimension, [A][2]: between them lies whatever was recorded."""
        size = self.world_spec.action.size
        ends = self.normalise_actions(np.stack([-np.ones(size), np.ones(size)], axis=1).T).T.tolist()
        return [end if end[0] < end[1] else [-1.0, 1.0] for end in ends]  # of one that never moves, any two

    def check(self, world_spec: WorldSpec) -> None:
        """
        Raises:
            UserError: the world differs from the one this was made for in anything that a policy meets; the message
                lists every difference.
        """
        differences = self.world_spec.differences(world_spec, labels=False)
        if differences:
            raise UserError("the policy was made for another world:\n  " + "\n  ".join(differences))

    def save(self, folder: Path) -> None:
        """Write processor.json and tokenizer.json."""
        content = {
            "format": _FORMAT,
            "instruction_length": self.instruction_length,
            "world_spec": dataclasses.asdict(self.world_spec),
            **({} if self.deployment is None else {"deployment": self.deployment.to_json()}),
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
            UserError: processor.json or tokenizer.json does not hold what it should.
        """
        path = folder / PROCESSOR_FILE
        content = read_json(path, ("world_spec", "statistics", "instruction_length"), _REMEDY)
        try:
            if (number := content.get("format", 1)) not in range(1, _FORMAT + 1):
                raise UserError(f"format {number} is not known to this version of llamarm")
            world_spec = WorldSpec.of(content["world_spec"])
            statistics = {_FEATURES[name]: content["statistics"][name] for name in _FEATURES}
            length = content["instruction_length"]
            if type(length) is not int or not 1 <= length <= _MAX_INSTRUCTION_LENGTH:
                raise UserError(f"instruction_length is {length!r}, expected 1 to {_MAX_INSTRUCTION_LENGTH} tokens")
            return cls(
                world_spec=world_spec,
                normalisations={
                    name: _normalisation(feature, getattr(world_spec, name), statistics, of_before=number < _FORMAT)
                    for name, feature in _FEATURES.items()
                },
                tokenizer=read_tokenizer(folder / TOKENIZER_FILE),
                instruction_length=length,
                deployment=Deployment.of(content["deployment"]) if "deployment" in content else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error

    def _tokenise(self, instruction: str) -> tuple[Tensor, Tensor]:
        encoding = self.tokenizer.encode(instruction)
        if not any(encoding.attention_mask):
            raise UserError(f"the instruction {instruction!r} has no tokens, so it tells the policy nothing")
        return torch.tensor(encoding.ids), torch.tensor(encoding.attention_mask, dtype=torch.bool)  # [I] each

    def encode_frames(self, frames: Mapping[str, Any]) -> dict[str, Tensor]:
        """{camera: uint8 [B, H, W, 3]} as tensors, checked against the cameras' specs."""
        encoded = {}
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
        """Earlier observations, {camera: uint8 [B, n, H, W, 3]} and [B, n, S], encoded like the present ones."""
        batch = np.shape(state)[:2]
        encoded = self.encode_frames({name: views.reshape(-1, *views.shape[2:]) for name, views in frames.items()})
        states = self.encode_state(np.asarray(state).reshape(-1, np.shape(state)[2]))
        return {name: views.unflatten(0, batch) for name, views in encoded.items()}, states.unflatten(0, batch)

    def encode_state(self, state: ArrayLike | Tensor) -> Tensor:
        """[B, S] in the world's units -> float32 [B, S], normalised.

        Raises:
            UserError: it has another shape, or a number that is not finite; the message names the element.
        """
        tensor = torch.as_tensor(state, dtype=torch.float32)
        size = self.world_spec.state.size
        if tensor.ndim != 2 or tensor.shape[1] != size:
            raise UserError(f"the state has shape {tuple(tensor.shape)}, expected (B, {size})")
        finite = tensor.isfinite()
        if not finite.all():
            names = [
                name
                for name, sound in zip(self.world_spec.state.names, finite.all(0).tolist(), strict=True)
                if not sound
            ]
            raise UserError(f"the state has numbers that are not finite: {', '.join(names)}")
        return self.normalise_state(tensor)

    def normalise_state(self, state: ArrayLike | Tensor) -> Tensor:
        """As `encode_state`, of any leading dimensions: float32 [..., S]."""
        return self.normalisations["state"](state).clamp(-_STATE_LIMIT, _STATE_LIMIT)


def read_tokenizer(path: Path) -> Tokenizer:
    """
    Raises:
        UserError: the file is missing or holds no tokenizer.
    """
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers has no class of its own for them
        raise UserError(f"{path} is damaged ({error}); {_REMEDY}") from error


def _normalisation(
    feature: str, vector: VectorSpec, statistics: Mapping[str, Mapping[str, ArrayLike]], *, of_before: bool = False
) -> Normalisation:
    """Checked mean and std of one vector.

    Args:
        of_before: whether they are of a file of format 1, where what hardly moved is _FLOOR_OF_BEFORE.
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
    still = np.where(half_range < _LARGEST, np.minimum(_STILL, _STILL_SHARE * half_range), _STILL_UNBOUNDED)
    is_still = std <= _FLOOR_OF_BEFORE if of_before else std < still
    return Normalisation(mean=values["mean"], std=np.where(is_still | (std == 0), np.float32(0), std))
