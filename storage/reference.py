"""The twins of the native code of storage: slow, plain, and what it is tested against.

What they read and write is documented where it is used: the envelope of values in ``values``.
``kernels`` chooses between these and ``_native``. This file knows bytes, not tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from google_crc32c import value as crc32c

from memdb.errors import StoreCorrupt

SMALL_MAX_BYTES: Final = 1_900
SMALL_PAYLOAD_MAX_BYTES: Final = SMALL_MAX_BYTES - 4
PAGE_BYTES: Final = 4_096
PAGE_HEADER_BYTES: Final = 16
_U32 = struct.Struct("<I")

__all__ = ["crc32c", "seal", "seal_many", "unseal", "unseal_until"]

Pair = tuple[bytes, bytes]


# --- the envelope of values -----------------------------------------------------------------------


def seal(key: bytes, payload: bytes) -> bytes:
    """The stored form of ``payload`` under ``key``."""
    body = payload
    if len(payload) > SMALL_PAYLOAD_MAX_BYTES:
        padding = -(8 + len(payload) + PAGE_HEADER_BYTES) % PAGE_BYTES
        body = b"".join((_U32.pack(len(payload)), payload, bytes(padding)))
    return _U32.pack(crc32c(key + body)) + body


def seal_many(items: Iterable[Pair]) -> list[Pair]:
    """(key, stored form) of many (key, payload)."""
    return [(key, seal(key, payload)) for key, payload in items]


def unseal(key: bytes, value: bytes) -> bytes:
    """The payload of a stored value; ``StoreCorrupt`` if a bit of it or of its key changed."""
    body = value[4:]
    if len(value) < 4 or crc32c(key + body) != int.from_bytes(value[:4], "little"):
        raise StoreCorrupt("a stored value fails its checksum", path="kv")
    if len(value) <= SMALL_MAX_BYTES:
        return body
    (length,) = _U32.unpack_from(body)
    if length > len(body) - 4:
        raise StoreCorrupt("a stored value fails its checksum", path="kv")
    return body[4 : 4 + length]


def unseal_until(entries: Iterable[Pair], stop: bytes) -> list[Pair]:
    """(key, payload) of the entries before the first whose key is ``stop`` or more."""
    found = []
    for key, value in entries:
        if key >= stop:
            break
        found.append((key, unseal(key, value)))
    return found
