"""``check``: is every byte what was written, and do all structures agree?

Reads everything: each value's checksum and size rule in every table, each record, each pointer
between structures, each vector in the files. Nothing is trusted because something else is right.
``repair`` rebuilds what is derived (filters, codes) from what is not (records, vectors).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyroaring import BitMap

from memdb import space_convert
from memdb.access.auditing import Verifier
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import MemdbError, StoreCorrupt
from memdb.space_views import rows_array, rows_bitmap
from memdb.storage import erased, lookups, postings, receipts, spaces, tables, vectors
from memdb.storage.ids import parse_id
from memdb.storage.store import Reader, Writer
from memdb.storage.values import obeys_size_rule, unseal

_SHOWN = 100
_CHUNK = 4_096


def check(engine: Engine, *, repair: bool) -> dict[str, Any]:
    """{"ok", "problems", "checked", "repaired"}: problems are sentences, at most 100 of them."""
    problems: list[str] = []
    checked: dict[str, int] = {}
    try:
        checked["pages"] = engine.store.verify_pages()
    except StoreCorrupt as error:  # nothing below may be read: a damaged page ends the process
        return {"ok": False, "problems": [str(error)], "checked": checked, "repaired": []}
    looks: dict[str, Callable[[Engine, Reader], Iterator[str | None]]] = {
        "values": _values,
        "records": _records,
        "facts": _facts,
        "vectors": _vectors,
        "blobs": _blobs,
        "receipts": _receipts,
    }
    with engine.store.read() as txn:
        for name, look in looks.items():
            checked[name] = _add(problems, look(engine, txn), name)
    verdict = Verifier(engine).run()
    checked["audit"] = verdict.rows
    if verdict.first_bad is not None:
        problems.append(f"audit: {verdict.first_bad}")
    repaired: list[str] = []
    if repair and problems:
        repaired = _repair(engine)
        remaining = check(engine, repair=False)
        return {**remaining, "repaired": repaired, "found": problems[:_SHOWN]}
    return {
        "ok": not problems,
        "problems": problems[:_SHOWN],
        "checked": checked,
        "repaired": repaired,
    }


def _add(problems: list[str], found: Iterator[str | None], name: str) -> int:
    """Collect problems from a check that yields one item a thing looked at, None if it is fine."""
    looked = 0
    try:
        for problem in found:
            looked += 1
            if problem is not None:
                problems.append(problem)
    except StoreCorrupt as error:  # what this check reads from is itself damaged
        problems.append(f"{name}: {error}")
    return looked


def _values(engine: Engine, txn: Reader) -> Iterator[str | None]:
    for name in filter(txn.has, tables.ALL):
        for key, value in txn.raw(name):
            if not value:
                yield None
                continue
            try:
                unseal(key, value)
            except StoreCorrupt:
                yield f"table {name}: a value fails its checksum"
                continue
            yield None if obeys_size_rule(value) else f"table {name}: a value has a forbidden size"


def _records(engine: Engine, txn: Reader) -> Iterator[str | None]:
    """Every live or hidden row has a record, whose id leads back to the row."""
    live = engine.filters.get_set(txn, LIVE)
    hidden = engine.filters.get_set(txn, HIDDEN)
    if live & hidden:
        yield "a row is live and hidden at once"
    known = live | hidden
    filed = engine.filters.present(txn, "namespace")
    if known - filed:
        yield f"{len(known - filed)} rows are missing from the filter index"
    present = BitMap()
    for row in known:
        try:
            memory = engine.records.get(txn, row)
        except MemdbError as error:
            yield f"row {row}: {error}"
            continue
        if memory is None:
            yield f"row {row} has no record"
            continue
        present.add(row)
        raw_id = parse_id(memory.id)
        if raw_id is None or lookups.row_of(txn, raw_id) != row:
            yield f"row {row}: its id does not lead back to it"
        else:
            yield None
    if postings.stats(txn).docs != postings.row_count(txn):
        yield "the postings count another number of rows than have terms"
    known |= erased.rows_under_way(txn)
    for _, row in lookups.all_ids(txn):
        if row not in known:
            yield f"an id leads to row {row}, which is neither live nor hidden"


def _facts(engine: Engine, txn: Reader) -> Iterator[str | None]:
    """A fact's values are live and in order of validity."""
    live = engine.filters.get_set(txn, LIVE)
    for key, _ in txn.scan(tables.PROFILE):
        rows = lookups.timeline(txn, key)
        if any(row not in live for row in rows):
            yield "a fact's timeline holds a row that is not live"
        else:
            yield None


