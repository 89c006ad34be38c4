"""``report`` and ``erase``: what a selector reaches, and making it invisible for good.

Erasing is a tombstone and a job in one transaction: from its commit nobody sees what is erased, in
any process, and nothing brings it back, because fingerprints of it are kept. The bytes go later
(``scrub``). What was derived from an erased memory is erased with it, and what was derived from
that. It reaches what is in the trash or has expired as well: that is known, though not shown.

This file decides what goes; it does not know how it is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pyroaring import BitMap

from memdb import file_ledger, removal, snapshots
from memdb.engine import Engine
from memdb.errors import Conflict
from memdb.query.lexical import LexicalQuery
from memdb.reader import MemoryReader
from memdb.selection import Select, selector
from memdb.storage import erased, lookups, postings, receipts, series, spaces, vectors
from memdb.storage.erased import Job, Mark
from memdb.storage.ids import parse_id
from memdb.storage.series_layout import pack
from memdb.storage.store import Reader, Writer
from memdb.types import Memory, Report, to_micros

_AT_ONCE = 4_096  # ids of one condition


class Reached(NamedTuple):
    """What an erasure takes: current rows, their earlier versions, samples."""

    items: list[tuple[int, Memory]]
    derived: list[tuple[int, Memory]]
    versions: list[tuple[int, Memory]]
    samples: list[Memory]

    @property
    def current(self) -> list[tuple[int, Memory]]:
        return [*self.items, *self.derived]

    @property
    def total(self) -> int:
        """How many memories, which is what a report shows and a person confirms."""
        return len(self.items) + len(self.derived) + len(self.samples)

    @property
    def rows(self) -> BitMap:
        return BitMap([row for row, _ in (*self.items, *self.derived, *self.versions)])


class Eraser:
    """The two verbs over one engine; stateless between calls."""

    def __init__(self, engine: Engine, reader: MemoryReader) -> None:
        self._engine = engine
        self._reader = reader

    # --- what is reached ------------------------------------------------------------------

    def select(
        self,
        namespace: str,
        ids: str | Sequence[str] | None,
        where: Mapping[str, Any] | None,
        about: str | None,
    ) -> Select:
        """What is stored of what is named, shown or not."""
        return selector(self._reader, namespace, ids=ids, where=where, about=about, hidden=True)

    def report(self, namespace: str, select: Select, about: str | None) -> Report:
        """What a selector names, what was derived from it, and what merely mentions a person."""
        engine = self._engine
        with engine.store.read() as txn:
            found = self.reach(txn, select, namespace, texts=True)
            found = found._replace(versions=[v for v in found.versions if engine.shows(v[1])])
            visible = self._reader.select(txn, namespace, None)
            shown = [memory for row, memory in found.items if row in visible]
            hidden_samples = {one.id for one in found.samples}
            hidden_samples -= series.get_many(txn, list(hidden_samples)).keys()
            shown += [one for one in found.samples if one.id not in hidden_samples]
            hidden = [memory for row, memory in found.items if row not in visible]
            hidden += [one for one in found.samples if one.id in hidden_samples]
            mentions: list[Memory] = []
            if about is not None:
                mentioned = self._mentioning(txn, namespace, about) - found.rows
                mentions = [memory for _, memory in engine.records.iterate(txn, mentioned)]
            counts = count(txn, engine, found)
            known = () if engine.granted else tuple(one.path for one in snapshots.known(txn))
        derived = tuple(memory for _, memory in found.derived)
        return Report(tuple(shown), derived, tuple(mentions), tuple(hidden), counts, known)

    def reach(
        self, txn: Reader | Writer, select: Select, namespace: str, *, texts: bool = False
    ) -> Reached:
        """Everything that erasing what ``select`` finds takes with it; without ``texts``, those
        in files of their own are left out, so that what is damaged can be erased."""
        chosen = select(txn)
        records = self._engine.records
        items = list(
            records.iterate(txn, chosen.rows)
            if texts
            else records.outlines(txn, list(chosen.rows)).items()
        )
        ids = [*(memory.id for _, memory in items), *(one.id for one in chosen.samples)]
        derived = self._derived(txn, namespace, ids, chosen.rows)
        versions = versions_of(txn, self._engine, [memory for _, memory in (*items, *derived)])
        return Reached(items, derived, versions, chosen.samples)

    def _derived(
        self, txn: Reader | Writer, namespace: str, ids: list[str], known: BitMap
    ) -> list[tuple[int, Memory]]:
        """What was inferred from those ids, directly or not, and is not among ``known``."""
        found: list[tuple[int, Memory]] = []
        seen = BitMap(known)
        frontier = ids
        while frontier:
            rows = BitMap()
            for start in range(0, len(frontier), _AT_ONCE):
                some = frontier[start : start + _AT_ONCE]
                condition = self._reader.compile({"derived_from": {"$in": some}}, txn)
                rows |= self._reader.known(txn, namespace, condition)
            rows -= seen
            seen |= rows
            new = list(self._engine.records.iterate(txn, rows))
            found += new
            frontier = [memory.id for _, memory in new]
        return found

    def _mentioning(self, txn: Reader, namespace: str, person: str) -> BitMap:
        """Visible rows whose words contain every word of ``person``."""
        rows = self._reader.select(txn, namespace, None)
        for term in self._engine.analyser.query(person, txn.digest):
            rows = LexicalQuery(txn, [term]).matches(rows)
        return rows

    # --- erasing --------------------------------------------------------------------------

    def erase(self, namespace: str, select: Select, confirmed: int | None = None) -> int:
        """Hide for good, and commit the job in the same transaction; the number of its receipt.

        ``Conflict`` where that reaches another number of memories than was ``confirmed``.
        """
        engine = self._engine
        now = engine.now()
        receipt = engine.new_id(now)

        def run(txn: Writer) -> int:
            reached = self.reach(txn, select, namespace)
            if confirmed is not None and reached.total != confirmed:
                raise Conflict(
                    "confirm_count is not how many would be erased",
                    hint="make a report with the same selector, look at it, and confirm its total",
                )
            return begin(txn, engine, reached, receipt, now)

        return engine.store.write(run)


def versions_of(
    txn: Reader | Writer, engine: Engine, memories: Iterable[Memory]
) -> list[tuple[int, Memory]]:
    """The rows of earlier versions of memories."""
    raw = [parse_id(memory.id) for memory in memories]
    rows = [row for one in raw if one is not None for row in lookups.versions(txn, one)]
    return list(engine.records.outlines(txn, sorted(rows)).items())


def begin(txn: Writer, engine: Engine, reached: Reached, receipt: str, now: datetime) -> int:
    """The tombstone, the fingerprints, the job and the receipt; the receipt's number."""
    counts = count(txn, engine, reached)
    out_of_reach = _out_of_reach(reached)
    rows = reached.rows
    nothing = not rows and not reached.samples
    number = receipts.append(
        txn,
        id=receipt,
        at_us=to_micros(now),
        state="scrubbed" if nothing else "hidden",
        counts=counts,
        out_of_reach=() if nothing else out_of_reach,
    )
    if nothing:
        return number
    marks = {mark: Mark(number, kind) for mark, kind in _marks(txn, reached)}
    erased.put(txn, marks)
    removal.withdraw(txn, engine, reached.current)
    removal.withdraw_samples(txn, [one.id for one in reached.samples])
    packed = bytes(rows.serialize())
    erased.put_job(
        txn,
        Job(
            number=number,
            receipt=receipt,
            rows=packed,
            left=packed,
            samples=tuple(one.id for one in reached.samples),
        ),
    )
    return number


