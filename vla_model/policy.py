"""VLAPolicy: a VLA as a Policy, in rollouts, evaluation and on a robot.

numpy in, numpy out; for observations of torch tensors, the actions are a tensor on their device.

Shape letters: n worlds in a call, K chunk size, A action dims, E experts, V tokens of an observation, P past
observations.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import UserError
from envs.types import Array, Observation
from vla_model.backbones.decoder import InstructionPrefix
from vla_model.files.deployment import check_n_action_steps
from vla_model.files.weight_files import check_finite, mismatches
from vla_model.heads.distributions import ActionDistribution
from vla_model.heads.moe import MixtureOfExperts
from vla_model.heads.noise import CorrelatedNoise
from vla_model.inputs.history import TokenHistory
from vla_model.inputs.inputs import ModelInputs
from vla_model.inputs.instructions import check_text
from vla_model.inputs.processor import Processor
from vla_model.model import VLA, VLAOutput
from vla_model.numerics.dtypes import DtypeName
from vla_model.numerics.precision import best_device, resolve_dtype
from vla_model.numerics.row_graphs import CaptureError, RowGraphs
from vla_model.numerics.tensors import each_tensor
from vla_model.types import ActionChunk, check_worlds
from vla_model.weights.checkpoint import load_policy, save_policy

_MOST_CAPTURED = 50_000_000
"""Parameters of the largest model that decides by graphs: a larger one is not bound by launches."""


@dataclass(frozen=True, kw_only=True)
class _Episode:
    """State of an episode."""

    prefix: InstructionPrefix
    noise: torch.Generator | CorrelatedNoise
    history: TokenHistory = field(default_factory=TokenHistory)


@dataclass(frozen=True, kw_only=True)
class _Observed:
    """An observation on the policy's device."""

    frames: dict[str, Tensor]
    """{camera: uint8 [n, H, W, 3]}"""
    state: Tensor
    """float32 [n, S], in the world's units."""


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What the model makes of an observation, before sampling."""

    actions: ActionDistribution
    mode: Tensor | None
    """Normalised, float32 [n, K, A]; None for a policy that samples."""
    values: Tensor | None
    """float32 [n, K]"""
    expert_usage: Tensor
    """float32 [n, layers, E]"""
    is_finite: Tensor
    """bool [n]: whether the state, the distribution's parameters and the mode are."""

    def rows(self, rows: slice) -> _Decision:
        """Some rows, in memory of their own where a policy hands them on as they are."""
        return _Decision(
            actions=self.actions.rows(rows),
            mode=None if self.mode is None else self.mode[rows],
            values=None if self.values is None else self.values[rows].clone(),
            expert_usage=self.expert_usage[rows],
            is_finite=self.is_finite[rows],
        )


