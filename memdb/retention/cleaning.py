"""Giving back what evicted vectors take in the files of a space.

A row has one slot for good, so files only ever grow at their end; what is evicted leaves holes.
Slots are looked at in stretches of 1,024. A stretch that no vector is in any more is given back to
the file system as a hole. One that is mostly empty is emptied first: its memories are written again
under new rows, as a log-structured file system moves what is live out of a segment (M. Rosenblum
and J. K. Ousterhout, *The Design and Implementation of a Log-Structured File System*, 1992, section
3.4).

Nobody sees it but by the order of rows: a memory that moved comes last among those written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np
from pyroaring import BitMap

from memdb import removal, rows
from memdb.engine import LIVE, Engine
from memdb.space_vectors import SpaceVectors
from memdb.space_views import rows_array
from memdb.storage import lookups, spaces, vectors
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

STRETCH: Final = 1_024
EMPTIED_BELOW: Final = STRETCH // 2
"""Vectors of a stretch that are worth moving: at worst a file is twice what is in it."""

_READERS_END_S: Final = 0.5
_MOVED_AT_ONCE: Final = 32
_MOVED_CHARACTERS: Final = 8 << 10


def clean(engine: Engine, may_write: Callable[[], bool] = lambda: True) -> int:
    """Give back what can be; returns how many memories moved. Lease holder only.

    A memory that moves takes more than before until it is packed again. ``may_write`` is asked
    before each transaction, and what it refuses stays where it is.
    """
    moved = 0
    with engine.store.read() as txn:
        known = [space for space in spaces.answering(txn) if space.converting is None]
    for record in known:
        space = engine.vectors(record)
        with engine.store.read() as txn:
            sparse = _sparse_rows(engine, txn, space)
        at = 0
        while at < len(sparse) and may_write():
            some = sparse[at : at + _MOVED_AT_ONCE]
            tried, done = engine.store.write(partial(_move, engine=engine, chosen=some))
            at += tried
            moved += done
        if engine.store.wait_for_readers(_READERS_END_S):
            with engine.store.read() as txn:
                holes = _empty(engine, txn, space)
            if space.index is not None:
                with space.files_guard:
                    for first, last in holes:
                        space.index.punch(first, last)
    return moved


def _occupied(engine: Engine, txn: Reader, space: SpaceVectors) -> tuple[np.ndarray, BitMap]:
    """Vectors by stretch, of those that are past being filled, and the rows that have one."""
    number = space.record.number
    owned = spaces.allocation(txn, number)
    kept = engine.filters.get_set(txn, f"encoded/{number}")
    kept |= BitMap(vectors.fresh_rows(txn, number))  # they will be written there
    # The last two are still being filled.
    stretches = max(0, owned.capacity // STRETCH - 1)
    slots = owned.slots(rows_array(kept)) if kept else np.zeros(0, np.uint32)
    counted = np.bincount(slots // STRETCH, minlength=stretches)[:stretches]
    return counted, kept


def _sparse_rows(engine: Engine, txn: Reader, space: SpaceVectors) -> list[int]:
    """The live rows of stretches that are worth emptying and can be."""
    counted, kept = _occupied(engine, txn, space)
    movable = kept & engine.filters.get_set(txn, LIVE)
    owned = spaces.allocation(txn, space.record.number)
    chosen = []
    for stretch in np.flatnonzero((counted > 0) & (counted < EMPTIED_BELOW)).tolist():
        first, last = owned.rows(
            np.array([stretch * STRETCH, (stretch + 1) * STRETCH - 1], np.uint32)
        ).tolist()
        inside = BitMap(range(first, last + 1))
        if len(movable & inside) == counted[stretch]:
            chosen += list(movable & inside)
    return chosen


def _empty(engine: Engine, txn: Reader, space: SpaceVectors) -> list[tuple[int, int]]:
    counted, _ = _occupied(engine, txn, space)
    return [(s * STRETCH, (s + 1) * STRETCH) for s in np.flatnonzero(counted == 0).tolist()]


def _move(txn: Writer, engine: Engine, chosen: list[int]) -> tuple[int, int]:
    """Write memories again under new rows of their space, as many of ``chosen`` as make a short
    transaction; how many it looked at, and how many moved."""
    live = engine.filters.get_set(txn, LIVE)
    found: dict[int, Memory] = {}
    tried = size = 0
    for row, memory in engine.records.iterate(txn, chosen):
        size += len(memory.text or "")
        if found and size > _MOVED_CHARACTERS:
            break
        tried += 1
        if row in live:
            found[row] = memory
    else:
        tried = len(chosen)
    move_rows(txn, engine, found)
    return tried, len(found)


def move_rows(txn: Writer, engine: Engine, found: Mapping[int, Memory]) -> list[int]:
    """Give live memories new rows; returns them. Their vectors are fresh there, at what they were
    kept."""
    if not found:
        return []
    news = rows.enter(txn, engine, rows.twins(txn, engine, found))
    for row, new, memory in zip(found, news, found.values(), strict=True):
        if memory.key is not None:
            key = lookups.profile_key(txn, memory.namespace, memory.subject or "", memory.key)
            timeline = [new if other == row else other for other in lookups.timeline(txn, key)]
            lookups.set_timeline(txn, key, timeline)
    engine.filters.set_discard(txn, LIVE, found)
    removal.remove_rows(txn, engine, list(found))
    return news
