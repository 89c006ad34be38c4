"""The store of one database: transactions across generations, threads and processes.

Reads are LMDB snapshots. Writes are functions of a transaction, and those that queue while one is
synced go together (``group_commit``). Every transaction reads ``State`` first and moves on when its
generation was superseded.

This file knows the state, the generations and the lease. It does not know records.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import lmdb

from memdb import settings
from memdb.errors import InvalidArgument, MemdbError, PermissionDenied, StoreCorrupt
from memdb.storage import format as disk_format
from memdb.storage import generations, tables
from memdb.storage.copying import copy_into, make_copy
from memdb.storage.environment import translate
from memdb.storage.generations import Generation
from memdb.storage.group_commit import Beside, GroupCommit, Job
from memdb.storage.lease import CreationLock, Lease
from memdb.storage.state import STATE_KEY, State
from memdb.storage.transactions import Reader, Writer

__all__ = ["Reader", "Store", "Writer"]

T = TypeVar("T")
_OPEN_ATTEMPTS = 100


class Store:
    """One database directory, opened once in a process. Use ``Store.open``."""

    def __init__(self, path: Path, *, readonly: bool, create: bool, map_size: int) -> None:
        self.path = path
        self.readonly = readonly
        self._map_size = map_size
        self._kv = path / "kv"
        self.lease = Lease(path / "lease")
        self._poisoned = False
        self._closed = False
        self._references = 1
        self._writes = GroupCommit(self._run)
        self._threads = threading.local()
        self._swap_guard = threading.Lock()
        disk_format.refuse_network_file_system(path if path.exists() else path.parent)
        version = disk_format.inspect(path, create=create and not readonly)
        if version is None:
            self._create()
        elif version < settings.FORMAT_VERSION:
            self._upgrade(version)
        self._generation = self._open_current()
        _stores.add(self)

    # --- opening ------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        readonly: bool = False,
        create: bool = True,
        map_size: int = settings.MAP_SIZE_BYTES,
    ) -> Store:
        """The process's one store for this directory; each ``open`` needs its ``close``."""
        real = Path(path).expanduser().resolve()
        with _registry_guard:
            store = _registry.get(real)
            if store is not None and not store._poisoned:
                if store.readonly and not readonly:
                    raise InvalidArgument(
                        "this process has the database open read-only already", field="readonly"
                    )
                store._references += 1
                return store
            store = cls(real, readonly=readonly, create=create, map_size=map_size)
            _registry[real] = store
            return store

    def _create(self) -> None:
        """Make the directory; FORMAT last, so that a half-made one is made again."""
        disk_format.make_directories(self.path)
        maker = CreationLock(self.path / "kv" / "creating")
        with maker:
            if disk_format.read_version(self.path) is not None:
                return  # another process made it meanwhile
            self._refuse_to_replace()
            for entry in self._kv.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
            first = self._kv / generations.name_of(1)
            first.mkdir(mode=0o700)
            generation = Generation(
                self._kv, 1, readonly=False, map_size=self._map_size, create=True
            )
            generation.retire()
            generations.fsync_directory(first)
            generations.fsync_directory(self._kv)
            generations.write_current(self._kv, 1)
            disk_format.write_version(self.path)

    def _refuse_to_replace(self) -> None:
        """A directory without FORMAT may be half made, or hold a database that lost the file."""
        for entry in self._kv.iterdir():
            if not (entry / "data.mdb").exists():
                continue
            try:
                number = int(entry.name[1:])
                generation = Generation(self._kv, number, readonly=False, map_size=self._map_size)
            except (MemdbError, ValueError, FileNotFoundError):
                used = entry.name != generations.name_of(1)  # never was more than half made
            else:
                used = self._state_of(generation) != State()
                generation.retire()
            if used:
                raise StoreCorrupt(
                    "FORMAT is missing beside a database",
                    path="FORMAT",
                    hint=f"restore a snapshot, or write the line '{settings.FORMAT_NAME} "
                    f"{settings.FORMAT_VERSION}' into FORMAT if this version made the database",
                )

    def _upgrade(self, version: int) -> None:
        if self.readonly:
            raise PermissionDenied(
                f"the database has format {version} and must be upgraded first",
                hint="open it once without readonly",
            )
        self.lease.acquire()
        try:
            found = disk_format.check_version(self.path)  # another process may have done it
            disk_format.upgrade(self.path, version if found is None else found)
        finally:
            self.lease.release()

    def _open_current(self, number: int | None = None) -> Generation:
        """Open generation ``number``, or the one CURRENT names, following any successor.

        Who names one comes from the one before it, looks at no pages and syncs nothing."""
        walk = number is None
        for _ in range(_OPEN_ATTEMPTS):
            current = generations.read_current(self._kv)
            number = current if number is None else number
            try:
                generation = self._open_generation(number, walk=walk)
            except FileNotFoundError:
                if number == current == generations.read_current(self._kv):
                    raise StoreCorrupt(
                        "the current generation is missing",
                        path=f"kv/{generations.name_of(number)}",
                    ) from None
                number = None  # reaped, so that CURRENT names a later one by now
                continue
            successor = self._state_of(generation).superseded_by
            if not successor:
                if number > current and walk and not self.readonly:
                    generations.write_current(self._kv, number)  # finish an interrupted swap
                return generation
            generation.retire()
            number = successor
        raise StoreCorrupt("the generations of the store do not settle", path="kv/CURRENT")

    def _open_generation(self, number: int, *, walk: bool) -> Generation:
        try:
            return Generation(
                self._kv, number, readonly=self.readonly, map_size=self._map_size, walk=walk
            )
        except PermissionError as error:
            raise PermissionDenied("the database directory cannot be opened") from error

    @staticmethod
    def _state_of(generation: Generation) -> State:
        with generation.env.read() as txn:
            return State.unpack(txn.get(tables.META, STATE_KEY))

    # --- transactions -------------------------------------------------------------------

    def _enter(self) -> Generation:
        if self._poisoned:
            raise MemdbError(
                "the database was opened before this process forked",
                hint="open it again in the child process",
            )
        while True:
            if self._closed:
                raise MemdbError("the database is closed", hint="open it again")
            generation = self._generation
            if generation.enter():
                return generation

    def _move_on(self, generation: Generation, successor: int) -> None:
        """Leave a superseded generation for its successor, which CURRENT may not name yet."""
        with self._swap_guard:
            if self._generation is generation and not self._closed:
                self._generation = self._open_current(successor)
                self._generation.env.take_over(generation.env)
        generation.retire()

    def read(self) -> _Snapshot:
        """A context manager giving a ``Reader``; keep it short (it pins pages everywhere)."""
        return _Snapshot(self)

    def _begin_read(self) -> tuple[Generation, Reader]:
        while True:
            generation = self._enter()
            try:
                txn = generation.env.begin_read(Reader)
            except BaseException:
                generation.leave()
                raise
            try:
                txn.state = State.unpack(txn.get(tables.META, STATE_KEY))
            except BaseException as error:
                txn.end()
                generation.leave()
                if isinstance(error, lmdb.Error):
                    raise translate(error) from error
                raise
            if not txn.state.superseded_by:
                return generation, txn
            txn.end()
            generation.leave()
            self._move_on(generation, txn.state.superseded_by)

    def wait_for_readers(self, timeout_s: float = 2.0) -> bool:
        """Wait until no process reads a snapshot older than this call; whether that came about."""
        stop = time.monotonic() + timeout_s
        generation = self._enter()
        try:
            now = generation.env.info()["last_txnid"]
            while True:
                oldest = generation.env.oldest_reader()
                if oldest is None or oldest >= now:
                    return True
                if time.monotonic() > stop:
                    return False
                time.sleep(0.002)
        finally:
            generation.leave()

    def write(
        self, function: Callable[[Writer], T], *, committing: Callable[[], None] | None = None
    ) -> T:
        """Run ``function`` in the write transaction; durable when this returns.

        ``function`` may run more than once and must have no effect but on its transaction.
        ``committing`` is called, perhaps more than once, when all that is left is to wait for the
        disk; nothing is promised by then. Raises what ``function`` raises, ``StoreFull``,
        ``PermissionDenied``.
        """
        if self.readonly:
            raise PermissionDenied("the database was opened read-only")
        return self._writes.submit(
            Job(function, getattr(self._threads, "beside", None), committing)
        )

    def _run(self, group: list[Job[Any]]) -> None:
        while True:
            generation = self._enter()
            try:
                with generation.env.transaction(Writer, write=True) as txn:
                    txn.state = before = State.unpack(txn.get(tables.META, STATE_KEY))
                    if not before.superseded_by:
                        for job in group:
                            txn.begin_operation()
                            job.result = job.function(txn)
                            if job.beside is not None:
                                job.beside(txn, job.result)
                            txn.end_operation()
                        if txn.state != before:
                            txn.put(tables.META, STATE_KEY, txn.state.pack())
                        for job in group:
                            if job.committing is not None:
                                job.committing()
                if not before.superseded_by:
                    return
            finally:
                generation.leave()
            self._move_on(generation, before.superseded_by)

    @contextmanager
    def beside(self, function: Beside) -> Iterator[None]:
        """Within the block, ``function`` goes into every transaction this thread writes: it is
        committed with it or not at all. It may run more than once, like what it stands beside."""
        self._threads.beside = function
        try:
            yield
        finally:
            self._threads.beside = None

    def digest(self, data: bytes, size: int) -> bytes:
        """Keyed BLAKE2b with the store's key, the same in every generation."""
        return self._generation.env.digest(data, size)

    # --- maintenance --------------------------------------------------------------------

    def compact(
        self,
        prepare: Callable[[Path], None] | None = None,
        *,
        dense: bool = False,
        packed: bool = False,
    ) -> None:
        """Rewrite the store into a new generation: no free pages, no dead bytes.

        The caller holds the lease. Readers go on throughout; writers wait for the copy. ``dense``
        makes full pages as well, and takes several times as long; ``packed`` puts less into them
        where most records are cold (``packing``), and takes as long again. ``prepare`` is called
        with the copy's directory before it is published.
        """
        if not self.lease.held:
            raise MemdbError("compact needs the maintenance lease")
        with self._writes.paused():
            generation = self._enter()
            try:
                self._replace(
                    generation, partial(make_copy, prepare=prepare, dense=dense, packed=packed)
                )
            finally:
                generation.leave()
        self._move_on(generation, generation.number + 1)
        self.reap()

    def _replace(self, old: Generation, copy: Callable[[Path, Generation, int], None]) -> None:
        """Copy, open the copy, and send everybody there: nobody waits for its being opened."""
        number = old.number + 1
        opened: Generation | None = None
        try:
            with ExitStack() as swap:
                with old.env.transaction(Writer, write=True) as txn:
                    state = State.unpack(txn.get(tables.META, STATE_KEY))
                    if state.superseded_by:
                        raise MemdbError("the store was superseded while the lease was held")
                    copy(self._kv, old, number)
                    opened = self._open_generation(number, walk=False)
                    opened.env.take_over(old.env)
                    swap.enter_context(self._swap_guard)
                    txn.put(tables.META, STATE_KEY, state._replace(superseded_by=number).pack())
                if not self._closed:
                    self._generation, opened = opened, None
        finally:
            if opened is not None:
                opened.retire()
        generations.write_current(self._kv, number)

    def reap(self) -> int:
        """Remove generations that nobody uses any more; the caller holds the lease."""
        return generations.reap(self._kv, self._generation.number)

    def others(self) -> list[Path]:
        """Generations besides the current one: those that somebody uses still."""
        return generations.others(self._kv, self._generation.number)

    def users_of_others(self) -> list[int]:
        """Process ids of those who use superseded generations, where the system tells."""
        return sorted({pid for entry in self.others() for pid in generations.users(entry)})

    def copy_to(self, directory: Path) -> None:
        """A compacting copy of the last committed state into an existing directory."""
        generation = self._enter()
        try:
            copy_into(generation.env, directory)
        finally:
            generation.leave()

    @property
    def generation(self) -> int:
        return self._generation.number

    def verify_pages(self) -> int:
        """Walk every page of the store; how many there are. Raises ``StoreCorrupt``."""
        generation = self._enter()
        try:
            return generation.env.verify_pages(deep=True)
        finally:
            generation.leave()

    def info(self) -> dict[str, int]:
        """Sizes of the LMDB environment, in bytes and pages."""
        generation = self._enter()
        try:
            return generation.env.info()
        finally:
            generation.leave()

    def close(self) -> None:
        """Drop one reference; the last one closes. Idempotent past that."""
        with _registry_guard:
            self._references -= 1
            if self._references > 0 or self._closed:
                return
            _registry.pop(self.path, None)
            with self._swap_guard:  # a swap under way ends first: what it opens is closed here
                self._closed = True
        if not self._poisoned:
            self._generation.retire()
            self.lease.release()


class _Snapshot:
    """The ``with`` block of one read transaction. A class, not a generator: it is the hot path."""

    __slots__ = ("_generation", "_store", "_txn")

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> Reader:
        self._generation, self._txn = self._store._begin_read()
        return self._txn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._txn.end()
        self._generation.leave()
        if isinstance(error, lmdb.Error):
            raise translate(error) from error


_registry: dict[Path, Store] = {}
_registry_guard = threading.Lock()
_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _poison_after_fork() -> None:
    """A forked child must not use its parent's environments (LMDB's locks would break)."""
    global _registry_guard
    _registry_guard = threading.Lock()
    for store in list(_stores):
        store._poisoned = True
        store._generation.let_go()
        store.lease.let_go()
    _registry.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_poison_after_fork)
