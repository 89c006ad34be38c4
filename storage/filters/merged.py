"""Filed and fresh rows read as one: through this file the filter index asks its tables.

A row is filed or fresh, so what the tables hold and what the fresh rows hold is joined, and an
entry that both have counts once. This file adds nothing to what either means.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Final

import numpy as np
from pyroaring import BitMap

from memdb.storage.environment import ReadTxn
from memdb.storage.filters import bitmaps, shared_sets
from memdb.storage.filters.filing import table_of
from memdb.storage.filters.fresh_view import Fresh
from memdb.storage.filters.packed_blocks import Columns
from memdb.storage.reference import Entry

_FEW: Final = 4  # sets that are worth keeping one by one

__all__ = ["blocks", "bounds", "exists", "extent", "load", "load_many", "rows_between", "scan"]


def load(txn: ReadTxn, prefix: bytes) -> BitMap:
    """The rows of one set, of which every change is logged; not to be changed."""
    return shared_sets.load(txn, prefix)


def load_many(txn: ReadTxn, prefixes: Sequence[bytes]) -> BitMap:
    """The rows of any of several sets; not to be changed."""
    if len(prefixes) == 1:
        return shared_sets.load(txn, prefixes[0])
    if len(prefixes) <= _FEW:
        return BitMap.union(*[shared_sets.load(txn, prefix) for prefix in prefixes])
    return bitmaps.load_many(txn, prefixes) | Fresh.of(txn).load_many(prefixes)


def exists(txn: ReadTxn, prefix: bytes) -> bool:
    """Whether the set has rows."""
    return bitmaps.exists(txn, prefix) or Fresh.of(txn).exists(prefix)


def rows_between(txn: ReadTxn, field: int, low: int, high: int) -> BitMap:
    """Rows with a number or time of low <= key < high."""
    filed = table_of(field).rows(txn, field, low, high)
    return filed | Fresh.of(txn).between(field, low, high)


def scan(
    txn: ReadTxn, field: int, low: int, high: int, *, reverse: bool = False
) -> Iterator[Entry]:
    """(key, row) with low <= key < high, in order of both or reversed, each once."""
    fresh = Fresh.of(txn).scan(field, low, high)
    filed = table_of(field).scan(txn, field, low, high, reverse=reverse)
    if not fresh:
        yield from filed
        return
    before: Entry | None = None
    for entry in merge(filed, reversed(fresh) if reverse else fresh, reverse=reverse):
        if entry != before:
            yield entry
        before = entry


def blocks(
    txn: ReadTxn, field: int, low: int, high: int, *, reverse: bool = False
) -> Iterator[Columns]:
    """What ``scan`` gives, some at a time: keys (n,) and rows (n,)."""
    filed = table_of(field).blocks(txn, field, low, high, reverse=reverse)
    fresh = Fresh.of(txn).scan(field, low, high)
    for keys, rows in filed:
        if not fresh:
            yield keys, rows
            continue
        edge = int(keys[-1]), int(rows[-1])
        if reverse:  # of the fresh ones those at or past the block's least
            cut = bisect_left(fresh, edge)
            met, fresh = fresh[cut:], fresh[:cut]
        else:
            cut = bisect_right(fresh, edge)
            met, fresh = fresh[:cut], fresh[cut:]
        yield (
            _columns({*met, *zip(keys.tolist(), rows.tolist(), strict=True)}, reverse=reverse)
            if met
            else (keys, rows)
        )
    if fresh:
        yield _columns(fresh, reverse=reverse)


def _columns(entries: Iterable[Entry], *, reverse: bool) -> Columns:
    ordered = sorted(entries, reverse=reverse)
    keys, rows = zip(*ordered, strict=True)
    return np.array(keys, np.uint64), np.array(rows, np.uint32)


def extent(txn: ReadTxn, field: int) -> tuple[int, int] | None:
    """The least and the greatest key of a field."""
    found = [
        pair
        for pair in (table_of(field).extent(txn, field), Fresh.of(txn).bounds(field))
        if pair is not None
    ]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None


def bounds(txn: ReadTxn, field: int) -> tuple[int, int] | None:
    """Two keys near the least and the greatest of a field; for estimates."""
    found = [
        pair
        for pair in (table_of(field).bounds(txn, field), Fresh.of(txn).bounds(field))
        if pair is not None
    ]
    return (min(low for low, _ in found), max(high for _, high in found)) if found else None
