"""The envelope of every stored value: a checksum in front, zeros behind where size demands.

Grammar of a sealed value (all integers little-endian)::

    small   := crc32c u32 | payload                       1 <= 4 + len(payload) <= 1,900
    large   := crc32c u32 | length u32 | payload | zeros  16 + total is a multiple of 4,096

A reader tells them apart by the total length alone: small iff it is at most 1,900 bytes. The
checksum covers the entry's key and every byte after itself: a key whose bits changed gives its
value to nobody. The padding rule exists because LMDB puts a value above some 2,000 bytes on
overflow pages of its own, 16 bytes of header included: a value that ends inside a page would leave
the previous tenant's bytes readable behind it, and would waste what it does not use.

This file knows nothing of tables or transactions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from google_crc32c import value as crc32c

from memdb.errors import StoreCorrupt

from_bytes = int.from_bytes
SMALL_MAX_BYTES = 1_900
SMALL_PAYLOAD_MAX_BYTES = SMALL_MAX_BYTES - 4
_PAGE_BYTES = 4_096
_PAGE_HEADER_BYTES = 16
_CRC = struct.Struct("<I")
_LENGTH = struct.Struct("<I")


def seal(key: bytes, payload: bytes) -> bytes:
    """The stored form of ``payload`` under ``key``."""
    if len(payload) <= SMALL_PAYLOAD_MAX_BYTES:
        return _CRC.pack(crc32c(key + payload)) + payload
    used = 8 + len(payload)
    padding = -(used + _PAGE_HEADER_BYTES) % _PAGE_BYTES
    body = b"".join((_LENGTH.pack(len(payload)), payload, bytes(padding)))
    return _CRC.pack(crc32c(key + body)) + body


def seal_many(items: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """(key, stored form) of many (key, payload); the same as ``seal``, without a call each."""
    pack, checksum, limit = _CRC.pack, crc32c, SMALL_PAYLOAD_MAX_BYTES
    return [
        (key, pack(checksum(key + payload)) + payload)
        if len(payload) <= limit
        else (key, seal(key, payload))
        for key, payload in items
    ]


def unseal(key: bytes, value: bytes) -> bytes:
    """The payload of a sealed value; ``StoreCorrupt`` if a bit of it or of its key changed."""
    body = value[4:]
    if len(value) < 4 or crc32c(key + body) != from_bytes(value[:4], "little"):
        raise StoreCorrupt("a stored value fails its checksum", path="kv")
    if len(value) <= SMALL_MAX_BYTES:
        return body
    (length,) = _LENGTH.unpack_from(body)
    return body[4 : 4 + length]


def unseal_until(entries: Iterable[tuple[bytes, bytes]], stop: bytes) -> list[tuple[bytes, bytes]]:
    """(key, payload) of the entries before ``stop``; as ``unseal``, without a call each."""
    found: list[tuple[bytes, bytes]] = []
    add, checksum, limit = found.append, crc32c, SMALL_MAX_BYTES
    for key, value in entries:
        if key >= stop:
            break
        body = value[4:]
        if not 4 <= len(value) <= limit or checksum(key + body) != from_bytes(value[:4], "little"):
            body = unseal(key, value)  # a large value, or one to be refused
        add((key, body))
    return found


def obeys_size_rule(value: bytes) -> bool:
    """Whether a stored value's length satisfies the grammar above."""
    return len(value) <= SMALL_MAX_BYTES or (len(value) + _PAGE_HEADER_BYTES) % _PAGE_BYTES == 0
