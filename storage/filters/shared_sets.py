"""Sets of rows that readers share: filed and fresh rows of one prefix, kept between snapshots.

To put a set together costs a visit to each of its blocks, and the same few sets are asked for by
nearly every question: who is live, who is in a namespace, who lacks a field. So readers of one
process keep them (``ReadTxn.scratch``), each with the ``content_seq`` of the snapshot it is true
of. A later snapshot catches up by the change log, which names every row whose values were written:
of those alone it is looked up whether they are in the set, and filing moves a row without changing
that. A set whose rows change without being logged (which vectors are encoded) must not be kept
here. What comes from here is shared: nobody changes it.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple

from pyroaring import BitMap

from memdb.storage.changes import changes_since
from memdb.storage.environment import ReadTxn, WriteTxn
from memdb.storage.filters import bitmaps
from memdb.storage.filters.fields import SETS
from memdb.storage.filters.fresh_view import Fresh

__all__ = ["load"]

_BYTES_MAX: Final = 8 << 20
_CHANGES_MAX: Final = 64
_ROWS_MAX: Final = 16  # more rows cost more to look up than the set to read
_NAMED: Final = SETS.to_bytes(2, "big")
_SCRATCH: Final = "sets of rows"


class _Kept(NamedTuple):
    sequence: int
    rows: BitMap
    size: int


class _Shared:
    """The sets of one environment, and about how many bytes they take."""

    def __init__(self) -> None:
        self.sets: dict[bytes, _Kept] = {}
        self._guard = threading.Lock()
        self._size = 0

    def keep(self, prefix: bytes, sequence: int, rows: BitMap) -> None:
        """Remember a set, and let go of those that were not asked for since it changed last."""
        size = 128 + min(2 * len(rows), (rows.max() >> 3) + 16 if rows else 0)
        with self._guard:
            before = self.sets.pop(prefix, None)
            self.sets[prefix] = _Kept(sequence, rows, size)
            self._size += size - (0 if before is None else before.size)
            while self._size > _BYTES_MAX and len(self.sets) > 1:
                self._size -= self.sets.pop(next(iter(self.sets))).size


def load(txn: ReadTxn, prefix: bytes) -> BitMap:
    """The rows of one set; not to be changed."""
    state: Any = None if isinstance(txn, WriteTxn) else getattr(txn, "state", None)
    if state is None:
        return _read(txn, prefix)
    sequence = int(state.content_seq)
    shared: _Shared = txn.scratch.get(_SCRATCH) or txn.scratch.setdefault(_SCRATCH, _Shared())
    kept = shared.sets.get(prefix)
    if kept is not None and kept.sequence == sequence:
        return kept.rows
    rows = None if kept is None else _caught_up(txn, prefix, kept, sequence)
    if rows is None:
        rows = _read(txn, prefix)
    if kept is None or kept.sequence < sequence:
        shared.keep(prefix, sequence, rows)
    return rows


def _read(txn: ReadTxn, prefix: bytes) -> BitMap:
    filed, fresh = bitmaps.load(txn, prefix), Fresh.of(txn).load(prefix)
    return filed | fresh if fresh else filed


def _caught_up(txn: ReadTxn, prefix: bytes, kept: _Kept, sequence: int) -> BitMap | None:
    """The set as it is some changes later; None where it had better be read."""
    if not 0 < sequence - kept.sequence <= _CHANGES_MAX:
        return None
    change = changes_since(txn, kept.sequence, sequence)
    if change is None:
        return None
    written = change.added | change.removed
    if len(written) > _ROWS_MAX:
        return None
    fresh = Fresh.of(txn)
    named = prefix[:2] == _NAMED  # a fresh row that is shown again is in the filed set
    inside = []
    for row in written:
        filed = named or row not in fresh.rows
        if fresh.holds(prefix, row) or (filed and bitmaps.contains(txn, prefix, row)):
            inside.append(row)
    now = BitMap(inside)
    if now == kept.rows & written:
        return kept.rows
    return kept.rows - written | now
