"""``timeline``: memories in the order in which they happened, of everything or of a question.

A memory stands at the time of its event; a fact where a value of it became true, earlier values
too; anything else but a part of a document where it was recorded. A page is read from one
snapshot, and its cursor goes on from the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from pyroaring import BitMap

from memdb.engine import Engine
from memdb.query import filters
from memdb.query.packing import when
from memdb.reader import MemoryReader, is_past, make_cursor, read_cursor
from memdb.storage.store import Reader
from memdb.types import Hits, Memory, Page

_ORDER: Final = "timeline"
Span = tuple[int | None, int | None]


def page(
    engine: Engine,
    reader: MemoryReader,
    namespace: str,
    condition: filters.Filter | None,
    span: Span,
    *,
    descending: bool,
    limit: int,
    cursor: str | None,
) -> Page:
    """``limit`` memories in order of time from where ``cursor`` ended; ``span`` in microseconds."""
    with engine.store.read() as txn:
        last = None
        if cursor is not None:
            micros, row = read_cursor(txn, engine, cursor, _ORDER, descending)
            last = None if micros is None else (micros, row)
        rows = reader.select(txn, namespace, condition)
        found: list[tuple[int, int]] = []
        for entry in _entries(txn, engine, rows, span, last, descending):
            if last is None or is_past(entry, last, descending):
                found.append(entry)
                if len(found) > limit:
                    break
        known = engine.records.get_many(txn, sorted(row for _, row in found[:limit]))
    items = tuple(known[row] for _, row in found[:limit])
    if len(found) <= limit:
        return Page(items)
    return Page(items, make_cursor(engine, _ORDER, descending, *found[limit - 1], items[-1]))


def _entries(
    txn: Reader,
    engine: Engine,
    rows: BitMap,
    span: Span,
    last: tuple[int, int] | None,
    descending: bool,
) -> Iterator[tuple[int, int]]:
    """(microseconds, row) of ``rows`` in order, each where it stands."""
    index = engine.filters
    low, high = span
    if last is not None:
        low, high = (low, last[0] + 1) if descending else (last[0], high)

    def walk(field: str, among: BitMap) -> Iterator[tuple[int, int]]:
        if among:
            for entry in index.times_in_order(txn, field, low, high, reverse=descending):
                if entry[1] in among:
                    yield entry

    timeless = rows - index.present(txn, "event_time")
    true = timeless & index.present(txn, "valid_from")
    recorded = timeless - true - index.equals(txn, "kind", "chunk")
    walks = [
        walk("event_time", rows - timeless),
        walk("valid_from", true),
        walk("recorded_at", recorded),
    ]
    return heapq.merge(*walks, reverse=descending)


def in_order(hits: Hits, descending: bool) -> Page:
    """What a question found, earlier values of facts with it, in order of time."""
    found: dict[str, Memory] = {}
    for hit in hits:
        for memory in (hit.memory, *hit.history):
            found[memory.id] = memory
    ordered = sorted(found.values(), key=_moment, reverse=descending)
    return Page(tuple(ordered))


def _moment(memory: Memory) -> datetime:
    moment = when(memory)
    assert moment is not None, "a stored memory was recorded at some time"
    return moment
