"""The trash: what was hidden, by batch, for the seven days in which it can come back.

A batch is one entry under ``trash/`` in ``meta``: when, the rows, the ids of samples, and whether
it was forgotten or had expired. Hidden rows keep everything but their visibility; bringing one back
claims its external id and its place in a fact's timeline again, and what had expired then has no
end any more. What was forgotten and expires in the trash stays there. This file does not decide
what is forgotten; ``sweep`` takes what has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from pyroaring import BitMap

from memdb import facts, rows, settings
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import Conflict, NotFound
from memdb.reader import covers, is_sample
from memdb.storage import lookups, series, tables
from memdb.storage.ids import require_id
from memdb.storage.store import Reader, Writer
from memdb.types import Memory, Trashed, from_micros, to_micros

_TRASH, _TRASH_END = b"trash/", b"trash0"
_KEPT = timedelta(days=settings.TRASH_DAYS)


class _Batch(msgspec.Struct, array_like=True):
    """What was hidden at once: a serialised roaring bitmap of rows, and ids of samples."""

    forgotten_us: int
    rows: bytes
    samples: tuple[str, ...] = ()
    expired: bool = False

    def bitmap(self) -> BitMap:
        return BitMap.deserialize(self.rows)


_decode = msgspec.msgpack.Decoder(_Batch).decode


def to_trash(
    txn: Writer,
    engine: Engine,
    memories: Sequence[tuple[int, Memory]],
    batch: str,
    now: datetime,
    samples: Sequence[str] = (),
) -> None:
    """Hide live rows (and samples) at once, as one batch that can be restored for seven days."""
    hidden = rows.hide(txn, engine, memories) if memories else BitMap()
    if samples:
        samples = series.hide(txn, samples)
        txn.series_changed()
    _put(txn, batch, _Batch(to_micros(now), bytes(hidden.serialize()), tuple(samples)))


def due(txn: Reader | Writer, engine: Engine, now: datetime) -> BitMap:
    """Live rows that have expired."""
    live = engine.live(txn)
    return live - engine.unexpired(txn, live, now)


def sweep(txn: Writer, engine: Engine, batch: str, now: datetime, at_most: int) -> int:
    """Move expired rows into the trash, as a batch of their own; returns how many."""
    rows_due = due(txn, engine, now)[:at_most]
    if not rows_due:
        return 0
    hidden = rows.hide(txn, engine, engine.records.outlines(txn, list(rows_due)).items())
    _put(txn, batch, _Batch(to_micros(now), bytes(hidden.serialize()), (), expired=True))
    return len(hidden)


def _put(txn: Writer, name: str, batch: _Batch) -> None:
    txn.put(tables.META, _TRASH + name.encode(), msgspec.msgpack.encode(batch))


def _young(txn: Reader | Writer, now: datetime) -> dict[str, _Batch]:
    """The batches that can be restored, oldest first."""
    oldest = to_micros(now - _KEPT)
    found = {}
    for key, payload in txn.scan(tables.META, _TRASH, _TRASH_END):
        batch = _decode(payload)
        if batch.forgotten_us >= oldest:
            found[key[len(_TRASH) :].decode()] = batch
    return found


def _restorable(
    txn: Reader | Writer, engine: Engine, namespace: str, batches: dict[str, _Batch]
) -> dict[str, BitMap]:
    """The rows of each batch that a namespace covers, without what has expired in the trash."""
    hidden = engine.filters.get_set(txn, HIDDEN)
    if namespace:
        hidden = hidden & engine.filters.subtree(txn, namespace)
    hidden = engine.seen(txn, hidden)
    lasting = engine.unexpired(txn, hidden, engine.now())
    return {
        name: batch.bitmap() & (hidden if batch.expired else lasting)
        for name, batch in batches.items()
    }


def listing(txn: Reader, engine: Engine, namespace: str) -> list[Trashed]:
    """What can be restored within a namespace, the latest batch first."""
    batches = _young(txn, engine.now())
    restorable = _restorable(txn, engine, namespace, batches)
    found = []
    for name, batch in reversed(batches.items()):
        memories = [memory for _, memory in engine.records.iterate(txn, restorable[name])]
        samples = series.hidden_of(txn, batch.samples)
        memories += [samples[id] for id in batch.samples if id in samples]
        items = tuple(m for m in memories if covers(namespace, m) and engine.shows(m))
        if items:
            at = from_micros(batch.forgotten_us)
            found.append(Trashed(name, at, at + _KEPT, items, batch.expired))
    return found


def restoring(
    view: Engine, namespace: str, ids: Sequence[str] | None, batch: str | None
) -> Callable[[Writer], list[str]]:
    """The transaction function that brings memories back by id or by batch; gives their ids.
    Only what ``view`` shows comes back.

    It raises ``NotFound`` when nothing of what is named is in the trash of the namespace or its
    seven days are over, ``Conflict`` when an external id has been taken meanwhile.
    """
    named = None if ids is None else {one for one in ids if is_sample(one)}
    raw = [] if ids is None else [require_id(one, "ids") for one in ids if not is_sample(one)]
    engine = view.whole

    def run(txn: Writer) -> list[str]:
        batches = _young(txn, engine.now())
        if batch is not None:
            batches = {name: one for name, one in batches.items() if name == batch}
        wanted, over = BitMap(), BitMap()
        for name, rows_of_it in _restorable(txn, view, namespace, batches).items():
            wanted |= rows_of_it
            if batches[name].expired:
                over |= rows_of_it
        if ids is not None:
            wanted &= BitMap(lookups.rows_of(txn, raw).values())
        memories = list(engine.records.iterate(txn, wanted))
        kept = [id for one in batches.values() for id in one.samples]
        hidden = series.hidden_of(txn, kept if named is None else [i for i in kept if i in named])
        samples = [id for id, m in hidden.items() if covers(namespace, m) and view.shows(m)]
        if not memories and not samples:
            raise NotFound("nothing of that is in the trash any more")
        for row, stored in memories:
            memory = stored
            _claim_external_id(txn, engine, memory)
            if row in over:
                memory = stored.replace(expires_at=None)
                rows.rewrite(txn, engine, row, stored, memory)
            if memory.key is not None:
                facts.reinsert(txn, engine, row, memory)
        if memories:
            rows.show(txn, engine, wanted)
        if samples:
            series.show(txn, samples)
            txn.series_changed()
        _take_out(txn, batches, wanted, set(samples))
        return [*(memory.id for _, memory in memories), *samples]

    return run


def batches(txn: Reader | Writer) -> list[tuple[str, datetime, BitMap]]:
    """Every batch, oldest first: its name, when, and its rows."""
    found = [
        (key[len(_TRASH) :].decode(), _decode(payload))
        for key, payload in txn.scan(tables.META, _TRASH, _TRASH_END)
    ]
    found.sort(key=lambda pair: (pair[1].forgotten_us, pair[0]))
    return [(name, from_micros(one.forgotten_us), one.bitmap()) for name, one in found]


def held(txn: Reader | Writer, engine: Engine, name: str) -> tuple[list[int], tuple[str, ...]]:
    """The rows of a batch that are still hidden, and its samples."""
    payload = txn.get(tables.META, _TRASH + name.encode())
    if payload is None:
        return [], ()
    batch = _decode(payload)
    return list(batch.bitmap() & engine.filters.get_set(txn, HIDDEN)), batch.samples


def drop(txn: Writer, name: str) -> None:
    """Forget a batch whose members are gone."""
    txn.delete(tables.META, _TRASH + name.encode())


def take_out(txn: Writer, rows: BitMap, samples: Sequence[str]) -> None:
    """Strike rows and samples from every batch: they will not come back."""
    batches = {
        key[len(_TRASH) :].decode(): _decode(payload)
        for key, payload in txn.scan(tables.META, _TRASH, _TRASH_END)
    }
    _take_out(txn, batches, rows, set(samples))


def _take_out(txn: Writer, batches: dict[str, _Batch], restored: BitMap, samples: set[str]) -> None:
    for name, batch in batches.items():
        before = batch.bitmap()
        left = before - restored
        left_samples = tuple(id for id in batch.samples if id not in samples)
        if not left and not left_samples:
            txn.delete(tables.META, _TRASH + name.encode())
        elif left != before or left_samples != batch.samples:
            _put(
                txn,
                name,
                _Batch(batch.forgotten_us, bytes(left.serialize()), left_samples, batch.expired),
            )


def _claim_external_id(txn: Writer, engine: Engine, memory: Memory) -> None:
    if memory.external_id is None:
        return
    key = lookups.external_key(txn, memory.namespace, memory.external_id)
    raw_id = require_id(memory.id)
    holder = lookups.id_under(txn, key)
    if holder is not None and holder != raw_id:
        row = lookups.row_of(txn, holder)
        if row is not None and row in engine.filters.get_set(txn, LIVE):
            raise Conflict("another memory has taken the external_id meanwhile")
    lookups.put_under(txn, key, raw_id)
