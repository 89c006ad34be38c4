"""What was erased in one database, erased in the copies that were made of it.

A copy has its original's key, so the original's fingerprints tell which of the copy's memories were
erased since. They become an erasure of the copy's own, with a receipt of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from memdb import snapshots
from memdb.engine import Engine
from memdb.erasure import Reached, begin, sample_mark, versions_of
from memdb.errors import PermissionDenied
from memdb.storage import erased, lookups, receipts, series
from memdb.storage.erased import Mark
from memdb.storage.series_layout import read_hidden
from memdb.storage.store import Reader, Writer
from memdb.types import Memory


def matching(txn: Reader | Writer, engine: Engine, marks: Mapping[bytes, Mark]) -> Reached:
    """What a database holds that another one's fingerprints say was erased."""
    rows = {}
    for raw_id, row in lookups.all_ids(txn):
        if erased.fingerprint(txn, erased.ID, raw_id) in marks:
            rows[row] = raw_id
    items = list(engine.records.iterate(txn, sorted(rows)))
    samples: list[Memory] = []
    if any(mark.kind == erased.SAMPLE for mark in marks.values()):
        samples = list(_erased_samples(txn, marks))
    versions = versions_of(txn, engine, [memory for _, memory in items])
    return Reached(items, [], versions, samples)


def _erased_samples(txn: Reader | Writer, marks: Mapping[bytes, Mark]) -> Iterable[Memory]:
    for name, header in series.every(txn):
        known = {name: header}
        ids: Sequence[str] = [series.format_id(name, number) for number in read_hidden(txn, name)]
        stored = [series.to_memory(header.key, one) for one in series.read_range(txn, known)]
        stored += series.hidden_of(txn, ids).values()
        for memory in stored:
            if sample_mark(txn, memory) in marks:
                yield memory


def adopt(engine: Engine, marks: Mapping[bytes, Mark]) -> Callable[[Writer], int]:
    """The transaction function that applies another database's fingerprints to this one.

    It gives the number of the receipt, whose job the maintenance does; 0 when nothing was held.
    """
    now = engine.now()
    receipt = engine.new_id(now)

    def run(txn: Writer) -> int:
        reached = matching(txn, engine, marks)
        number = receipts.last_number(txn)
        done = 0
        if reached.rows or reached.samples:
            number = done = begin(txn, engine, reached, receipt, now)
        mine = max(1, number)  # numbers count the receipts of one database
        erased.put(txn, {key: Mark(mine, mark.kind) for key, mark in marks.items()})
        return done

    return run


def catch_up(engine: Engine) -> None:
    """Before the first read of a copy: what its original has erased since is erased here.

    Raises ``PermissionDenied`` for a copy opened read-only that holds something of that.
    """
    with engine.store.read() as txn:
        origin = snapshots.origin_of(txn)
        if origin is None:
            return
        database = erased.database_id(txn)
    if Path(origin.path) == engine.store.path:
        return  # put back in its original's place: that list is this database's own
    listed = erased.read_list(Path(origin.path), database)
    marks = {key: mark for key, mark in listed.items() if mark.number > origin.erased}
    if not marks:
        return
    if engine.store.readonly:
        with engine.store.read() as txn:
            held = matching(txn, engine, marks)
        if held.rows or held.samples:
            raise PermissionDenied(
                "the copy holds what its original has erased",
                hint="open it once without readonly, so that it is erased here too",
            )
        return
    apply = adopt(engine, marks)
    last = max(mark.number for mark in marks.values())

    def run(txn: Writer) -> None:
        apply(txn)
        snapshots.mark_origin(txn, Path(origin.path), last)

    engine.store.write(run)
