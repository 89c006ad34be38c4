"""Background work: what may lag behind an acknowledged write without changing any answer.

One thread in one process does it: the holder of the maintenance lease. Each step is short (some
milliseconds of write lock), resumable, and leaves right answers if the process dies after it.
Every step here is a call into the package that owns the structure; this file knows only when.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from pyroaring import BitMap

from memdb import reembedding, settings, trash
from memdb.engine import HIDDEN, LIVE, Engine
from memdb.errors import LockHeld, MemdbError
from memdb.reembedding import Reembedder
from memdb.retention.keeper import Keeper
from memdb.scrub import Scrubber
from memdb.storage import postings, series, spaces, tables
from memdb.storage.records import Records
from memdb.storage.store import Reader, Writer
from memdb.types import to_micros

log = logging.getLogger("memdb")

COLD_AFTER = timedelta(days=30)
_RETRY_LEASE_S = 1.0
_PAUSE_PER_WORK = 4.0
_LONGEST_PAUSE_S = 0.5
_FILED_AT_ONCE = 32  # rows of one transaction: a few milliseconds
_QUIET_S = 0.1  # after the last write; what can wait does so until then
_PATIENCE = 2  # times as many fresh rows as are worth filing, before filing waits no more
_SEGMENTS_MAX = 128  # merging waits no more: a question reads all of them
_EXPIRY_S = 1.0
_SWEPT = 64  # rows of one transaction
_GENTLY_MS = 2.0  # of a slice that makes somebody's write wait


class Maintenance:
    """The background thread of one engine; started by the first write, stopped by ``close``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._working = threading.Lock()
        self._seen = self._latest = -1
        self._filing = False
        self._postponed = False
        self._own = -1  # the ``content_seq`` that filing rows may have left: nobody's write
        self._written_at = float("-inf")
        self._importing = 0
        self._scrubber = Scrubber(engine)
        self._looked_at = float("-inf")  # when it was last seen whether something has expired
        self.last_error: MemdbError | None = None
        self.keeper = Keeper(engine, self.paused)
        self.reembedder = Reembedder(engine)

    def notify(self) -> None:
        """There may be work: start the thread if need be. It looks every 50 ms; waking it for
        each write would make it compete with the writer for the lock."""
        if self._thread is None:
            with self._guard:
                if self._thread is None and not self._stopping:
                    self._thread = threading.Thread(
                        target=self._run, name="memdb-maintenance", daemon=True
                    )
                    self._thread.start()

    def stop(self) -> None:
        """Finish the step at hand and end the thread."""
        with self._guard:
            self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def drain(self) -> bool:
        """Do everything there is, now, in this thread; False when another process has the lease."""
        if not self._engine.store.lease.try_acquire():
            return False
        while self._step():
            pass
        return True

    def require_lease(self) -> None:
        """Do everything there is, now. Raises ``LockHeld`` naming the process that has the
        lease.
        """
        if not self.drain():
            pid, host = self._engine.store.lease.holder()
            raise LockHeld(
                f"process {pid} on {host} is maintaining this database", pid=pid, host=host
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No background step runs while the block does."""
        with self._working:
            yield

    @contextmanager
    def importing(self) -> Iterator[None]:
        """While a batch is checked, prepared and written, which takes longer than a quiet moment,
        what can wait does so: the next batch follows."""
        with self._guard:
            self._importing += 1
        try:
            yield
        finally:
            with self._guard:
                self._importing -= 1

    # --- the thread ---------------------------------------------------------------------

    def _run(self) -> None:
        lease = self._engine.store.lease
        while not self._stopping:
            if self._engine.store.readonly or not lease.try_acquire():
                self._follow()
                self._wake.wait(_RETRY_LEASE_S)
                self._wake.clear()
                continue
            busy, quiet = False, True
            before, started = self._latest, time.monotonic()
            try:
                if self._moved():
                    if self._latest not in (before, self._own):
                        self._written_at = started
                    quiet = self._is_quiet(started)
                    busy = self._step(quiet=quiet)
                    if not (busy or self._postponed):
                        self._mark()
                self.last_error = None
                if busy and not quiet:
                    self._give_way(time.monotonic() - started)
            except MemdbError as error:  # told by stats() and check(); tried again later
                if self.last_error is None:
                    log.warning("maintenance: %s", error)
                self.last_error = error
                self._wake.wait(_RETRY_LEASE_S)
            if not busy and not self._stopping:
                self._wake.wait(settings.MAINTENANCE_POLL_MS / 1000)
                self._wake.clear()

    def _follow(self) -> None:
        """Move on with the store: an idle process must not keep a superseded generation, in which
        what was erased is still to be read."""
        try:
            with self._engine.store.read():
                pass
        except MemdbError as error:
            self.last_error = error

    def _give_way(self, worked_s: float) -> None:
        """Somebody is writing: take a fifth of the time at most, so that an import has the rest.

        The backlog stays bounded, since a step does more than what arrives meanwhile.
        """
        self._wake.wait(min(_LONGEST_PAUSE_S, _PAUSE_PER_WORK * worked_s))
        self._wake.clear()

    def _is_quiet(self, now_s: float) -> bool:
        """Whether nobody writes: what waits for that may be done."""
        return now_s - self._written_at > _QUIET_S and not self._importing

    def _moved(self) -> bool:
        """Whether anything was written, here or elsewhere, since all work was done, or a space is
        to have another profile or to be filled."""
        with self._engine.store.read() as txn:
            self._latest = txn.state.content_seq
            wanted = any(space.converting is not None for space in spaces.spaces(txn))
            wanted = wanted or self._scrubber.due(txn) or self._expiry_due(txn)
            wanted = wanted or reembedding.due(txn)
        return wanted or self._latest != self._seen or self.keeper.due()

    def _expiry_due(self, txn: Reader) -> bool:
        """Whether something has expired, looked at once a second: time passes without a write."""
        now = time.monotonic()
        if now - self._looked_at < _EXPIRY_S:
            return False
        self._looked_at = now
        return bool(trash.due(txn, self._engine, self._engine.now()))

    def _scrub(self) -> bool:
        """A step of an erasure. What it removes is nobody's write, for which it would give way."""
        done = self._scrubber.step()
        if done:
            with self._engine.store.read() as txn:
                self._own = txn.state.content_seq
        return done

    def _sweep(self) -> bool:
        """What has expired, which nobody sees, goes to the trash."""
        engine = self._engine
        now = engine.now()
        with engine.store.read() as txn:
            if not trash.due(txn, engine, now):
                return False
        batch = engine.new_id(now)
        return engine.store.write(lambda txn: trash.sweep(txn, engine, batch, now, _SWEPT)) > 0

    def _mark(self) -> None:
        self._seen = self._latest

    def _step(self, *, quiet: bool = True) -> bool:
        """One round of short steps; whether any of them did something.

        Not ``quiet``: somebody is writing, and each step may make a write wait. What only makes
        reading cheaper is postponed, unless much has come together.
        """
        self._postponed = False
        with self._working:
            steps: list[Callable[[], bool]] = [
                self._scrub,
                self._sweep,
                self.keeper.step,
                self._fold,
                lambda: self._file(quiet),
                lambda: self._merge(quiet),
                self._seal_series,
                *self._encoders(),
                self.reembedder.step,
            ]
            done = False
            for step in steps:
                if self._stopping:
                    return False
                done = step() or done
            return done

    def _fold(self) -> bool:
        with self._engine.store.read() as txn:
            if txn.count(tables.FRESH_FORWARD) < settings.FRESH_POSTINGS_MAX:
                return False
        return self._engine.store.write(lambda txn: postings.fold(txn)) > 0

    def _file(self, quiet: bool) -> bool:
        """Once enough rows are fresh, all of them go into the filters, a few at a time."""
        filters = self._engine.filters
        with self._engine.store.read() as txn:
            waiting = filters.fresh_count(txn)
        if waiting < (1 if self._filing else settings.FRESH_FILTERS_MAX):
            self._filing = False
            return False
        self._filing = True
        if not quiet and waiting < _PATIENCE * settings.FRESH_FILTERS_MAX:
            self._postponed = True
            return False
        rows = _FILED_AT_ONCE if quiet else _FILED_AT_ONCE // 2

        def fold(txn: Writer) -> int:
            self._own = txn.state.content_seq + 1
            return filters.fold(txn, rows)

        return self._engine.store.write(fold) > 0

    def _merge(self, quiet: bool) -> bool:
        with self._engine.store.read() as txn:
            work = postings.merging(txn)
        if not work.due:
            return False
        if not quiet and work.segments < _SEGMENTS_MAX:
            self._postponed = True
            return False
        stored = self._stored()
        budget = settings.MAINTENANCE_SLICE_MS if quiet else _GENTLY_MS
        return self._engine.store.write(
            lambda txn: postings.merge_step(txn, budget_ms=budget, stored=stored)
        )

    def _stored(self) -> BitMap | None:
        """Rows whose postings a merge must keep: those still in sight or restorable."""
        with self._engine.store.read() as txn:
            filters = self._engine.filters
            return filters.get_set(txn, LIVE) | filters.get_set(txn, HIDDEN)

    def _seal_series(self) -> bool:
        with self._engine.store.read() as txn:
            if not series.due(txn):  # a write would make others wait for nothing
                return False
        return self._engine.store.write(
            lambda txn: series.seal_step(txn, budget_ms=settings.MAINTENANCE_SLICE_MS)
        )

    def _encoders(self) -> list[Callable[[], bool]]:
        with self._engine.store.read() as txn:
            found = spaces.spaces(txn)
        return [step for space in found for step in self._steps_of(space)]

    def _steps_of(self, space: spaces.SpaceRecord) -> tuple[Callable[[], bool], ...]:
        vectors = self._engine.vectors
        return (lambda: vectors(space).encode_step()), (lambda: vectors(space).convert_step())

    # --- on request -----------------------------------------------------------------------

    def freeze(self, older_than: timedelta = COLD_AFTER) -> int:
        """Move records not written since ``older_than`` into cold blocks; returns how many.

        Profile facts stay hot: their reads are key look-ups.
        """
        engine = self._engine
        limit = to_micros(engine.now() - older_than)
        with engine.store.read() as txn:
            filters = engine.filters
            rows = filters.range(txn, "recorded_at", None, limit)
            rows &= filters.get_set(txn, LIVE)
            rows -= filters.present(txn, "key")
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(row >> 6, []).append(row)
        full = [group for group in groups.values() if len(group) >= 32]
        return sum(self._freeze_group(engine.records, group) for group in full)

    def _freeze_group(self, records: Records, group: list[int]) -> int:
        return self._engine.store.write(lambda txn: records.freeze(txn, group))

    def backlog(self) -> dict[str, int]:
        """What waits: fresh postings, rows to file in the filters, fresh vectors, and segments of
        postings if some of them are to be merged."""
        with self._engine.store.read() as txn:
            merging = postings.merging(txn)
            return {
                "fresh_postings": txn.count(tables.FRESH_FORWARD),
                "fresh_filters": txn.count(tables.FRESH_FILTERS),
                "fresh_vectors": txn.count(tables.VECTORS),
                "segments_to_merge": merging.segments if merging.due else 0,
            }
