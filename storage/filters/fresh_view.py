"""The fresh rows of one snapshot, decoded, and what is remembered of them between snapshots.

To read and decode some hundreds of rows costs more than the rest of a filter, so readers share
what they decoded (``ReadTxn.scratch``). It is true of one snapshot; a later one catches up:

* The change log names every row whose value was written since, because a value is written where
  a row comes into sight, is changed or goes out of sight. Those rows are read again.
* What the log does not name is filing, which only takes values away. How many there are shows that
  some went, and their keys which.

A snapshot that the log does not lead to reads all of them. A writer goes on from what the readers
know, with what it wrote itself (``fresh.written``), and leaves what it made to nobody. This file
knows rows, prefixes and keys; it knows no field and no operator.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from pyroaring import BitMap

from memdb.storage import tables
from memdb.storage.changes import changes_since
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import fresh
from memdb.storage.filters.fresh import Entries

__all__ = ["Fresh"]

_KEPT: Final = "fresh filters"
_CHANGES_MAX = 256  # to catch up with more costs as much as to begin anew
_LOOKED_UP = 64  # more rows are first compared with the keys there are: a batch is filed at once
_NO_ROWS: Final = array("I")

_Texts = list[tuple[bytes, int]]
_Keys = list[tuple[int, int]]


class Fresh:
    """The fresh rows of one snapshot, ready to be asked. Never changed, so threads share it."""

    __slots__ = ("_entries", "_keys", "_sets", "_texts", "rows")

    def __init__(
        self,
        entries: dict[int, Entries],
        sets: dict[bytes, array[int]],
        texts: dict[int, _Texts],
        keys: dict[int, _Keys],
    ) -> None:
        self._entries = entries  # by row
        self._sets = sets  # by prefix: rows
        self._texts = texts  # by field: (text, row) of strings kept in order, ascending
        self._keys = keys  # by field: (key, row), ascending
        self.rows = BitMap(entries)

    # --- from snapshot to snapshot ----------------------------------------------------------

    @classmethod
    def of(cls, txn: ReadTxn) -> Fresh:
        """What ``txn`` sees: remembered, caught up, or read."""
        if isinstance(txn, WriteTxn):
            return cls._of_writer(txn) if fresh.count(txn) else _NONE
        view: Fresh | None = txn.memo.get(_KEPT)
        if view is None:
            view = txn.memo[_KEPT] = cls._of_reader(txn)
        return view

    @classmethod
    def _of_reader(cls, txn: ReadTxn) -> Fresh:
        number = fresh.count(txn)
        if not number:
            return _NONE
        sequence = _sequence(txn)
        if sequence is None:  # a snapshot that nothing names
            return cls._read(txn)
        known: _Known | None = txn.scratch.get(_KEPT)
        if known is not None and known.sequence == sequence and known.number == number:
            return known.view
        view = _caught_up(txn, known, BitMap())
        if known is None or known.sequence <= sequence:
            txn.scratch[_KEPT] = _Known(sequence, number, view)
        return view

    @classmethod
    def _of_writer(cls, txn: WriteTxn) -> Fresh:
        own: Fresh | None = txn.scratch.get(_KEPT)
        written = fresh.written(txn)
        if own is not None and not written:
            return own
        touched = BitMap(written)
        if own is None:
            view = _caught_up(txn, txn.shared.get(_KEPT), touched)
        else:
            view = own.reread(txn, touched)
        written.clear()
        txn.scratch[_KEPT] = view
        return view

    @classmethod
    def _read(cls, txn: ReadTxn) -> Fresh:
        return _NONE.but((), _decoded(txn.scan(tables.FRESH_FILTERS)))

    def reread(self, txn: ReadTxn, rows: BitMap) -> Fresh:
        """The view with these rows as ``txn`` has them, if it has them; the others as they are."""
        asked = rows & fresh.all_rows(txn) if len(rows) > _LOOKED_UP else rows
        found = txn.get_many(tables.FRESH_FILTERS, [fresh.row_key(row) for row in asked])
        return self.but(self.rows & rows, _decoded(found.items()))

    def but(self, gone: Iterable[int], new: dict[int, Entries]) -> Fresh:
        """The view without the rows ``gone``, which it has, and with new ones."""
        entries, sets = self._entries.copy(), self._sets.copy()
        texts, keys = self._texts.copy(), self._keys.copy()
        removed = frozenset(gone)
        if removed:
            parted = [entries.pop(row) for row in removed]
            for prefix in {prefix for one in parted for prefix, _ in one.sets}:
                left = array("I", [row for row in sets[prefix] if row not in removed])
                if left:
                    sets[prefix] = left
                else:
                    del sets[prefix]
            for field in {_field(p) for one in parted for p, text in one.sets if text is not None}:
                texts[field] = [pair for pair in texts[field] if pair[1] not in removed]
            for field in {field for one in parted for field, _ in one.ordered}:
                keys[field] = [pair for pair in keys[field] if pair[1] not in removed]
        if len(new) == 1:
            ((row, one),) = new.items()
            entries[row] = one
            alone = array("I", (row,))
            for prefix, text in one.sets:
                sets[prefix] = sets.get(prefix, _NO_ROWS) + alone
                if text is not None:
                    field = _field(prefix)
                    texts[field] = _entered(texts.get(field, []), [(text, row)])
            for field, key in one.ordered:
                keys[field] = _entered(keys.get(field, []), [(key, row)])
        elif new:
            entries |= new
            members, strings, figures = _inverted(new)
            for prefix, rows in members.items():
                sets[prefix] = sets.get(prefix, _NO_ROWS) + array("I", rows)
            for field, pairs in strings.items():
                texts[field] = _entered(texts.get(field, []), pairs)
            for field, ordered in figures.items():
                keys[field] = _entered(keys.get(field, []), ordered)
        return Fresh(entries, sets, texts, keys)

    # --- questions --------------------------------------------------------------------------

    def load(self, prefix: bytes) -> BitMap:
        """The rows of a set."""
        return BitMap(self._sets.get(prefix, _NO_ROWS))

    def load_many(self, prefixes: Sequence[bytes]) -> BitMap:
        """The rows of any of these sets."""
        found = _NO_ROWS
        for prefix in prefixes:
            found = found + self._sets.get(prefix, _NO_ROWS)
        return BitMap(found)

    def holds(self, prefix: bytes, row: int) -> bool:
        """Whether a fresh row is in a set."""
        return row in self._sets.get(prefix, _NO_ROWS)

    def exists(self, prefix: bytes) -> bool:
        return prefix in self._sets

    def between(self, field: int, low: int, high: int) -> BitMap:
        """Rows with low <= key < high."""
        return BitMap([row for _, row in self.scan(field, low, high)])

    def scan(self, field: int, low: int, high: int) -> _Keys:
        """(key, row) with low <= key < high, in order of both."""
        pairs = self._keys.get(field)
        return pairs[bisect_left(pairs, (low,)) : bisect_left(pairs, (high,))] if pairs else []

    def bounds(self, field: int) -> tuple[int, int] | None:
        """The least and the greatest key."""
        pairs = self._keys.get(field)
        return (pairs[0][0], pairs[-1][0]) if pairs else None

    def strings(self, field: int) -> _Texts:
        """(text, row) of the strings kept in order, ascending; not to be changed."""
        return self._texts.get(field, [])

    def strings_between(self, field: int, low: bytes, high: bytes | None) -> BitMap:
        """Rows with low <= text < high (None: no upper bound)."""
        pairs = self.strings(field)
        start = bisect_left(pairs, (low,))
        stop = None if high is None else bisect_left(pairs, (high,))
        return BitMap([row for _, row in pairs[start:stop]])


_NONE: Final = Fresh({}, {}, {}, {})


class _Known(NamedTuple):
    """What readers share: the fresh rows of a snapshot, and what names it."""

    sequence: int
    number: int
    view: Fresh


def _sequence(txn: ReadTxn) -> int | None:
    state: Any = getattr(txn, "state", None)
    return None if state is None else int(state.content_seq)


def _caught_up(txn: ReadTxn, known: _Known | None, touched: BitMap) -> Fresh:
    """The fresh rows of ``txn`` from those of an earlier snapshot, if the log leads here.

    ``touched``: rows to be read again besides those that the log names.
    """
    sequence = _sequence(txn)
    if known is None or sequence is None or not 0 <= sequence - known.sequence <= _CHANGES_MAX:
        return Fresh._read(txn)
    change = changes_since(txn, known.sequence, sequence)
    if change is None:
        return Fresh._read(txn)
    rows = change.added | change.removed | touched
    view = known.view.reread(txn, rows) if rows else known.view
    if len(view.rows) != fresh.count(txn):
        present = fresh.all_rows(txn)
        if present - view.rows:  # nobody logged it
            return Fresh._read(txn)
        view = view.but(view.rows - present, {})
    return view


def _decoded(values: Iterable[tuple[bytes, bytes]]) -> dict[int, Entries]:
    return {int.from_bytes(key, "big"): fresh.decode(payload) for key, payload in values}


def _field(prefix: bytes) -> int:
    return int.from_bytes(prefix[:2], "big")


def _inverted(
    rows: dict[int, Entries],
) -> tuple[dict[bytes, list[int]], dict[int, _Texts], dict[int, _Keys]]:
    """By prefix the rows, by field the texts and the keys with their rows."""
    sets: dict[bytes, list[int]] = {}
    texts: dict[int, _Texts] = {}
    keys: dict[int, _Keys] = {}
    for row, entries in rows.items():
        for prefix, text in entries.sets:
            sets.setdefault(prefix, []).append(row)
            if text is not None:
                texts.setdefault(_field(prefix), []).append((text, row))
        for field, key in entries.ordered:
            keys.setdefault(field, []).append((key, row))
    return sets, texts, keys


_Pair = Any  # (text, row) or (key, row)


def _entered(pairs: list[_Pair], new: list[_Pair]) -> list[_Pair]:
    """Ascending pairs with new ones among them, as a new list."""
    if len(new) > 16:
        return sorted(pairs + new)
    entered = pairs.copy()
    for pair in new:
        insort(entered, pair)
    return entered
