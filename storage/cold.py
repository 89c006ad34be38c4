"""Cold records: up to 64 hot records of one aligned group of rows in one compressed value.

A hot record is the msgpack array of ``memdb.types.Memory``. A cold block keeps the same bytes by
field instead of by record, because a field resembles its neighbours (the same source, namespace
and kind; ids and times that differ in their last digits), and all texts in a row, so that zstd
finds what they share. Nothing is trained on user data: the block is its own dictionary, so that
rewriting the block is all that an erasure needs.

Grammar (integers little-endian)::

    block    := version u8 = 1 | size u8 | present u64 (bit i: record i) | zstd frame of body
    body     := msgpack [width, [column ...], [[index, record] ...]]
    column   := [0, raw]                     one field, or several in a row, the same in all records
              | [1, lengths, raws]           the field's msgpack bytes in a row
              | [2, nils u64, integers]      microseconds of times; bit i of nils: the i-th is nil
              | [3, planes]                  ULIDs: n x 16 bytes, byte plane by byte plane
    lengths  := [item size, array of unsigned]
    integers := see ``columns``

The columns stand for the ``width`` fields in their order. A column takes form 2 or 3 only where
that gives each field's bytes back; a record whose bytes the columns would not give back (another
version's width, say) stands whole in the last list. So what comes out is what went in, byte for
byte, whatever it was.

This file knows bytes and ``Memory``; it does not know rows, tables or what a field means.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memdb.errors import StoreCorrupt
from memdb.storage.columns import compress, decode_ints, decompress, encode_ints
from memdb.storage.ids import parse_id
from memdb.types import Memory

MAX_RECORDS = 64
_VERSION = 1
_LEVEL = 12
_HEAD = struct.Struct("<BBQ")
_CONSTANT, _PLAIN, _TIMES, _IDS = range(4)
_LENGTH_TYPES = {1: "<u1", 2: "<u2", 4: "<u4"}

_SECOND_US = 1_000_000
_NIL = b"\xc0"
_TIME_32 = b"\xd6\xff"
_TIME_64 = b"\xd7\xff"
_STR_26 = 0xA0 | 26
_BASE32 = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", dtype=np.uint8)
_FIVE_BITS = np.array([16, 8, 4, 2, 1], dtype=np.uint8)

_FIELDS = msgspec.msgpack.Decoder(list[msgspec.Raw])
_MEMORY = msgspec.msgpack.Decoder(Memory)
_BODY = msgspec.msgpack.Decoder()


def encode(records: Sequence[bytes | None]) -> bytes:
    """The block of up to 64 hot records; None where there is none."""
    if len(records) > MAX_RECORDS:
        raise ValueError(f"a cold block holds at most {MAX_RECORDS} records")
    present = [record for record in records if record is not None]
    mask = sum(1 << i for i, record in enumerate(records) if record is not None)
    split = [_split(record) for record in present]
    widths = Counter(len(fields) for fields in split if fields)
    width = widths.most_common(1)[0][0] if widths else 0
    regular = [fields for fields in split if len(fields) == width] if width else []
    odd = [
        [place, record]
        for place, (record, fields) in enumerate(zip(present, split, strict=True))
        if not width or len(fields) != width
    ]
    body = msgspec.msgpack.encode([width, _encode_columns(regular), odd])
    return _HEAD.pack(_VERSION, len(records), mask) + compress(body, _LEVEL)


def decode(payload: bytes, indexes: Iterable[int] | None = None) -> list[Memory | None]:
    """The memories of a block, None where there is none: all, or those at ``indexes``."""
    try:
        return [
            None if record is None else _MEMORY.decode(record)
            for record in decode_raw(payload, indexes)
        ]
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreCorrupt("a cold record does not decode", path="kv") from error


def decode_raw(payload: bytes, indexes: Iterable[int] | None = None) -> list[bytes | None]:
    """The hot records of a block as bytes: all, or those at ``indexes``."""
    try:
        version, size, mask = _HEAD.unpack_from(payload)
        if version != _VERSION:
            raise StoreCorrupt("a cold block has an unknown version", path="kv")
        width, columns, odd = _BODY.decode(decompress(memoryview(payload)[_HEAD.size :]))
        count = mask.bit_count()
        regular = iter(_decode_columns(width, columns, count - len(odd)))
        whole = dict(odd)
        present = [whole[i] if i in whole else next(regular) for i in range(count)]
    except (struct.error, ValueError, LookupError, TypeError, StopIteration) as error:
        raise StoreCorrupt("a cold block does not decode", path="kv") from error
    stream = iter(present)
    records = [next(stream) if mask >> i & 1 else None for i in range(size)]
    return records if indexes is None else [records[i] for i in indexes]


def held(payload: bytes) -> set[int]:
    """The indexes of the records that a block holds; nothing is decompressed."""
    try:
        version, size, mask = _HEAD.unpack_from(payload)
    except struct.error as error:
        raise StoreCorrupt("a cold block does not decode", path="kv") from error
    if version != _VERSION:
        raise StoreCorrupt("a cold block has an unknown version", path="kv")
    return {index for index in range(size) if mask >> index & 1}


def without(payload: bytes, indexes: Iterable[int]) -> bytes:
    """The block written anew without the bytes of the records at ``indexes``."""
    records = decode_raw(payload)
    for index in indexes:
        records[index] = None
    return encode(records)


def _array_header(width: int) -> bytes:
    return bytes((0x90 | width,)) if width < 16 else b"\xdc" + width.to_bytes(2, "big")


def _split(record: bytes) -> list[bytes]:
    """The msgpack bytes of each field; empty when joining them would not give ``record``."""
    try:
        fields = [bytes(raw) for raw in _FIELDS.decode(record)]
    except (msgspec.DecodeError, ValueError):
        return []
    if len(fields) > 0xFFFF or b"".join((_array_header(len(fields)), *fields)) != record:
        return []
    return fields


def _encode_columns(records: Sequence[list[bytes]]) -> list[list[Any]]:
    columns: list[list[Any]] = []
    for raws in zip(*records, strict=True):
        if raws.count(raws[0]) == len(raws):
            if columns and columns[-1][0] == _CONSTANT:
                columns[-1][1] += raws[0]
            else:
                columns.append([_CONSTANT, raws[0]])
        else:
            columns.append(_encode_ids(raws) or _encode_times(raws) or _encode_plain(raws))
    return columns


def _decode_columns(width: int, columns: list[list[Any]], count: int) -> Iterable[bytes]:
    parts: list[Iterable[bytes]] = [repeat(_array_header(width), count)]
    for form, *rest in columns:
        if form == _CONSTANT:
            parts.append(repeat(rest[0], count))
        elif form == _PLAIN:
            parts.append(_decode_plain(*rest))
        elif form == _TIMES:
            parts.append(_decode_times(count, *rest))
        elif form == _IDS:
            parts.append(_decode_ids(*rest))
        else:
            raise ValueError("unknown form of a column")
    return map(b"".join, zip(*parts, strict=True))


# --- plain fields -------------------------------------------------------------------------


def _encode_plain(raws: Sequence[bytes]) -> list[Any]:
    longest = max(map(len, raws))
    size = 1 if longest < 1 << 8 else 2 if longest < 1 << 16 else 4
    lengths = np.array([len(raw) for raw in raws], dtype=_LENGTH_TYPES[size])
    return [_PLAIN, [size, lengths.tobytes()], b"".join(raws)]


def _decode_plain(lengths: list[Any], joined: bytes) -> list[bytes]:
    raws = []
    start = 0
    for length in np.frombuffer(lengths[1], dtype=_LENGTH_TYPES[lengths[0]]).tolist():
        raws.append(joined[start : start + length])
        start += length
    return raws


# --- times --------------------------------------------------------------------------------


def _encode_times(raws: Sequence[bytes]) -> list[Any] | None:
    micros = [_time_of(raw) for raw in raws if raw != _NIL]
    known = [moment for moment in micros if moment is not None]
    if not known or len(known) != len(micros):
        return None
    nils = sum(1 << i for i, raw in enumerate(raws) if raw == _NIL)
    return [_TIMES, nils, encode_ints(np.array(known, dtype=np.int64))]


def _decode_times(count: int, nils: int, integers: list[Any]) -> Iterable[bytes]:
    known = map(_time_raw, decode_ints(integers, count - nils.bit_count()).tolist())
    if not nils:
        return list(known)
    return [_NIL if nils >> i & 1 else next(known) for i in range(count)]


def _time_of(raw: bytes) -> int | None:
    """Microseconds of a msgpack timestamp, if ``_time_raw`` gives its bytes back."""
    if len(raw) == 6 and raw.startswith(_TIME_32):
        micros = int.from_bytes(raw[2:], "big") * _SECOND_US
    elif len(raw) == 10 and raw.startswith(_TIME_64):
        number = int.from_bytes(raw[2:], "big")
        micros = (number & ((1 << 34) - 1)) * _SECOND_US + (number >> 34) // 1000
    else:
        return None
    return micros if _time_raw(micros) == raw else None


def _time_raw(micros: int) -> bytes:
    """The msgpack timestamp of a time from 1970 on, in its shortest form."""
    seconds, rest = divmod(micros, _SECOND_US)
    if rest == 0 and seconds >> 32 == 0:
        return _TIME_32 + seconds.to_bytes(4, "big")
    return _TIME_64 + (rest * 1000 << 34 | seconds).to_bytes(8, "big")


# --- ids ----------------------------------------------------------------------------------


def _encode_ids(raws: Sequence[bytes]) -> list[Any] | None:
    if any(len(raw) != 27 or raw[0] != _STR_26 for raw in raws):
        return None
    packed = [parse_id(raw[1:].decode("latin-1")) for raw in raws]
    known = [raw for raw in packed if raw is not None]
    if len(known) != len(raws):
        return None
    octets = np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 16)
    if _write_ids(octets) != list(raws):  # lower case would come back as capitals
        return None
    return [_IDS, octets.T.tobytes()]


def _decode_ids(planes: bytes) -> list[bytes]:
    return _write_ids(np.frombuffer(planes, dtype=np.uint8).reshape(16, -1).T)


def _write_ids(octets: NDArray[np.uint8]) -> list[bytes]:
    """(n, 16) bytes as msgpack strings of 26 characters each."""
    count = len(octets)
    bits = np.zeros((count, 130), dtype=np.uint8)
    bits[:, 2:] = np.unpackbits(octets, axis=1)
    text = np.empty((count, 27), dtype=np.uint8)
    text[:, 0] = _STR_26
    text[:, 1:] = _BASE32[bits.reshape(count, 26, 5) @ _FIVE_BITS]
    joined = text.tobytes()
    return [joined[at : at + 27] for at in range(0, len(joined), 27)]
