"""What an instruction may be, wherever one is told: on a robot, to a server, on the live page, from Python.

Text that is not blank and not endless. Whether a policy reads all of it only its processor knows
(`Processor.check_instruction`), which a program that knows no policy leaves out.
"""

from __future__ import annotations

from envs.errors import UserError


def check_text(instruction: object, longest: int | None = None) -> str:
    """The instruction.

    Args:
        instruction: what came in its place.
        longest: so many characters; any number where None.

    Raises:
        UserError: it is no text, blank, too long, or holds half a character (a lone surrogate).
    """
    if not isinstance(instruction, str):
        raise UserError(f"the instruction is {instruction!r}, expected text: the policy must be told what to do")
    if longest is not None and len(instruction) > longest:
        raise UserError(f"the instruction has {len(instruction)} characters, expected 1 to {longest}")
    if not instruction.strip():
        raise UserError(f"the instruction is {instruction!r}: the policy must be told what to do")
    if any("\ud800" <= character <= "\udfff" for character in instruction):
        raise UserError(f"the instruction {instruction!r} holds half a character, so it is no text")
    return instruction
