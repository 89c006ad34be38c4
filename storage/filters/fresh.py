"""Rows that are written and not yet filed: what each would be filed under, in one small value.

    table key     := row u32
    table payload := sets u16 | texts u16 | entries u16
                     | (field u16 big-endian | code 8) * sets    first those of the texts, in order
                     | (field u16 | key u64) * entries           numbers and times
                     | { text FF } * texts                       strings that are kept in order

Filing one row touches some forty pages of bitmaps and blocks; this value touches two. Rows are
filed together later (``FilterIndex.fold``), so a row is fresh or filed, never both, and whoever
reads joins the two. A value is small (``values.py``): a row with more to file is filed at once.
``fresh_view`` answers questions about all fresh rows at once. This file knows rows, prefixes and
keys; it knows no field and no operator.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES

_HEAD = struct.Struct("<HHH")
_ENTRY = struct.Struct("<HQ")
_PREFIX_BYTES = 10
_WRITTEN: Final = "fresh filters, written"
_LOOKED_UP: Final = 16  # rows that are looked up one by one, rather than all fresh ones read


class Entries(NamedTuple):
    """What one row is filed under. ``sets``: (prefix, text if it is kept in order or None)."""

    sets: list[tuple[bytes, bytes | None]]
    ordered: list[tuple[int, int]]  # (field, key)


def put(txn: WriteTxn, row: int, entries: Entries) -> bool:
    """Keep a row's entries; False, and nothing written, where they are too many for this."""
    texts = [pair for pair in entries.sets if pair[1] is not None]
    others = [pair for pair in entries.sets if pair[1] is None]
    payload = b"".join(
        [
            _HEAD.pack(len(entries.sets), len(texts), len(entries.ordered)),
            *[prefix for prefix, _ in texts],
            *[prefix for prefix, _ in others],
            *[_ENTRY.pack(field, key) for field, key in entries.ordered],
            *[(text or b"") + b"\xff" for _, text in texts],
        ]
    )
    if len(payload) > SMALL_PAYLOAD_MAX_BYTES:
        return False
    txn.put(tables.FRESH_FILTERS, row_key(row), payload)
    written(txn).add(row)
    return True


def get(txn: ReadTxn, row: int) -> Entries | None:
    """The entries of a row; None where it is not fresh."""
    payload = txn.get(tables.FRESH_FILTERS, row_key(row))
    return None if payload is None else decode(payload)


def written(txn: WriteTxn) -> set[int]:
    """Rows whose values this transaction wrote or deleted; views of them clear it."""
    found: set[int] = txn.scratch.setdefault(_WRITTEN, set())
    return found


def drop(txn: WriteTxn, row: int) -> bool:
    """Whether the row was fresh."""
    written(txn).add(row)
    return txn.delete(tables.FRESH_FILTERS, row_key(row))


def count(txn: ReadTxn) -> int:
    return txn.count(tables.FRESH_FILTERS)


def all_rows(txn: ReadTxn) -> BitMap:
    """Every fresh row; no value is read."""
    return _rows(txn.scan_keys(tables.FRESH_FILTERS))


def among(txn: ReadTxn, rows: Iterable[int]) -> list[int]:
    """Those of ``rows`` that are fresh, ascending."""
    wanted = BitMap(rows)
    if len(wanted) <= _LOOKED_UP:
        return [row for row in wanted if txn.exists(tables.FRESH_FILTERS, row_key(row))]
    if not count(txn):
        return []
    return list(all_rows(txn) & wanted)


def lowest(txn: ReadTxn, at_most: int) -> list[int]:
    """The first fresh rows, ascending."""
    return list(_rows(islice(txn.scan_keys(tables.FRESH_FILTERS), at_most)))


def discard(txn: WriteTxn, prefix: bytes, rows: Iterable[int]) -> None:
    """Take fresh rows out of a set that has no texts."""
    for row in among(txn, rows):
        entries = get(txn, row)
        if entries is not None and (prefix, None) in entries.sets:
            entries.sets.remove((prefix, None))
            put(txn, row, entries)


def drop_damaged(txn: WriteTxn) -> list[int]:
    """Delete the values that fail their checksum or have no known form; returns their rows."""
    damaged = []
    for row in lowest(txn, count(txn)):
        try:
            get(txn, row)
        except StoreCorrupt:
            damaged.append(row)
    for row in damaged:
        drop(txn, row)
    return damaged


def row_key(row: int) -> bytes:
    return row.to_bytes(4, "big")


def _rows(keys: Iterable[bytes]) -> BitMap:
    rows = array("I", b"".join(keys))
    if sys.byteorder == "little":
        rows.byteswap()
    return BitMap(rows)


def decode(payload: bytes) -> Entries:
    """The entries of a payload; ``StoreCorrupt`` where it has no known form."""
    sets, texts, ordered = _HEAD.unpack_from(payload) if len(payload) >= _HEAD.size else (0, 1, 0)
    cut = _HEAD.size + _PREFIX_BYTES * sets
    end = cut + _ENTRY.size * ordered
    strings: list[bytes | None] = [*payload[end:].split(b"\xff")[:-1]]
    if texts > sets or len(payload) < end or payload.count(b"\xff", end) != texts:
        raise StoreCorrupt("a row's fresh filter entries have no known form", path="kv")
    strings += [None] * (sets - texts)
    starts = range(_HEAD.size, cut, _PREFIX_BYTES)
    return Entries(
        list(zip([payload[at : at + _PREFIX_BYTES] for at in starts], strings, strict=True)),
        list(_ENTRY.iter_unpack(payload[cut:end])),
    )
