"""Which of a ``VectorIndex``'s vectors a search may return, compiled once for many searches.

A filter is a set of ids; what a scan takes is a set of slots. The translation is kept for as long
as the index stays as it is, and made again after a change, so that a filter means its ids and never
what lay at their slots before. This file knows the book and arrays; it does not know distances.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb import vector_book
from memdb.errors import InvalidArgument
from memdb.index.slots import SlotSet
from memdb.storage.environment import ReadTxn
from memdb.vector_book import Book, Floats, Ids, Slots

NO_ID = 2**64 - 1
"""Pads answers that have fewer than k results; no vector has it."""

_LOOKED_UP = 16  # a look-up of one id costs what comparing this many does


class Allowed(NamedTuple):
    """The allowed vectors of one book: slots in the files, and fresh ones."""

    encoded: SlotSet
    fresh_slots: Slots
    fresh: Floats


class VectorFilter:
    """A compiled set of ids; made by ``VectorIndex.filter``. Thread-safe, and of use to any index.

    ``len(filter)`` counts its ids, whether or not they are in an index.
    """

    def __init__(self, ids: ArrayLike) -> None:
        self._ids = np.unique(as_ids(_unpacked(ids), "ids"))
        self._guard = threading.Lock()
        self._known: tuple[Book, Allowed] | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"VectorFilter({len(self._ids)} ids)"

    def allowed(self, txn: ReadTxn, book: Book) -> Allowed:
        """What the filter lets through of ``book``, as ``txn`` sees it."""
        with self._guard:
            if self._known is not None and self._known[0] is book:
                return self._known[1]
        found = self._compile(txn, book)
        with self._guard:
            self._known = (book, found)
        return found

    def _compile(self, txn: ReadTxn, book: Book) -> Allowed:
        if len(self._ids) * _LOOKED_UP < len(book.ids):
            by_id = vector_book.find_slots(txn, self._ids)
            slots = np.fromiter(by_id.values(), np.uint32, len(by_id))
        else:
            chosen = np.isin(book.ids, self._ids) & book.present()
            slots = np.flatnonzero(chosen).astype(np.uint32)
        encoded = SlotSet.from_slots(slots[vector_book.in_files(book.states[slots])])
        fresh = np.isin(book.fresh_slots, slots)
        return Allowed(encoded, book.fresh_slots[fresh], book.fresh[fresh])


def allowed_of(txn: ReadTxn, book: Book, chosen: VectorFilter | ArrayLike | None) -> Allowed:
    """What a search may return: all of the book, or what ``chosen`` names of it."""
    if chosen is None:
        return Allowed(book.encoded, book.fresh_slots, book.fresh)
    compiled = chosen if isinstance(chosen, VectorFilter) else VectorFilter(chosen)
    return compiled.allowed(txn, book)


def _unpacked(ids: object) -> ArrayLike:
    """The array of a pyroaring bitmap, or what was given."""
    if hasattr(ids, "to_array"):
        return np.array(ids.to_array(), np.uint64)
    return cast(ArrayLike, ids)


def as_ids(values: ArrayLike, field: str) -> Ids:
    """(n,) uint64; ``InvalidArgument`` for what is not an integer in 0 ... 2**64 - 2."""
    given = np.asarray(values)
    if given.ndim == 0 and given.dtype.kind in "iu":
        given = given[None]
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        raise InvalidArgument(f"{field} must be a list of integers", field=field)
    if len(given) and (given.min() < 0 or int(given.max()) >= NO_ID):
        raise InvalidArgument(f"{field} must be in 0 ... 2**64 - 2", field=field)
    found: NDArray[np.uint64] = given.astype(np.uint64)
    return found
