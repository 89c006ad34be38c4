"""ULIDs: 48 bits of milliseconds, 80 random bits, 26 characters of Crockford's base 32.

Ids made by one process ascend, also within a millisecond (the random part is incremented), so
that the ``ids`` table is appended to and pages of history sort by creation. They carry no user
text. Source: the ULID specification, github.com/ulid/spec.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime

from memdb.errors import InvalidArgument
from memdb.types import to_micros

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_VALUES = {c: i for i, c in enumerate(_ALPHABET)} | {c.lower(): i for i, c in enumerate(_ALPHABET)}
_RANDOM_BITS = 80


def format_id(raw: bytes) -> str:
    """The 26 characters of 16 bytes."""
    number = int.from_bytes(raw, "big")
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def parse_id(text: str) -> bytes | None:
    """The 16 bytes of a ULID, or None when ``text`` is not one."""
    if len(text) != 26:
        return None
    number = 0
    for character in text:
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return None if number >> 128 else number.to_bytes(16, "big")


def require_id(text: object, field: str = "id") -> bytes:
    """The 16 bytes of a ULID; ``InvalidArgument`` naming ``field`` otherwise."""
    raw = parse_id(text) if isinstance(text, str) else None
    if raw is None:
        raise InvalidArgument(f"{field} must be a ULID of 26 characters", field=field)
    return raw


class IdMaker:
    """Makes ascending ULIDs; thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last = 0

    def __call__(self, now: datetime) -> str:
        stamp = max(0, to_micros(now) // 1000) << _RANDOM_BITS
        with self._guard:
            fresh = stamp | int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big") >> 1
            self._last = (
                fresh if fresh >> _RANDOM_BITS > self._last >> _RANDOM_BITS else self._last + 1
            )
            return format_id(self._last.to_bytes(16, "big"))
