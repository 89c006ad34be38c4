"""Making an erasure true: after this, no file that memdb can reach holds a byte of it.

A job of ``storage.erased`` in three phases, each a few short steps under the maintenance lease, and
each of which may be cut off anywhere and done again:

1. *rows*: everything leaves LMDB's structures, a few rows a transaction.
2. *files*: the store is rewritten without dead bytes. Once nobody has an older generation open,
   no reader can see what was erased; then the slots of its vectors are zeroed in every file of
   their spaces, and blobs and what interrupted work left behind are removed.
3. *snapshots*: the erasure is applied to each registered snapshot that can be reached.

A slot is zeroed only in the second phase because a reader of an older generation may still look at
it; for the same reason rows, which are never given twice, could be given again only after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
from pyroaring import BitMap

from memdb import adoption, removal, settings, snapshots, space_convert
from memdb.access import blanking
from memdb.engine import Engine
from memdb.errors import LockHeld, MemdbError
from memdb.index.convert import other_files
from memdb.retention import leaving
from memdb.snapshots import Snapshot
from memdb.space_vectors import SpaceVectors
from memdb.space_views import rows_array
from memdb.storage import erased, lookups, receipts, spaces, tables, vectors
from memdb.storage.erased import Job
from memdb.storage.ids import parse_id
from memdb.storage.receipts import Entry
from memdb.storage.store import Reader, Writer
from memdb.types import to_micros

log = logging.getLogger("memdb")

_ROWS_AT_ONCE = 4  # some milliseconds
_SAMPLES_AT_ONCE = 256
_READ_AT_ONCE = 1_024
_DRAFT_GRACE_S = 60.0
_READERS_END_S = 0.02


class Scrubber:
    """The work of erasures on one engine; the caller holds the lease and does nothing beside it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._keys_dropped: set[int] = set()
        self._looked_for_snapshots = False

    def due(self, txn: Reader) -> bool:
        """Whether an erasure is under way, or a snapshot may have come within reach."""
        return erased.pending(txn) or not self._looked_for_snapshots

    def step(self) -> bool:
        """One step; False when there is nothing to do, or somebody has to go first."""
        engine = self._engine
        with engine.store.read() as txn:
            jobs = erased.jobs(txn)
        if not jobs and not self._looked_for_snapshots:
            self._looked_for_snapshots = True
            return self._late_snapshots()
        for job in jobs:
            if job.phase == "rows":
                self._remove_some(job)
                return True
        waiting = [job for job in jobs if job.phase == "files"]
        if waiting and not self._rewrite(waiting):
            return False
        done = [self._snapshots(job) for job in jobs if job.phase == "snapshots"]
        return bool(waiting) or any(done)

    # --- rows -----------------------------------------------------------------------------

    def _remove_some(self, job: Job) -> None:
        engine = self._engine
        if job.number not in self._keys_dropped:
            self._drop_keys(job)
            self._unlink(job)
            blanking.blank(engine, job.rows_left(), job.samples)
            self._keys_dropped.add(job.number)

        def remove(txn: Writer) -> None:
            present = erased.job(txn, job.number)
            if present is None or present.phase != "rows":
                return
            stop = time.perf_counter() + settings.MAINTENANCE_SLICE_MS / 1000
            left, rest, blobs = present.rows_left(), present.samples, []
            while left and time.perf_counter() < stop:
                rows = list(left[:_ROWS_AT_ONCE])
                blobs += removal.remove_rows(txn, engine, rows)
                left -= BitMap(rows)
            if not left and rest and time.perf_counter() < stop:
                removal.remove_samples(txn, rest[:_SAMPLES_AT_ONCE])
                rest = rest[_SAMPLES_AT_ONCE:]
            over = not left and not rest
            if over:
                # What the log names is gone; caches that are behind it read the store anew.
                txn.delete_range(tables.CHANGES, bytes(8), b"\xff" * 8)
            erased.put_job(
                txn,
                msgspec.structs.replace(
                    present,
                    left=bytes(left.serialize()),
                    samples=rest,
                    blobs=(*present.blobs, *blobs),
                    phase="files" if over else "rows",
                    generation=engine.store.generation,
                ),
            )

        engine.store.write(remove)

    def _drop_keys(self, job: Job) -> None:
        """Forget the caller's own ids, and what exact duplicates are found by."""
        engine = self._engine
        with engine.store.read() as txn:
            found = engine.records.outlines(txn, list(job.rows_left()))
            raw_ids = {parse_id(memory.id) or b"" for memory in found.values()}
            keys = lookups.keys_naming(txn, raw_ids)
        for start in range(0, len(keys), 256):
            some = keys[start : start + 256]
            engine.store.write(partial(lookups.drop_keys, keys=some, raw_ids=raw_ids))

    def _unlink(self, job: Job) -> None:
        """Take the erased out of what other memories, and their versions, say they resemble."""
        engine = self._engine
        with engine.store.read() as txn:
            gone = {m.id for m in engine.records.outlines(txn, list(job.rows_left())).values()}
        seen = left = BitMap()
        while True:
            with engine.store.read() as txn:
                left = left or engine.records.stored(txn) - seen  # some were written meanwhile
                rows = list(left[:_READ_AT_ONCE])
                found = engine.records.outlines(txn, rows)
            if not rows:
                return
            seen |= BitMap(rows)
            left -= BitMap(rows)
            linked = [row for row, memory in found.items() if not gone.isdisjoint(memory.links)]
            if linked:
                engine.store.write(partial(removal.unlink, engine=engine, rows=linked, gone=gone))

    # --- files ----------------------------------------------------------------------------

    def _rewrite(self, jobs: list[Job]) -> bool:
        """A new generation if need be, then the files; False while somebody is in the way."""
        engine = self._engine
        if engine.store.generation <= max(job.generation for job in jobs):
            while leaving.step(engine):  # what retention has evicted goes for good as well
                pass
            engine.store.compact()
        engine.store.reap()
        if engine.store.others():
            return False
        blanking.blank_erased(engine, self._begun_us(jobs))
        blobs = sorted({name for job in jobs for name in job.blobs})
        if not self._clear_slots(jobs) or not self._remove_blobs(blobs):
            return False

        def finish(txn: Writer) -> None:
            for job in jobs:
                present = erased.job(txn, job.number)
                if present is not None and present.phase == "files":
                    erased.put_job(txn, msgspec.structs.replace(present, phase="snapshots"))

        engine.store.write(finish)
        return True

    def _begun_us(self, jobs: list[Job]) -> int:
        """When the first of these erasures was asked for."""
        with self._engine.store.read() as txn:
            entries = [receipts.entry(txn, job.number) for job in jobs]
        return min((entry.at_us for entry in entries if entry is not None), default=0)

    def _clear_slots(self, jobs: list[Job]) -> bool:
        """Zero the vectors' slots, whether or not one was ever published there, and every other
        one that nothing is in: an erased memory may have lain there before it was moved."""
        engine = self._engine
        rows = BitMap()
        for job in jobs:
            rows |= job.all_rows()
        with engine.store.read() as txn:
            owned = removal.rows_of_spaces(txn, rows)
            known = {space.number: space for space in spaces.spaces(txn)}
        for number, record in known.items():
            space = engine.vectors(record)
            if number in owned:
                if not self._drop_other_files(record):
                    return False
                space.clear(owned[number])
            if not clear_unused(engine, space):
                return False
        if not engine.store.wait_for_readers(_READERS_END_S):
            return False
        removal.remove_dropped_files(engine)
        return True

    def _drop_other_files(self, record: spaces.SpaceRecord) -> bool:
        """Remove the files of a conversion, ended or under way: it begins anew."""
        engine = self._engine
        space = engine.vectors(record)
        with engine.store.read() as txn:
            index = space.layout_view(txn).files
        if index is None:
            return True
        for draft in space.directory.glob("*.new"):
            draft.unlink(missing_ok=True)
        if not other_files(space.directory, index.spec):
            return True
        engine.store.write(lambda txn: space_convert.forget(txn, engine.filters, record))
        if not engine.store.wait_for_readers(_READERS_END_S):
            return False
        space_convert.drop_files(space, index.spec)
        return True

    def _remove_blobs(self, names: list[bytes]) -> bool:
        """Remove the files of contents that nobody refers to any more."""
        engine = self._engine
        if not names:
            return True
        engine.blobs.sweep(engine.store, grace_s=0.0, only=names)
        with engine.store.read() as txn:
            released = [name for name in names if not engine.blobs.references(txn, name)]
        if any(engine.blobs.path_of(name).exists() for name in released):
            return False
        return engine.blobs.drop_drafts(released, grace_s=_DRAFT_GRACE_S)

    # --- snapshots ------------------------------------------------------------------------

    def _snapshots(self, job: Job) -> bool:
        """Erase in every snapshot within reach, then write the receipt's last entry.

        False while another process works on one of them.
        """
        engine = self._engine
        with engine.store.read() as txn:
            erased.write_list(engine.store.path, txn)
            known = [one for one in snapshots.known(txn) if one.erased < job.number]
            entry = receipts.entry(txn, job.number)
        missing = []
        for snapshot in known:
            done = self._apply(snapshot)
            if done is None:
                return False
            if not done:
                missing.append(snapshot.path)

        def finish(txn: Writer) -> None:
            if erased.job(txn, job.number) is None or entry is None:
                return
            erased.drop_job(txn, job.number)
            unreached = tuple(snapshots.named(path) for path in missing)
            receipts.append(
                txn,
                id=entry.id,
                at_us=to_micros(engine.now()),
                state="scrubbed",
                counts=entry.counts,
                out_of_reach=(*entry.out_of_reach, *unreached),
            )

        engine.store.write(finish)
        return True

    def _apply(self, snapshot: Snapshot) -> bool | None:
        """Erase in one snapshot all that it does not know of; False when it is out of reach, None
        while another process works on it."""
        engine = self._engine
        with engine.store.read() as txn:
            database = erased.database_id(txn)
            marks = erased.marks(txn, snapshot.erased)
            last = receipts.last_number(txn)
        if not snapshots.is_there(snapshot):
            return False
        try:
            if not erase_in(Path(snapshot.path), database, marks):
                return None
        except LockHeld:
            return None
        except MemdbError as error:
            log.warning("an erasure could not be applied to a snapshot: %s", error)
            return False
        engine.store.write(partial(snapshots.applied, snapshot=snapshot, number=last))
        return True

    def _late_snapshots(self) -> bool:
        """Snapshots that no erasure could reach and that are there by now; told by a new entry of
        the receipts that name them."""
        engine = self._engine
        with engine.store.read() as txn:
            chain = receipts.chain(txn)
            known = [one for one in snapshots.known(txn) if one.erased < len(chain)]
        latest = {entry.id: entry for entry, _ in chain}
        done = False
        for snapshot in known:
            name = snapshots.named(snapshot.path)
            owed = [entry for entry in latest.values() if name in entry.out_of_reach]
            if not owed or not self._apply(snapshot):
                continue
            done = True
            for entry in owed:
                latest[entry.id] = msgspec.structs.replace(
                    entry, out_of_reach=tuple(one for one in entry.out_of_reach if one != name)
                )
                engine.store.write(partial(_correct, entry=latest[entry.id], now=engine.now()))
        return done