def _vectors(engine: Engine, txn: Reader) -> Iterator[str | None]:
    """Every encoded vector reads back with its own slot and checksum."""
    for record in spaces.spaces(txn):
        owned = spaces.allocation(txn, record.number)
        encoded = engine.filters.get_set(txn, f"encoded/{record.number}")
        if encoded - owned.all_rows():
            yield f"space {record.name}: encoded rows it does not own"
        fresh = rows_bitmap(vectors.fresh_rows(txn, record.number))
        if engine.filters.get_set(txn, space_convert.converted(record)) - encoded:
            yield f"space {record.name}: rows copied to another profile that are not encoded"
        if fresh & encoded:
            yield f"space {record.name}: rows both fresh and encoded"
        try:
            opened = engine.vectors(record)
        except StoreCorrupt as error:
            yield f"space {record.name}: {error}"
            continue
        rows = rows_array(encoded)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            problem = opened.damaged(txn, chunk)
            yield None if problem is None else f"space {record.name}: {problem}"


def _blobs(engine: Engine, txn: Reader) -> Iterator[str | None]:
    """Every blob in use is there and holds what its name says."""
    damaged = engine.blobs.check(txn)
    for error in damaged:
        yield f"{error.path}: {error}"
    for _ in range(sum(1 for _ in engine.blobs.referenced(txn)) - len(damaged)):
        yield None


def _receipts(engine: Engine, txn: Reader) -> Iterator[str | None]:
    """Each entry names the one before it, and each erasure under way has one."""
    found = receipts.chain(txn)
    for _ in found:
        yield None
    known = {entry.id for entry, _ in found}
    for job in erased.jobs(txn):
        yield None if job.receipt in known else "an erasure under way has no receipt"


def _repair(engine: Engine) -> list[str]:
    """Rebuild the filter index and the codes; returns what was rebuilt."""
    engine.store.lease.acquire()
    rebuilt = ["filters"]
    _rebuild_filters(engine)
    with engine.store.read() as txn:
        known = spaces.spaces(txn)
    for record in known:
        opened = engine.vectors(record)
        if opened.index is not None:
            with engine.store.read() as txn:
                opened.rebuild_codes(txn)
            rebuilt.append(f"codes of space {record.name}")
    return rebuilt


def _rebuild_filters(engine: Engine) -> None:
    """File every record again; adding what is there already changes nothing.

    A fresh row whose entries are damaged lost its being live with them: it is, where an id leads to
    it and it is not hidden.
    """
    lost = BitMap(engine.store.write(engine.filters.drop_damaged))
    with engine.store.read() as txn:
        rows = sorted(row for _, row in lookups.all_ids(txn))
    for start in range(0, len(rows), 256):
        chunk = rows[start : start + 256]

        def refile(txn: Writer, chunk: list[int] = chunk) -> None:
            engine.filters.add(txn, list(engine.records.iterate(txn, chunk)))
            shown = (lost & BitMap(chunk)) - engine.filters.get_set(txn, HIDDEN)
            if shown:
                engine.filters.set_add(txn, LIVE, shown)
            txn.changed(added=chunk)  # whoever remembers sets of rows must read them again

        engine.store.write(refile)