def sample_mark(txn: Reader | Writer, memory: Memory) -> bytes:
    """The fingerprint of a sample: of its series, times and data."""
    key, sample = series.from_memory(memory)
    return erased.fingerprint(txn, erased.SAMPLE, series.name_of(txn, key) + pack(sample))


def chunk_mark(txn: Reader | Writer, namespace: str, digest: bytes) -> bytes:
    """The fingerprint of a file's chunk, whichever file it is in."""
    return erased.fingerprint(txn, erased.CHUNK, digest + namespace.encode())


def erased_places(
    txn: Reader | Writer, raw_ids: Sequence[bytes], externals: Sequence[bytes | None]
) -> set[int]:
    """The places at which an id, or the key of an external id, is of something erased."""
    if not erased.anything(txn):
        return set()
    marks = [
        (erased.fingerprint(txn, kind, data), place)
        for kind, given in ((erased.ID, raw_ids), (erased.EXTERNAL, externals))
        for place, data in enumerate(given)
        if data is not None
    ]
    gone = erased.among(txn, [mark for mark, _ in marks])
    return {place for mark, place in marks if mark in gone}


def _marks(txn: Writer, reached: Reached) -> Iterator[tuple[bytes, bytes]]:
    """(fingerprint, kind) of everything by which it could come back; chunks leave their files."""
    for _, memory in reached.current:
        raw_id = parse_id(memory.id)
        if raw_id is not None:
            yield erased.fingerprint(txn, erased.ID, raw_id), erased.ID
        digest = file_ledger.strike(txn, memory)
        if digest is not None:
            yield chunk_mark(txn, memory.namespace, digest), erased.CHUNK
    for _, memory in (*reached.current, *reached.versions):
        if memory.external_id is not None:
            key = lookups.external_key(txn, memory.namespace, memory.external_id)
            yield erased.fingerprint(txn, erased.EXTERNAL, key), erased.EXTERNAL
    for sample in reached.samples:
        yield sample_mark(txn, sample), erased.SAMPLE


def _out_of_reach(reached: Reached) -> tuple[str, ...]:
    files = {m.stream for _, m in reached.current if m.kind == "chunk"}
    found = ["exports and copies that were made of the database outside memdb"]
    if files:
        found.append(f"{len(files)} source files, which stay on the disk")
    found.append("what a disk keeps below its file system: spare blocks, copies on write")
    return tuple(found)


# --- counting -----------------------------------------------------------------------------


def count(txn: Reader | Writer, engine: Engine, reached: Reached) -> dict[str, int]:
    """How much of each kind an erasure reaches; nothing but numbers."""
    current = [memory for _, memory in reached.current]
    rows = reached.rows
    found = {
        "memories": len(reached.items),
        "derived": len(reached.derived),
        "versions": len(reached.versions),
        "chunks": sum(memory.kind == "chunk" for memory in current),
        "facts": sum(memory.key is not None for memory in current),
        "samples": len(reached.samples),
        "postings": len(postings.forward_rows(txn, rows)),
        "blobs": len({b for row in rows if (b := engine.records.blob_of(txn, row)) is not None}),
        "vectors": 0,
    }
    for space in spaces.spaces(txn):
        mine = rows & spaces.allocation(txn, space.number).all_rows()
        fresh = BitMap(vectors.load_fresh(txn, space.number, space.dim, list(mine))[0].tolist())
        encoded = engine.filters.get_set(txn, f"encoded/{space.number}") & mine
        found["vectors"] += len(fresh | encoded)
    return found
