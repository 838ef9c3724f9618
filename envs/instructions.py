"""Instructions as a gymnasium space that also works with the shared memory of AsyncVectorEnv.

gymnasium 1.4 reads a Text from shared memory once, when the environments are made, so AsyncVectorEnv returns only
blanks. Here a read returns a view of the memory, like the numpy arrays of other spaces, and its copy is a tuple.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils.shared_memory import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)
from numpy.typing import NDArray

from envs.errors import UserError
from envs.types import MAX_INSTRUCTION_CHARS

_PRINTABLE = frozenset(chr(c) for c in range(32, 127))


class InstructionSpace(gymnasium.spaces.Text):
    """A sentence of at most 256 printable characters."""

    def __init__(self) -> None:
        super().__init__(MAX_INSTRUCTION_CHARS, charset=_PRINTABLE)


class SharedSentences(Sequence[str]):
    """View of the instructions of n environments in shared memory; a copy is a tuple of str."""

    def __init__(self, characters: NDArray[np.str_]) -> None:
        """characters: the memory, one string per environment, [n]."""
        self._characters = characters

    def __getitem__(self, index: Any) -> Any:  # str, or a tuple of str for a slice
        return tuple(self)[index]

    def __len__(self) -> int:
        return len(self._characters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._characters.tolist())

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        del memo
        return tuple(self)


def _strings(memory: Any) -> NDArray[np.str_]:
    return np.frombuffer(memory.get_obj(), f"<U{MAX_INSTRUCTION_CHARS}")


@create_shared_memory.register(InstructionSpace)
def _create(space: InstructionSpace, n: int = 1, ctx: ModuleType = multiprocessing) -> Any:
    return ctx.Array(np.dtype(np.uint32).char, n * space.max_length)


@read_from_shared_memory.register(InstructionSpace)
def _read(
    space: InstructionSpace, memory: Any, n: int = 1
) -> Any:  # SharedSentences, which gymnasium's type leaves out
    del space, n
    return SharedSentences(_strings(memory))


@write_to_shared_memory.register(InstructionSpace)
def _write(space: InstructionSpace, index: int, value: str, memory: Any) -> None:
    if len(value) > space.max_length:
        raise UserError(f"an instruction has at most {space.max_length} characters, got {len(value)}: {value!r}")
    _strings(memory)[index] = value
