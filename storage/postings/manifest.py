"""Which segments exist, which are being merged, and the totals BM25 needs.

Kept in ``meta``::

    postings             the manifest below, msgpack
    postings/<segment>   the rows of one segment, a roaring bitmap
    postings_totals      docs u64 | sum of lengths u64
    postings_gone        rows that went from packed segments, a roaring bitmap; absent: none

A segment is readable iff it is in ``segments``. A merge writes its target while the sources stay
in ``segments``; its last slice swaps them in one commit and moves the sources to ``dropping``,
whose entries later slices delete. Entries of any other segment do not exist. Segments in ``packed``
have a form of their own (``packed``) and are neither merged nor changed.
"""

from __future__ import annotations

import struct
from array import array
from typing import Final, NamedTuple

import msgspec
import numpy as np
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn

_MANIFEST_KEY: Final = b"postings"
_TOTALS_KEY: Final = b"postings_totals"
_TOTALS: Final = struct.Struct("<QQ")
_GONE_KEY: Final = b"postings_gone"
# Ids kept free below a merge's target, for what is folded while the merge runs: the target then
# stays the table's last segment and its slices are appended, which fills pages instead of halving
# them.
_RESERVE: Final = 4096


class Statistics(NamedTuple):
    """Rows that have postings, and the sum of their lengths in terms."""

    docs: int
    total_length: int


class Segment(msgspec.Struct, array_like=True, frozen=True):
    id: int
    rows: int  # how many it held when it was made; decides its tier


class Merge(msgspec.Struct, array_like=True, frozen=True):
    """A merge in progress: everything below (hash, row) is in the target already."""

    target: int
    sources: list[int]
    next_hash: bytes
    next_row: int


class Manifest(msgspec.Struct, array_like=True):
    next_id: int = 1
    segments: list[Segment] = []
    merge: Merge | None = None
    dropping: list[int] = []
    packed: list[Segment] = []

    def new_id(self) -> int:
        """An id for a new segment, below the target of a running merge while there is room."""
        number = self.next_id
        if self.merge is not None and number == self.merge.target:
            number += 1
        self.next_id = number + 1
        return number

    def target_id(self) -> int:
        return self.next_id + _RESERVE

    def finish_merge(self) -> None:
        """Past a finished target's id, so that the next segment is appended again."""
        if self.merge is not None:
            self.next_id = max(self.next_id, self.merge.target + 1)
        self.merge = None

    def appendable(self, segment: int) -> bool:
        """Whether every other segment's id is smaller."""
        others = [*(one.id for one in [*self.segments, *self.packed]), *self.dropping]
        if self.merge is not None:
            others.append(self.merge.target)
        return all(other <= segment for other in others)


_DECODER = msgspec.msgpack.Decoder(Manifest)


def load(txn: ReadTxn) -> Manifest:
    payload = txn.get(tables.META, _MANIFEST_KEY)
    if payload is None:
        return Manifest()
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise StoreCorrupt("the manifest of postings does not decode", path="kv") from error


def save(txn: WriteTxn, manifest: Manifest) -> None:
    txn.put(tables.META, _MANIFEST_KEY, msgspec.msgpack.encode(manifest))


def _rows_key(segment: int) -> bytes:
    return b"postings/" + segment.to_bytes(4, "big")


def rows_of(txn: ReadTxn, segment: int) -> BitMap:
    payload = txn.get(tables.META, _rows_key(segment))
    return BitMap() if payload is None else BitMap.deserialize(payload)


def set_rows(txn: WriteTxn, segment: int, rows: BitMap) -> None:
    rows.run_optimize()
    txn.put(tables.META, _rows_key(segment), rows.serialize())


def forget_rows(txn: WriteTxn, segment: int) -> None:
    txn.delete(tables.META, _rows_key(segment))


def gone(txn: ReadTxn) -> BitMap:
    """The rows that went from packed segments, whose entries there count for nothing."""
    payload = txn.get(tables.META, _GONE_KEY)
    return BitMap() if payload is None else BitMap.deserialize(payload)


def set_gone(txn: WriteTxn, rows: BitMap) -> None:
    rows.run_optimize()
    txn.put(tables.META, _GONE_KEY, rows.serialize())


def bitmap_of(rows: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> BitMap:
    return BitMap(array("I", rows.astype(np.uint32).tobytes()))


def stats(txn: ReadTxn) -> Statistics:
    """The totals over all rows that have postings, hidden ones included."""
    payload = txn.get(tables.META, _TOTALS_KEY)
    return Statistics(0, 0) if payload is None else Statistics(*_TOTALS.unpack(payload))


def shift_stats(txn: WriteTxn, docs: int, length: int) -> None:
    now = stats(txn)
    txn.put(tables.META, _TOTALS_KEY, _TOTALS.pack(now.docs + docs, now.total_length + length))


def is_own(key: bytes) -> bool:
    """Whether a key of ``meta`` is one of this file's."""
    return key == _MANIFEST_KEY or key.startswith((b"postings/", b"postings_"))


def entries(
    manifest: Manifest, totals: Statistics, rows: dict[int, BitMap]
) -> list[tuple[bytes, bytes]]:
    """What ``meta`` holds of segments, for a store that is made anew; no row is gone from it."""
    found = [
        (_MANIFEST_KEY, msgspec.msgpack.encode(manifest)),
        (_TOTALS_KEY, _TOTALS.pack(*totals)),
    ]
    for segment, held in rows.items():
        held.run_optimize()
        found.append((_rows_key(segment), held.serialize()))
    return sorted(found)
