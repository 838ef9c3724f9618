"""Seeds of random generators, derived from everything that identifies the stream."""

from __future__ import annotations

import hashlib


def seed_of(*parts: int | str) -> int:
    """A seed within 0..2^63 - 1, the same for the same parts in any process and on any machine.

    Order and types of the parts matter: ("a", 12), ("a1", 2) and ("a", "12") give different seeds.

    Examples:
        >>> seed_of("noise", 7)
        4216765194895824993
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