class VLAPolicy:
    """Policy of vla_model/types.py.

    A model with history needs the `step` of each observation. Past observations are kept as tokens, so every frame is
    encoded once.
    """

    def __init__(
        self,
        model: VLA,
        processor: Processor,
        version: int = 0,
        sample: bool = False,
        seed: int = 0,
        dtype: DtypeName = "auto",
        *,
        noise_correlation: float = 0.0,
        n_action_steps: int | None = None,
    ) -> None:
        """
        Args:
            sample: sample actions from the distribution, with their log-probabilities; otherwise take its mode.
            seed: of the sampling. An episode's samples depend on this and the episode's seed alone, not on its world.
            dtype: of the computation; "auto" is bfloat16 where the device has it natively, and "int8" computes in
                bfloat16 whatever has no 8-bit weights. The model's weights are not converted: `hold_weights` does that.
            noise_correlation: of the noise of successive actions (vla_model/heads/noise.py).
            n_action_steps: actions executed of each chunk, which correlated noise needs; None for all.

        Raises:
            UserError: the correlation is not in [0, 1), or n_action_steps exceeds the chunk size.
        """
        if n_action_steps is not None:
            check_n_action_steps(n_action_steps, model.config.chunk_size)
        if not 0.0 <= noise_correlation < 1.0:
            raise UserError(f"the correlation of noise must be at least 0 and below 1, got {noise_correlation}")
        self.model = model
        self.processor = processor
        self.version = version
        self._sample = sample
        self._seed = seed
        self._noise_correlation = noise_correlation
        self._n_action_steps = n_action_steps
        self._dtype_name: DtypeName = dtype
        self._device = next(model.parameters()).device
        self._dtype = resolve_dtype(dtype, self._device)
        self._graphs = self._new_graphs()
        self._episodes: dict[int, _Episode] = {}
        self._batch: tuple[list[int], InstructionPrefix] | None = None
        """The worlds of the last call and their concatenated prefixes: mostly the next call has the same worlds."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        version: int = 0,
        sample: bool = False,
        seed: int = 0,
        dtype: DtypeName = "auto",
        device: str = "cpu",
    ) -> VLAPolicy:
        """A saved policy, on a device as in `to`.

        Args:
            dtype: of the computation, and of the weights: see vla_model/weights/weight_formats.py.

        Raises:
            UserError: a part of the folder is missing or damaged, or 8-bit weights are requested on a GPU.
        """
        model, processor = load_policy(folder, dtype=dtype)
        return cls(model, processor, version=version, sample=sample, seed=seed, dtype=dtype).to(device)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the policy's folder, which `from_pretrained` reads, replacing an existing policy.

        Raises:
            UserError: the path exists and is no policy, or a weight is not finite.
        """
        save_policy(folder, self.model, self.processor)

    @property
    def n_action_steps(self) -> int:
        """Actions to execute of each chunk before the next call: as given, else the deployment's, else all."""
        made_for = self.processor.deployment
        return self._n_action_steps or (made_for.n_action_steps if made_for else self.model.config.chunk_size)

    def to(self, device: str) -> VLAPolicy:
        """Move this policy to the device and end every episode; returns the policy.

        Args:
            device: torch's name of it; "auto" is a GPU if this process has one, else the CPU. A policy that is sent to
                a process is moved there, where its devices are known.

        Raises:
            UserError: 8-bit weights on a GPU; "auto" keeps them on the CPU.
        """
        on_cpu = self._dtype_name == "int8" and device == "auto"
        self._device = torch.device(device) if device != "auto" else torch.device("cpu") if on_cpu else best_device()
        if self._dtype_name == "int8" and self._device.type != "cpu":
            raise UserError(f"int8 is for CPUs; on {device!r} choose bfloat16")
        self.model.to(self._device)
        self._dtype = resolve_dtype(self._dtype_name, self._device)
        self._graphs = self._new_graphs()
        self.forget(list(self._episodes))
        return self

    def without_expert(self, layer: int, expert: int) -> VLAPolicy:
        """A policy that shares these weights and whose router never chooses that expert.

        Args:
            layer: of the action head, counted from 0.
            expert: counted from 0.

        Raises:
            UserError: there is no such layer or expert, or every token needs all experts.
        """
        layers = self.model.action_head.layers
        if not 0 <= layer < len(layers):
            raise UserError(f"layer {layer} does not exist; layers of experts: 0 to {len(layers) - 1}")
        shared = (*self.model.parameters(), *self.model.buffers())
        model = copy.deepcopy(self.model, {id(tensor): tensor for tensor in shared})
        chosen = model.action_head.layers[layer]
        assert isinstance(chosen, MixtureOfExperts)
        chosen.router.leave_out(expert)
        policy = copy.copy(self)
        policy.model, policy._episodes, policy._batch = model, {}, None
        return policy

    def load_weights(self, version: int, state_dict: Mapping[str, Tensor]) -> None:
        """Act with these weights from now on, and end every episode: the order rule of rollout/weights.py.

        Args:
            version: of these weights.
            state_dict: all tensors of the model, from any device.

        Raises:
            UserError: this policy's weights are 8-bit, or tensors are missing, unexpected, of another shape or not
                finite; the message names them, and the old weights stay.
        """
        if self._dtype_name == "int8":
            raise UserError(
                "a policy of 8-bit weights cannot load other weights; load it with dtype 'bfloat16' or 'float32'"
            )
        problems = mismatches(self.model.state_dict(), state_dict)
        if problems:
            raise UserError(f"weights of version {version} do not fit: {'; '.join(problems)}")
        check_finite(state_dict, f"version {version}")
        self.model.load_state_dict(state_dict)
        self.version = version
        self.forget(list(self._episodes))

    def begin(self, worlds: Sequence[int], instructions: tuple[str, ...], seeds: tuple[int, ...]) -> None:
        """Prefill the instructions of these worlds; the others keep theirs. Warns once of each instruction that is
        truncated.

        Raises:
            UserError: there is not one instruction and one seed per world, or an instruction is no text or blank.
        """
        if not len(worlds) == len(instructions) == len(seeds):
            raise UserError(f"{len(worlds)} worlds begin, with {len(instructions)} instructions and {len(seeds)} seeds")
        if not len(worlds):
            return
        for instruction in dict.fromkeys(instructions):
            if (warning := self.processor.truncation_warning(check_text(instruction))) is not None:
                warnings.warn(warning, stacklevel=2)
        self.model.eval()
        ids, mask = self.processor.encode_instructions(instructions)
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, self._autocast):
            prefix = self.model.backbone.prefill(ids.to(self._device), mask.to(self._device))
        for row, (world, seed) in enumerate(zip(worlds, seeds, strict=True)):
            alone = prefix.rows(slice(row, row + 1))
            self._episodes[world] = _Episode(prefix=alone, noise=self._noise(seed))
        self._batch = None

    def act(self, worlds: Sequence[int], observation: Observation) -> ActionChunk:
        """Actions of these worlds, float32 [n, K, A]; the instructions are those given to `begin`.

        Expert usage is each expert's share of the top-k choices.

        Raises:
            UserError: the observation does not have one row per world, a world comes twice or never began, the state
                is not finite, or the model has history and the observation has no step.
            FloatingPointError: the model's actions are not finite: damaged weights or an overflow.
        """
        worlds, like = list(worlds), observation["state"]
        check_worlds(worlds, observation, self._episodes)
        decision = self._decision(worlds, observation)
        if not decision.is_finite.all():
            self.processor.encode_state(like)  # raises, if the state is why
            _refuse(decision.is_finite, worlds)
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, self._autocast):
            sample = None
            if self._sample:
                sample = decision.actions.sample([self._episodes[world].noise for world in worlds])  # each has its own
                is_finite = sample.actions.isfinite().flatten(1).all(1)
                if not is_finite.all():
                    _refuse(is_finite, worlds)
            normalised = decision.mode if sample is None else sample.actions
            assert normalised is not None
            return ActionChunk(
                actions=_like(like, self.processor.decode(normalised)),
                expert_usage=decision.expert_usage.cpu().numpy(),
                sampled=None if sample is None else _like(like, sample.sampled),
                log_prob=None if sample is None else _like(like, decision.actions.log_prob(sample.sampled)),
                value=None if decision.values is None else _like(like, decision.values),
            )

    def forget(self, worlds: Iterable[int]) -> None:
        """Drop the state of the episodes in these worlds."""
        for world in worlds:
            self._episodes.pop(world, None)
        self._batch = None

    @property
    def _autocast(self) -> bool:
        return self._dtype != torch.float32

    def _decision(self, worlds: list[int], observation: Observation) -> _Decision:
        """By a graph where there is one."""
        steps, prefix = self._steps(observation), self._prefix(worlds)
        observed = _Observed(
            frames=self.processor.encode_frames(observation["frames"]),
            state=self.processor.state_tensor(observation["state"]),
        )
        observed = each_tensor(observed, lambda tensor: tensor.to(self._device))
        if steps is not None:
            self.processor.encode_state(observed.state)  # raises before tokens of a bad state are kept
            return self._decide(observed, prefix, partial(self._past, worlds, steps))
        if self._graphs is None:
            return self._decide(observed, prefix)
        try:
            with torch.inference_mode():
                return self._graphs(observed, prefix).rows(slice(len(worlds)))
        except CaptureError as error:
            warnings.warn(f"decisions are computed kernel by kernel, which is slower: {error}", stacklevel=3)
            self._graphs = None
            return self._decide(observed, prefix)

    def _decide(
        self,
        observed: _Observed,
        prefix: InstructionPrefix,
        past_of: Callable[[Tensor], Tensor] | None = None,
    ) -> _Decision:
        """Frames, states and instructions of n worlds -> distributions of their actions.

        Args:
            past_of: gives a model with history the past tokens [n, P, V, d], from the current ones, [n, V, d].
        """
        no_tokens = torch.empty(len(observed.state), 0, dtype=torch.int64, device=self._device)  # the prefix has them
        with torch.inference_mode(), torch.autocast(self._device.type, self._dtype, self._autocast):
            inputs = ModelInputs(
                frames=observed.frames,
                state=self.processor.normalise_state(observed.state),
                instruction_ids=no_tokens,
                instruction_mask=no_tokens.bool(),
            )
            encoded = self.model.encode_observation(inputs, prefix)
            past = None if past_of is None else past_of(encoded.tokens)
            output: VLAOutput = self.model.decode(inputs, prefix, encoded, past)
            mode = None if self._sample else output.actions.mode()
            checked = observed.state, output.actions.parameters(), *(() if mode is None else (mode,))
            finite = [values.isfinite().flatten(1).all(1) for values in checked]
            return _Decision(
                actions=output.actions,
                mode=mode,
                values=output.values,
                expert_usage=output.expert_usage(),
                is_finite=reduce(torch.logical_and, finite),
            )

    def _new_graphs(self) -> RowGraphs[_Observed, InstructionPrefix, _Decision] | None:
        """Graphs of `_decide` on a GPU, where the model is bound by launches and never waits for the host."""
        is_small = sum(p.numel() for p in self.model.parameters()) <= _MOST_CAPTURED
        # Experts run one by one in float32, whose sizes the host has to know; past tokens are kept on the host.
        has_graph = self._device.type == "cuda" and self._dtype == torch.bfloat16
        return RowGraphs(self._decide) if has_graph and is_small and not self.model.config.history_length else None

    def _prefix(self, worlds: list[int]) -> InstructionPrefix:
        """The instructions of these worlds, a row for each."""
        if self._batch is None or self._batch[0] != worlds:
            prefixes = [self._episodes[world].prefix for world in worlds]
            self._batch = worlds, InstructionPrefix.concatenate(prefixes)
        return self._batch[1]

    def _steps(self, observation: Observation) -> NDArray[np.int64] | None:
        """The step of each world's observation; None for a model without history."""
        if not self.model.config.history_length:
            return None
        if "step" not in observation:
            raise UserError(
                "this policy uses past observations, so an observation needs its 'step': the control steps since "
                f"the episode began; it has: {', '.join(observation)}"
            )
        return np.asarray(observation["step"], np.int64)

    def _noise(self, episode_seed: int) -> torch.Generator | CorrelatedNoise:
        state = np.random.SeedSequence([self._seed, episode_seed]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0]))
        correlation = self._noise_correlation
        return CorrelatedNoise(generator, correlation, self._n_action_steps) if correlation else generator

    def _past(self, worlds: Sequence[int], steps: NDArray[np.int64], tokens: Tensor) -> Tensor:
        """The history of each of these worlds, [n, P, V, d], after storing the current tokens, [n, V, d]."""
        rows = zip(worlds, steps.tolist(), tokens, strict=True)
        length, stride = self.model.config.history_length, self.model.config.history_stride
        return torch.stack([self._episodes[world].history.add(step, row, length, stride) for world, step, row in rows])


def _refuse(is_finite: Tensor, worlds: Sequence[int]) -> None:
    """
    Raises:
        FloatingPointError: actions of some worlds are not finite, bool [n]; the message names these worlds.
    """
    broken = [world for world, sound in zip(worlds, is_finite.tolist(), strict=True) if not sound]
    raise FloatingPointError(f"the policy's actions in worlds {broken} are not finite, so they are not executed")


def _like(array: Array, tensor: Tensor) -> Array:
    """The tensor on the device of `array`, or as numpy if `array` is numpy."""
    return tensor.to(array.device) if isinstance(array, Tensor) else tensor.cpu().numpy()


def on_best_device(policy: VLAPolicy, _world: object) -> VLAPolicy:
    """The policy on the best device of the process that calls this, whatever its world: `make_policy` of workers."""
    return policy.to("auto")
