"""ULIDs: 48 bits of milliseconds, 80 random bits, 26 characters of Crockford's base 32.

Ids made by one process ascend, also within a millisecond (the random part is incremented), so
that the ``ids`` table is appended to and pages of history sort by creation. They carry no user
text. Source: the ULID specification, github.com/ulid/spec.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime
from functools import lru_cache

from memdb.errors import InvalidArgument
from memdb.types import to_micros

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
# Crockford's digits as Python's of base 32; any other byte as one that ``int`` refuses.
_DIGITS = bytes.maketrans(
    (_ALPHABET + _ALPHABET.lower()).encode(), b"0123456789abcdefghijklmnopqrstuv" * 2
)
_DIGITS = bytes(
    digit if chr(byte).upper() in _ALPHABET and byte < 128 else 0x21
    for byte, digit in enumerate(_DIGITS)
)
_RANDOM_BITS = 80
_RANDOM_AHEAD = 512  # ids' worth of random bytes asked of the system at a time


def format_id(raw: bytes) -> str:
    """The 26 characters of 16 bytes."""
    return format_number(int.from_bytes(raw, "big"))


@lru_cache(16)
def _time_part(millis_bits: int) -> str:
    """The first ten characters, which the ids of one batch share."""
    return "".join([_PAIRS[(millis_bits >> shift) & 1023] for shift in range(40, -1, -10)])


@lru_cache(16)
def _head(high: int) -> str:
    """All characters but the last four, which ids made one after the other nearly always share."""
    low = "".join([_PAIRS[(high >> shift) & 1023] for shift in range(50, -1, -10)])
    return _time_part(high >> 60) + low


def format_number(number: int) -> str:
    """The 26 characters of 128 bits."""
    return _head(number >> 20) + _PAIRS[number >> 10 & 1023] + _PAIRS[number & 1023]


def parse_id(text: str) -> bytes | None:
    """The 16 bytes of a ULID, or None when ``text`` is not one."""
    if len(text) != 26:
        return None
    try:
        number = int(text.encode("ascii").translate(_DIGITS), 32)
    except ValueError:
        return None
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
        self._random = b""
        self._process = 0

    def __call__(self, now: datetime) -> str:
        return format_number(self._take(now, 1))

    def many(self, now: datetime, count: int) -> list[tuple[str, bytes]]:
        """``count`` ids, each with its 16 bytes."""
        first = self._take(now, count)
        numbers = range(first, first + count)
        return [(format_number(number), number.to_bytes(16, "big")) for number in numbers]

    def _take(self, now: datetime, count: int) -> int:
        """The first of ``count`` numbers that nobody else gets."""
        millis = max(0, to_micros(now) // 1000)
        with self._guard:
            if millis > self._last >> _RANDOM_BITS:
                self._last = millis << _RANDOM_BITS | self._random_bits() >> 1
            else:
                self._last += 1
            first = self._last
            self._last += max(count - 1, 0)
        return first

    def _random_bits(self) -> int:
        """80 random bits. A forked child must not repeat what its parent will use."""
        if not self._random or self._process != os.getpid():
            self._random = os.urandom(_RANDOM_AHEAD * _RANDOM_BITS // 8)
            self._process = os.getpid()
        taken, self._random = self._random[:10], self._random[10:]
        return int.from_bytes(taken, "big")
