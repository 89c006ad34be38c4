"""Cold records: hot records of one aligned group of rows in one compressed value.

A hot record is the msgpack array of ``memdb.types.Memory``. A cold block keeps the same bytes by
field instead of by record, because a field resembles its neighbours (the same source, namespace
and kind; ids and times that differ in their last digits), and all texts in a row, so that zstd
finds what they share. Nothing is trained on user data: the block is its own dictionary, so that
rewriting the block is all that an erasure needs.

Grammar (integers little-endian)::

    block    := version u8 = 1 | size u8 | present u64 (bit i: record i) | zstd frame of body
              | version u8 = 2 or 3 | size u16 | present (bit i: record i) | zstd frame of body
    body     := msgpack [width, [column ...], [[index, record] ...]]
    column   := [0, raw]                     one field, or several in a row, the same in all records
              | [1, lengths, raws]           the field's msgpack bytes in a row
              | [2, nils, integers]          microseconds of times; bit i of nils: the i-th is nil
              | [3, planes]                  ULIDs: n x 16 bytes, byte plane by byte plane
    lengths  := [item size, array of unsigned]
    integers := see ``columns``

The first form is of 64 records, as one transaction freezes them; ``nils`` is a number in it. The
second is of 256, ``nils`` and ``present`` bytes; a copy of the store makes such *groups* where room
is dear (``packing``). They take a third less, and a record of one is read about as fast: only what
is wanted is taken out of the columns, and the last groups opened are remembered. Version 3 is a
group that lost records and was compressed in haste; the next copy makes it 2 again.

The columns stand for the ``width`` fields in their order. A column takes form 2 or 3 only where
that gives each field's bytes back; a record whose bytes the columns would not give back (another
version's width, say) stands whole in the last list. So what comes out is what went in, byte for
byte, whatever it was.

This file knows bytes and ``Memory``; it does not know rows, tables or what a field means.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
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
GROUP_BITS = 8
GROUP_RECORDS = 1 << GROUP_BITS
_VERSION, _GROUP, _HASTY_GROUP = 1, 2, 3
_LEVEL = 12
_GROUP_LEVEL, _HASTY_LEVEL = 12, 3
_HEAD = struct.Struct("<BBQ")
_GROUP_HEAD = struct.Struct("<BH")
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
    mask = sum(1 << i for i, record in enumerate(records) if record is not None)
    body = _encode_body([record for record in records if record is not None], grouped=False)
    return _HEAD.pack(_VERSION, len(records), mask) + compress(body, _LEVEL)


def encode_group(records: Sequence[bytes | None], *, hasty: bool = False) -> bytes:
    """The group of ``GROUP_RECORDS`` hot records; None where there is none.

    A group in haste is written again by the next copy that packs: ``is_hasty``.
    """
    if len(records) > GROUP_RECORDS:
        raise ValueError(f"a group holds at most {GROUP_RECORDS} records")
    mask = sum(1 << i for i, record in enumerate(records) if record is not None)
    body = _encode_body([record for record in records if record is not None], grouped=True)
    version, level = (_HASTY_GROUP, _HASTY_LEVEL) if hasty else (_GROUP, _GROUP_LEVEL)
    head = _GROUP_HEAD.pack(version, len(records))
    return head + mask.to_bytes((len(records) + 7) // 8, "little") + compress(body, level)


def is_hasty(payload: bytes) -> bool:
    """Whether the group was compressed in haste."""
    return payload[:1] == bytes((_HASTY_GROUP,))


def _encode_body(present: Sequence[bytes], *, grouped: bool) -> bytes:
    split = [_split(record) for record in present]
    widths = Counter(len(fields) for fields in split if fields)
    width = widths.most_common(1)[0][0] if widths else 0
    regular = [fields for fields in split if len(fields) == width] if width else []
    odd = [
        [place, record]
        for place, (record, fields) in enumerate(zip(present, split, strict=True))
        if not width or len(fields) != width
    ]
    return msgspec.msgpack.encode([width, _encode_columns(regular, grouped), odd])


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
    size, mask, frame = _head(payload)
    wanted = list(range(size) if indexes is None else indexes)
    try:
        if any(index >= size for index in wanted):
            raise StoreCorrupt("a cold block lacks a record", path="kv")
        grouped = payload[:1] != bytes((_VERSION,))
        width, columns, odd = _group_body(bytes(frame)) if grouped else _open(frame)
        count = mask.bit_count()
        places = [
            (mask & (1 << index) - 1).bit_count() if mask >> index & 1 else -1 for index in wanted
        ]
        whole = dict(odd)
        before = sorted(whole)
        regular = [p - bisect_left(before, p) for p in places if p >= 0 and p not in whole]
        found = iter(_decode_columns(width, columns, count - len(odd), regular))
        return [None if p < 0 else whole[p] if p in whole else next(found) for p in places]
    except (struct.error, ValueError, LookupError, TypeError, StopIteration) as error:
        raise StoreCorrupt("a cold block does not decode", path="kv") from error


def _open(frame: bytes | memoryview) -> Any:
    return _BODY.decode(decompress(frame))


@lru_cache(32)
def _group_body(frame: bytes) -> Any:
    """As ``_open``, remembered: a recall looks into a group at several stages. Some 60 KB each."""
    return _open(frame)


def _head(payload: bytes) -> tuple[int, int, memoryview]:
    """(records there is room for, which are present, the compressed body)."""
    view = memoryview(payload)
    try:
        if payload[:1] in (bytes((_GROUP,)), bytes((_HASTY_GROUP,))):
            _, size = _GROUP_HEAD.unpack_from(payload)
            end = _GROUP_HEAD.size + (size + 7) // 8
            return size, int.from_bytes(view[_GROUP_HEAD.size : end], "little"), view[end:]
        version, size, mask = _HEAD.unpack_from(payload)
    except struct.error as error:
        raise StoreCorrupt("a cold block does not decode", path="kv") from error
    if version != _VERSION:
        raise StoreCorrupt("a cold block has an unknown version", path="kv")
    return size, mask, view[_HEAD.size :]


def held(payload: bytes) -> set[int]:
    """The indexes of the records that a block holds; nothing is decompressed."""
    size, mask, _ = _head(payload)
    return {index for index in range(size) if mask >> index & 1}


def without(payload: bytes, indexes: Iterable[int]) -> bytes:
    """The block written anew without the bytes of the records at ``indexes``."""
    records = decode_raw(payload)
    for index in indexes:
        records[index] = None
    if payload[:1] == bytes((_VERSION,)):
        return encode(records)
    return encode_group(records, hasty=True)


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


def _encode_columns(records: Sequence[list[bytes]], grouped: bool) -> list[list[Any]]:
    columns: list[list[Any]] = []
    for raws in zip(*records, strict=True):
        if raws.count(raws[0]) == len(raws):
            if columns and columns[-1][0] == _CONSTANT:
                columns[-1][1] += raws[0]
            else:
                columns.append([_CONSTANT, raws[0]])
        else:
            columns.append(_encode_ids(raws) or _encode_times(raws, grouped) or _encode_plain(raws))
    return columns


def _decode_columns(
    width: int, columns: list[list[Any]], count: int, wanted: list[int]
) -> Iterable[bytes]:
    """The records at ``wanted`` of the ``count`` that the columns hold."""
    if not wanted:
        return ()
    parts: list[Iterable[bytes]] = [repeat(_array_header(width), len(wanted))]
    for form, *rest in columns:
        if form == _CONSTANT:
            parts.append(repeat(rest[0], len(wanted)))
        elif form == _PLAIN:
            parts.append(_decode_plain(rest[0], rest[1], wanted))
        elif form == _TIMES:
            parts.append(_decode_times(count, rest[0], rest[1], wanted))
        elif form == _IDS:
            parts.append(_decode_ids(rest[0], wanted))
        else:
            raise ValueError("unknown form of a column")
    return map(b"".join, zip(*parts, strict=True))


# --- plain fields -------------------------------------------------------------------------


def _encode_plain(raws: Sequence[bytes]) -> list[Any]:
    longest = max(map(len, raws))
    size = 1 if longest < 1 << 8 else 2 if longest < 1 << 16 else 4
    lengths = np.array([len(raw) for raw in raws], dtype=_LENGTH_TYPES[size])
    return [_PLAIN, [size, lengths.tobytes()], b"".join(raws)]


def _decode_plain(lengths: list[Any], joined: bytes, wanted: list[int]) -> list[bytes]:
    sizes = np.frombuffer(lengths[1], dtype=_LENGTH_TYPES[lengths[0]])
    stops = np.cumsum(sizes, dtype=np.int64)
    if not len(stops) or stops[-1] != len(joined):
        raise ValueError("a column has another length than its fields")
    ends = stops[wanted].tolist()
    starts = (stops[wanted] - sizes[wanted]).tolist()
    return [joined[start:stop] for start, stop in zip(starts, ends, strict=True)]


# --- times --------------------------------------------------------------------------------


def _encode_times(raws: Sequence[bytes], grouped: bool) -> list[Any] | None:
    micros = [_time_of(raw) for raw in raws if raw != _NIL]
    known = [moment for moment in micros if moment is not None]
    if not known or len(known) != len(micros):
        return None
    nils = sum(1 << i for i, raw in enumerate(raws) if raw == _NIL)
    marks = nils.to_bytes((nils.bit_length() + 7) // 8, "little") if grouped else nils
    return [_TIMES, marks, encode_ints(np.array(known, dtype=np.int64))]


def _decode_times(
    count: int, marks: int | bytes, integers: list[Any], wanted: list[int]
) -> list[bytes]:
    nils = int.from_bytes(marks, "little") if isinstance(marks, bytes) else marks
    known = decode_ints(integers, count - nils.bit_count())
    if not nils:
        return [_time_raw(micros) for micros in known[wanted].tolist()]
    return [
        _NIL if nils >> i & 1 else _time_raw(int(known[i - (nils & (1 << i) - 1).bit_count()]))
        for i in wanted
    ]


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


def _decode_ids(planes: bytes, wanted: list[int]) -> list[bytes]:
    octets = np.frombuffer(planes, dtype=np.uint8).reshape(16, -1)
    return _write_ids(np.ascontiguousarray(octets[:, wanted].T))


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
