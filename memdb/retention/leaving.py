"""Eviction: memories made invisible for good, then taken out of every structure, a few at a time.

Which rows are leaving is a set in ``meta`` that is written in the transaction that hides them, so
that a process killed at any point leaves each memory either as it was or on its way, and the holder
of the lease goes on with those that are. Beside it stand the ids that left: last of all, the keys
under which the caller's own ids and exact duplicates lead to them are forgotten. What an evicted
vector and LMDB's free pages still take is given back by ``room``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from pyroaring import BitMap

from memdb import removal, settings
from memdb.engine import Engine
from memdb.storage import lookups, records, tables
from memdb.storage.ids import parse_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory

_KEY: Final = b"retention/leaving"
_IDS: Final = b"retention/left"
_ID_BYTES: Final = 16
_AT_ONCE: Final = 64
"""Rows of one removal at most: some 10 ms where none of them is packed."""
_DROPPED: Final = 256  # keys of one transaction
_SLICE_S: Final = settings.MAINTENANCE_SLICE_MS / 1000


def rows(txn: Reader | Writer) -> BitMap:
    """Rows that are invisible and not yet removed."""
    payload = txn.get(tables.META, _KEY)
    return BitMap() if payload is None else BitMap.deserialize(payload)


def dangling(txn: Reader | Writer) -> int:
    """How many keys lead to memories that are gone: none once ``step`` has nothing left to do."""
    return lookups.dangling_keys(txn)


def _put(txn: Writer, leaving: BitMap) -> None:
    if leaving:
        txn.put(tables.META, _KEY, bytes(leaving.serialize()))
    else:
        txn.delete(tables.META, _KEY)


def hide(txn: Writer, engine: Engine, memories: Sequence[tuple[int, Memory]]) -> None:
    """Make current or trashed memories, with their earlier versions, leave; nothing restores
    them.
    """
    removal.withdraw(txn, engine, memories)
    leaving = rows(txn)
    ids = {raw_id for _, memory in memories if (raw_id := parse_id(memory.id)) is not None}
    led = lookups.rows_of(txn, sorted(ids))
    left = []
    for row, memory in memories:
        leaving.add(row)
        raw_id = parse_id(memory.id)
        if raw_id is not None and led.get(raw_id) == row:
            leaving |= BitMap(lookups.versions(txn, raw_id))
            left.append(raw_id)
    lookups.forget_ids(txn, left)
    _put(txn, leaving)
    if left:
        txn.put(tables.META, _IDS, (txn.get(tables.META, _IDS) or b"") + b"".join(left))


def drop_versions(txn: Writer, earlier: Sequence[int]) -> None:
    """Make earlier versions leave; their memories stay."""
    _put(txn, rows(txn) | BitMap(earlier))


def together(txn: Writer, leaving: BitMap) -> BitMap:
    """The first of those that leave whose records lie in one value of table ``cold``: it is written
    anew once for all of them, and what leads to them lies close by as well."""
    found = leaving[:_AT_ONCE]
    bits = records.shared_bits(txn, found[0])
    found.remove_range((found[0] >> bits) + 1 << bits, 1 << 32)
    return found


def step(engine: Engine) -> bool:
    """Remove some of what is leaving, in one short transaction; whether there was anything.

    Lease holder only.
    """
    with engine.store.read() as txn:
        if not rows(txn):
            ids = txn.get(tables.META, _IDS)
            if ids is not None:
                _drop_keys(engine, ids)
            return ids is not None

    def remove(txn: Writer) -> None:
        stop = time.perf_counter() + _SLICE_S
        left = rows(txn)
        while left and time.perf_counter() < stop:
            some = together(txn, left)
            removal.remove_rows(txn, engine, list(some))
            left -= some
        _put(txn, left)

    engine.store.write(remove)
    return True


def _drop_keys(engine: Engine, packed: bytes) -> None:
    """Forget the keys that lead to ids that left, which no record tells: all keys are looked at,
    again by the next process where this one is killed meanwhile."""
    ids = {packed[at : at + _ID_BYTES] for at in range(0, len(packed), _ID_BYTES)}
    with engine.store.read() as txn:
        keys = lookups.keys_naming(txn, ids)

    def drop(txn: Writer, some: list[bytes]) -> None:
        back = lookups.rows_of(txn, sorted(ids))  # an import may have brought one back
        lookups.drop_keys(txn, some, ids - back.keys())

    for start in range(0, len(keys), _DROPPED):
        engine.store.write(partial(drop, some=keys[start : start + _DROPPED]))

    def forget(txn: Writer) -> None:
        if txn.get(tables.META, _IDS) == packed:
            txn.delete(tables.META, _IDS)

    engine.store.write(forget)
