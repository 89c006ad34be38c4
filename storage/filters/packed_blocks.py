"""Blocks of (key, row) as a packing copy leaves them: columns of differences.

    payload := version u8 = 1 | zstd frame of msgpack [n, [keys], [rows]] | 0 u8, or not

``keys`` and ``rows`` are as in ``columns``: times of one day and rows of one import differ by
little, and take 1 to 3 bytes together instead of 12. A payload of ``ordered`` that is not packed
has twelve bytes an entry; so a packed one never has a multiple of twelve: the last byte sees to it.
A block that entries join is written unpacked, in pieces; one that entries leave stays packed. This
file knows payloads; it does not know fields, and it writes no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage import cutting
from memdb.storage.columns import compress, decode_ints, decompress, encode_ints

Columns = tuple[NDArray[np.uint64], NDArray[np.uint32]]
Pair = tuple[bytes, bytes]

ENTRY_BYTES: Final = 12
_MOST: Final = 256
"""Entries of a block: a range and a removal take a block apart to get at one of them."""
_FEW: Final = 64
"""A packed block of fewer entries joins its neighbours in the next packing copy."""
_VERSION: Final = b"\1"
_LEVEL: Final = 9
_BODY = msgspec.msgpack.Decoder()


def is_packed(payload: bytes) -> bool:
    return len(payload) % ENTRY_BYTES != 0


def columns(payload: bytes) -> Columns:
    """Keys (n,) and rows (n,) of a payload of either form; not to be written to."""
    if is_packed(payload):
        return _decode(bytes(payload))
    count = len(payload) // ENTRY_BYTES
    return np.frombuffer(payload, "<u8", count), np.frombuffer(payload, "<u4", count, 8 * count)


def plain(payload: bytes) -> bytes:
    """The same entries, twelve bytes each."""
    return _plain(*_decode(bytes(payload))) if is_packed(payload) else payload


def _plain(keys: NDArray[np.uint64], rows: NDArray[np.uint32]) -> bytes:
    return keys.astype("<u8").tobytes() + rows.astype("<u4").tobytes()


def encode(keys: NDArray[np.uint64], rows: NDArray[np.uint32]) -> bytes:
    """Entries (n,) and (n,), n >= 1, as a packed payload."""
    body = [len(keys), encode_ints(keys.view(np.int64)), encode_ints(rows.astype(np.int64))]
    payload = _VERSION + compress(msgspec.msgpack.encode(body), _LEVEL)
    return payload if is_packed(payload) else payload + b"\0"


@lru_cache(64)
def _decode(payload: bytes) -> Columns:
    try:
        if payload[:1] != _VERSION:
            raise StoreCorrupt("a packed block of entries has an unknown version", path="kv")
        count, keys, rows = _BODY.decode(decompress(payload[1:]))
        found = (
            decode_ints(keys, count).view(np.uint64).astype("<u8"),
            decode_ints(rows, count).astype("<u4"),
        )
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise StoreCorrupt("a packed block of entries does not decode", path="kv") from error
    if len(found[0]) != len(found[1]) or not len(found[0]):
        raise StoreCorrupt("a packed block of entries has columns of two lengths", path="kv")
    for column in found:
        column.setflags(write=False)
    return found


def packed(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """A table's (key, payload), in key order, with its blocks packed. A key begins with a field,
    two bytes, and ends in the first entry's."""
    loose: list[bytes] = []
    field = b""
    for key, payload in pairs:
        whole = is_packed(payload) and len(columns(payload)[0]) >= _FEW
        if loose and (whole or key[:2] != field):
            yield from _pack(field, loose)
            loose = []
        if whole:
            yield key, payload
        else:
            field = key[:2]
            loose.append(payload)
    if loose:
        yield from _pack(field, loose)


def _pack(field: bytes, payloads: list[bytes]) -> Iterator[Pair]:
    both = [columns(payload) for payload in payloads]
    keys = np.concatenate([one for one, _ in both])
    rows = np.concatenate([one for _, one in both])

    def piece(start: int, stop: int) -> bytes:
        return encode(keys[start:stop], rows[start:stop])

    for start, stop, payload in cutting.cut(len(keys), _MOST, piece):
        name = field + int(keys[start]).to_bytes(8, "big") + int(rows[start]).to_bytes(4, "big")
        small = ENTRY_BYTES * (stop - start) < len(payload)
        yield name, _plain(keys[start:stop], rows[start:stop]) if small else payload
