"""How series lie in the store: keys, ids, and the registry of series.

A series is one (namespace, kind, stream, source). Its samples get ascending sequence numbers; a
sample is known by its series and its number, for good: ``s_<series>_<number>``. Tables and keys
(``series`` stands for 8 bytes of keyed hash of the four names, so that no key holds a name):

    meta     "series/" series             ``Series``: the names and the counters
    meta     "series-due/" series         empty: a block of fresh samples waits to be sealed
    meta     "series-hidden/" series      roaring bitmap (64 bit) of the numbers that are hidden
    samples  series | number u64          a fresh sample, msgpack of ``Sample``; or, at the first
                                          number of a sealed block, the list of its segments'
                                          first times, msgpack
    series   series | time u64 | block u32   a segment, see ``series_codec``; time is its first

A block is 1,024 numbers, aligned; number // 1,024 is the block's. This file knows keys and
headers; it does not know what samples hold.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from pyroaring import BitMap64

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

BLOCK = 1_024
MIN_US, MAX_US = -(1 << 63), (1 << 63) - 1
DUE = b"series-due/"
_HEADER = b"series/"
_HIDDEN = b"series-hidden/"
_SEGMENT_TAIL = struct.Struct(">QI")
_STARTS = msgspec.msgpack.Decoder(list[int])

pack = msgspec.msgpack.Encoder().encode


class SeriesKey(NamedTuple):
    """What makes a series."""

    namespace: str
    kind: str
    stream: str | None
    source: str


class Series(msgspec.Struct, frozen=True, array_like=True):
    """What the store keeps of one series. Its names are empty once every sample is erased."""

    key: SeriesKey
    next_number: int = 0
    sealed: int = 0  # numbers below this are in blocks
    samples: int = 0  # not erased; hidden ones count
    hidden: int = 0
    widest_us: int = 0  # the longest span of a segment, ever


_HEADERS = msgspec.msgpack.Decoder(Series)


def format_id(series: bytes, number: int) -> str:
    """The public id of a sample. Never 26 characters of Crockford's alphabet, as a ULID is."""
    return f"s_{series.hex()}_{number}"


def format_ids(series: bytes, numbers: Iterable[int]) -> list[str]:
    """``format_id`` of each."""
    head = format_id(series, 0)[:-1]
    return [f"{head}{number}" for number in numbers]


def parse_id(text: str) -> tuple[bytes, int] | None:
    """(series, number) of a sample's id; None when ``text`` is not one."""
    head, _, rest = text.partition("_")
    name, _, digits = rest.partition("_")
    if head != "s" or len(name) != 16 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        found = bytes.fromhex(name), int(digits)
    except ValueError:
        return None
    return found if found[1] < 1 << 62 and format_id(*found) == text else None


# --- the registry -------------------------------------------------------------------------


def name_of(txn: ReadTxn, key: SeriesKey) -> bytes:
    """The 8 bytes that stand for a series in keys and ids."""
    return txn.digest(b"series" + pack(key), 8)


def read_header(txn: ReadTxn, series: bytes) -> Series | None:
    payload = txn.get(tables.META, _HEADER + series)
    return None if payload is None else _HEADERS.decode(payload)


def every(txn: ReadTxn) -> Iterator[tuple[bytes, Series]]:
    """(name, header) of each series that has samples."""
    for key, payload in txn.scan(tables.META, _HEADER, following(_HEADER)):
        header = _HEADERS.decode(payload)
        if header.samples:
            yield key[len(_HEADER) :], header


def matching(
    txn: ReadTxn, *, namespace: str = "", kind: str | None = None, stream: str | None = None
) -> dict[bytes, Series]:
    """The series in a namespace and everything under it, of a kind, of a stream."""
    return {
        series: header
        for series, header in every(txn)
        if (not namespace or f"{header.key.namespace}/".startswith(f"{namespace}/"))
        and (kind is None or header.key.kind == kind)
        and (stream is None or header.key.stream == stream)
    }


def put_header(txn: WriteTxn, series: bytes, header: Series) -> None:
    if not header.samples:  # erased: the counters stay, so that no id is given twice
        header = msgspec.structs.replace(header, key=SeriesKey("", "", None, ""))
    txn.put(tables.META, _HEADER + series, pack(header))


def read_hidden(txn: ReadTxn, series: bytes) -> BitMap64:
    payload = txn.get(tables.META, _HIDDEN + series)
    return BitMap64() if payload is None else BitMap64.deserialize(payload)


def put_hidden(txn: WriteTxn, series: bytes, numbers: BitMap64) -> None:
    if numbers:
        numbers.run_optimize()
        txn.put(tables.META, _HIDDEN + series, numbers.serialize())
    else:
        txn.delete(tables.META, _HIDDEN + series)


def following(prefix: bytes) -> bytes:
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


def sample_key(series: bytes, number: int) -> bytes:
    return series + number.to_bytes(8, "big")


def segment_key(series: bytes, start_us: int, block: int) -> bytes:
    return series + _SEGMENT_TAIL.pack(start_us + (1 << 63), block)


def by_series(ids: Iterable[str]) -> dict[bytes, set[int]]:
    grouped: dict[bytes, set[int]] = {}
    for text in ids:
        parsed = parse_id(text)
        if parsed is not None:
            grouped.setdefault(parsed[0], set()).add(parsed[1])
    return grouped


def read_starts(txn: ReadTxn, series: bytes, block: int) -> list[int]:
    """The first times of the segments of a sealed block."""
    payload = txn.get(tables.SAMPLES, sample_key(series, block * BLOCK))
    if payload is None:
        raise StoreCorrupt("a series lacks the list of a block's segments", path="kv")
    return _STARTS.decode(payload)