def clear_unused(engine: Engine, space: SpaceVectors) -> bool:
    """Zero every slot that was handed out and holds no vector of the space: what moved or was
    evicted left its bytes there. False while an older snapshot is read.
    """
    with engine.store.read() as txn:
        layout = space.layout_view(txn)
        fresh = BitMap(vectors.fresh_rows(txn, space.record.number))
    if layout.files is None:
        return True
    if not engine.store.wait_for_readers(_READERS_END_S):
        return False
    rows = layout.allocation.all_rows() - layout.encoded - fresh
    slots = layout.allocation.slots(rows_array(rows))
    with space.files_guard:
        used = slots[layout.files.seals(slots) != 0]
        if len(used):
            layout.files.clear(used)
    return True


def _correct(txn: Writer, entry: Entry, now: datetime) -> None:
    receipts.append(
        txn,
        id=entry.id,
        at_us=to_micros(now),
        state=entry.state,
        counts=entry.counts,
        out_of_reach=entry.out_of_reach,
    )


def erase_in(path: Path, database: bytes, marks: dict[bytes, erased.Mark]) -> bool:
    """Apply fingerprints to the snapshot at ``path``, down to its bytes.

    False while another process, which has it open, is still at that. A directory that holds
    another database by now is left alone.
    """
    from memdb import sharing  # which imports what this file is part of

    shared = sharing.acquire(
        path, embedder=None, readonly=False, create=False, memory_budget=1 << 28, clock=None
    )
    try:
        engine = shared.engine
        with engine.store.read() as txn:
            if erased.database_id(txn) != database:
                return True
            new = marks.keys() - erased.marks(txn).keys()
        if new:
            engine.store.write(adoption.adopt(engine, {key: marks[key] for key in new}))
        with shared.maintenance.paused():
            return _finish(engine)
    finally:
        sharing.release(shared)


def _finish(engine: Engine) -> bool:
    if engine.store.lease.try_acquire():
        step: Callable[[], bool] = Scrubber(engine).step
        while step():
            pass
    with engine.store.read() as txn:
        return not erased.pending(txn)
