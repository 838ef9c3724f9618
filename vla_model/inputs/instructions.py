"""Check of an instruction, wherever one is given: on a robot, to a server, on the console, from Python.

It must be text, not blank and not too long. Whether a policy truncates it is checked by
`Processor.check_instruction`, where a policy is loaded.
"""

from __future__ import annotations

from envs.errors import UserError


def check_text(instruction: object, longest: int | None = None) -> str:
    """The instruction.

    Args:
        instruction: any object.
        longest: maximum number of characters; None for no limit.

    Raises:
        UserError: it is no text, blank, too long, or has a lone surrogate.
    """
    if not isinstance(instruction, str):
        raise UserError(f"the instruction is {instruction!r}, expected text that says what to do")
    if longest is not None and len(instruction) > longest:
        raise UserError(f"the instruction has {len(instruction)} characters, expected 1 to {longest}")
    if not instruction.strip():
        raise UserError(f"the instruction is {instruction!r}, expected text that says what to do")
    if any("\ud800" <= character <= "\udfff" for character in instruction):
        raise UserError(f"the instruction {instruction!r} has a lone surrogate, so it is no valid text")
    return instruction
