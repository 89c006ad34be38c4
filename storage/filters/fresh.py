"""Rows that are written and not yet filed: what each would be filed under, in one small value.

    table key     := row u32
    table payload := sets u16 | texts u16 | entries u16
                     | (field u16 big-endian | code 8) * sets    first those of the texts, in order
                     | (field u16 | key u64) * entries           numbers and times
                     | { text FF } * texts                       strings that are kept in order

Filing one row touches some forty pages of bitmaps and blocks; this value touches two. Rows are
filed together later (``FilterIndex.fold``), so a row is fresh or filed, never both, and whoever
reads joins the two. A value is small (``values.py``): a row with more to file is filed at once.
This file knows rows, prefixes and keys; it knows no field and no operator.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from memdb.errors import StoreCorrupt
from memdb.storage import tables
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.values import SMALL_PAYLOAD_MAX_BYTES, unseal

_HEAD = struct.Struct("<HHH")
_ENTRY = struct.Struct("<HQ")
_PREFIX_BYTES = 10
_SETS = np.dtype([("field", ">u2"), ("code", ">u8")])
_ENTRIES = np.dtype([("field", "<u2"), ("key", "<u8")])
_KEPT: Final = "fresh filters"


_Parts = tuple[bytes, bytes, bytes, bytes]  # of a payload: counts, sets, entries, texts


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
    txn.put(tables.FRESH_FILTERS, _key(row), payload)
    _changed(txn)
    return True


def get(txn: ReadTxn, row: int) -> Entries | None:
    """The entries of a row; None where it is not fresh."""
    payload = txn.get(tables.FRESH_FILTERS, _key(row))
    return None if payload is None else _decode(payload)


def drop(txn: WriteTxn, row: int) -> bool:
    """Whether the row was fresh."""
    _changed(txn)
    return txn.delete(tables.FRESH_FILTERS, _key(row))


def count(txn: ReadTxn) -> int:
    return txn.count(tables.FRESH_FILTERS)


def among(txn: ReadTxn, rows: Iterable[int]) -> list[int]:
    """Those of ``rows`` that are fresh, ascending."""
    if not count(txn):
        return []
    return list(_rows(txn.scan_keys(tables.FRESH_FILTERS)) & BitMap(rows))


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


def _changed(txn: WriteTxn) -> None:
    kept: _Kept = txn.scratch.get(_KEPT, (None, _NONE))
    txn.scratch[_KEPT] = (None, kept[1])


def _key(row: int) -> bytes:
    return row.to_bytes(4, "big")


def _rows(keys: Iterable[bytes]) -> BitMap:
    return _bitmap(np.frombuffer(b"".join(keys), ">u4").astype(np.uint32))


def _bitmap(rows: NDArray[np.uint32]) -> BitMap:
    return BitMap(array("I", rows.tobytes()))


def _decode(payload: bytes) -> Entries:
    parts = _parts(payload)
    view = Fresh({}, {bytes(4): parts})
    prefixes = [parts[1][at : at + _PREFIX_BYTES] for at in range(0, len(parts[1]), _PREFIX_BYTES)]
    texts: list[bytes | None] = [*view.texts, *[None] * (len(prefixes) - len(view.texts))]
    keys = zip(view.fields.tolist(), view.keys.tolist(), strict=True)
    return Entries(list(zip(prefixes, texts, strict=True)), list(keys))


def _parts(payload: bytes) -> _Parts:
    head = _HEAD.unpack_from(payload) if len(payload) >= _HEAD.size else (0, 1, 0)
    cut = _HEAD.size + _PREFIX_BYTES * head[0]
    end = cut + _ENTRY.size * head[2]
    texts = payload[end:]
    if head[1] > head[0] or len(payload) < end or texts.count(b"\xff") != head[1]:
        raise StoreCorrupt("a row's fresh filter entries have no known form", path="kv")
    return payload[: _HEAD.size], payload[_HEAD.size : cut], payload[cut:end], texts


class Fresh:
    """The fresh rows of one snapshot, ready to be asked.

    Never changed, so threads share it; what is derived when asked for is the same whoever asks.
    """

    def __init__(self, stored: Mapping[bytes, bytes], parts: Mapping[bytes, _Parts]) -> None:
        """From each row's key: its value as it is stored, and the parts of that."""
        self.stored = stored
        self.parts = parts
        columns = list(zip(*parts.values(), strict=True)) or [()] * 4
        heads, sets = (b"".join(column) for column in columns[:2])
        rows = np.frombuffer(b"".join(parts), ">u4").astype(np.uint32)
        counts = np.frombuffer(heads, "<u2").reshape(-1, 3).astype(np.int64)
        of_sets, of_texts, of_entries = counts.T
        found = np.frombuffer(sets, _SETS)
        self._codes = found["code"].astype(np.uint64)
        self._set_fields = found["field"].astype(np.uint16)
        self._set_rows = np.repeat(rows, of_sets)
        place = np.arange(len(found)) - np.repeat(np.cumsum(of_sets) - of_sets, of_sets)
        is_text = place < np.repeat(of_texts, of_sets)
        self._text_fields, self._text_rows = self._set_fields[is_text], self._set_rows[is_text]
        ordered = np.frombuffer(b"".join(columns[2]), _ENTRIES)
        self.fields, self.keys = ordered["field"], ordered["key"].astype(np.uint64)
        self._entry_rows = np.repeat(rows, of_entries)
        self._in_order: dict[int, tuple[list[bytes], list[int]]] = {}

    @cached_property
    def texts(self) -> list[bytes]:
        """All strings kept in order, by row."""
        return b"".join([parts[3] for parts in self.parts.values()]).split(b"\xff")[:-1]

    @classmethod
    def of(cls, txn: ReadTxn) -> Fresh:
        """From the cache if nothing changed since; else of the rows in it only others are decoded.

        What is fresh changes with ``content_seq``, but for folding, which only takes rows away: it
        and how many there are name the state. A writer's own view ends with its next change.
        """
        number = count(txn)
        if not number:
            return _NONE
        mark = (getattr(getattr(txn, "state", None), "content_seq", None), number)
        remembers = isinstance(txn, WriteTxn) or mark[0] is not None
        kept: _Kept = txn.scratch.get(_KEPT, (None, _NONE))
        if remembers and kept[0] == mark:
            return kept[1]
        stored = dict(txn.raw(tables.FRESH_FILTERS))
        before, known = kept[1].stored.get, kept[1].parts
        view = cls(
            stored,
            {
                key: known[key] if before(key) == value else _parts(unseal(key, value))
                for key, value in stored.items()
            },
        )
        if remembers:
            txn.scratch[_KEPT] = (mark, view)
        return view

    def load(self, prefix: bytes) -> BitMap:
        """The rows of a set."""
        return _bitmap(self._set_rows[self._at(prefix)])

    def load_many(self, prefixes: Sequence[bytes]) -> BitMap:
        """The rows of any of these sets."""
        if len(prefixes) <= 4:
            found = [self.load(prefix) for prefix in prefixes]
            return BitMap.union(*found) if found else BitMap()
        codes = np.array([int.from_bytes(one[2:], "big") for one in prefixes], np.uint64)
        wanted = set(prefixes)
        return BitMap(
            [
                int(self._set_rows[at])
                for at in np.flatnonzero(np.isin(self._codes, codes))
                if self._prefix(int(at)) in wanted
            ]
        )

    def exists(self, prefix: bytes) -> bool:
        return bool(len(self._at(prefix)))

    def between(self, field: int, low: int, high: int) -> BitMap:
        """Rows with low <= key < high."""
        return _bitmap(self._entry_rows[self._entries(field, low, high)])

    def scan(self, field: int, low: int, high: int) -> list[tuple[int, int]]:
        """(key, row) with low <= key < high, in order of both."""
        chosen = self._entries(field, low, high)
        pairs = zip(self.keys[chosen].tolist(), self._entry_rows[chosen].tolist(), strict=True)
        return sorted(set(pairs))

    def bounds(self, field: int) -> tuple[int, int] | None:
        """The least and the greatest key."""
        keys = self.keys[self.fields == field]
        return (int(keys.min()), int(keys.max())) if len(keys) else None

    def strings(self, field: int) -> list[tuple[bytes, int]]:
        """(text, row) of the strings kept in order."""
        chosen = np.flatnonzero(self._text_fields == field).tolist()
        rows = self._text_rows[chosen].tolist()
        return [(self.texts[at], row) for at, row in zip(chosen, rows, strict=True)]

    def strings_between(self, field: int, low: bytes, high: bytes | None) -> BitMap:
        """Rows with low <= text < high (None: no upper bound)."""
        if field not in self._in_order:
            pairs = sorted(self.strings(field))
            self._in_order[field] = [text for text, _ in pairs], [row for _, row in pairs]
        texts, rows = self._in_order[field]
        return BitMap(
            rows[bisect_left(texts, low) : None if high is None else bisect_left(texts, high)]
        )

    def _at(self, prefix: bytes) -> NDArray[np.int64]:
        at = np.flatnonzero(self._codes == np.uint64(int.from_bytes(prefix[2:], "big")))
        found: NDArray[np.int64] = at[self._set_fields[at] == int.from_bytes(prefix[:2], "big")]
        return found

    def _prefix(self, at: int) -> bytes:
        return int(self._set_fields[at]).to_bytes(2, "big") + int(self._codes[at]).to_bytes(
            8, "big"
        )

    def _entries(self, field: int, low: int, high: int) -> NDArray[np.bool_]:
        low = max(low, 0)
        if low >= high:
            return np.zeros(len(self.keys), np.bool_)
        first, last = np.uint64(low), np.uint64(min(high, 1 << 64) - 1)
        inside: NDArray[np.bool_] = (self.keys >= first) & (self.keys <= last)
        inside &= self.fields == field
        return inside


_NONE: Final = Fresh({}, {})
_Kept = tuple[tuple[int | None, int] | None, Fresh]
